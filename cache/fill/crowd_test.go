package fill

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"
)

// perStream is the pace of streams that bring so many bytes a second each.
func perStream(rate int) func(*stream, int) time.Duration {
	return func(_ *stream, n int) time.Duration { return time.Duration(n) * time.Second / time.Duration(rate) }
}

// shared is the pace of streams that bring so many bytes a second together.
func shared(rate int) func(*stream, int) time.Duration {
	return func(st *stream, n int) time.Duration {
		st.s.mu.Lock()
		defer st.s.mu.Unlock()
		return time.Duration(n*st.s.streams) * time.Second / time.Duration(rate)
	}
}

// pull reads all of src's content through a fill.
func pull(t *testing.T, content []byte, src *source) (w *world) {
	t.Helper()
	w = newWorld(t)
	r, _, err := w.Join(t.Context(), digestOf(content), int64(len(content)), src, Whole)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, content) {
		t.Fatalf("%d bytes of %d: %v", len(got), len(content), err)
	}
	w.idle()
	if src.sent != int64(len(content)) {
		t.Errorf("%d bytes were fetched of %d", src.sent, len(content))
	}
	return w
}

func TestConnectionsAreAddedWhileTheyRaiseTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, _ := random(24 << 20)
		src := &source{content: content, beside: 5, pace: perStream(1 << 20)}
		pull(t, content, src)
		if src.most != 6 {
			t.Errorf("%d streams at once, want as many as the source gives", src.most)
		}
	})
}

func TestConnectionsThatBringNothingAreGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, _ := random(24 << 20)
		src := &source{content: content, beside: 7, pace: shared(1 << 20)}
		pull(t, content, src)
		if src.most != 2 {
			t.Errorf("%d streams at once, want a second one on trial", src.most)
		}
		for _, r := range src.requests {
			if r.Beside > 0 && r.Offset > 16<<20 {
				t.Errorf("a further stream was asked for at %d still", r.Offset)
			}
		}
	})
}

func TestConnectionThatIsRefusedInterruptsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, _ := random(24 << 20)
		src := &source{content: content, pace: perStream(1 << 20)}
		pull(t, content, src)
		opened := 0
		for _, r := range src.requests {
			if r.Beside == 0 {
				opened++
			}
		}
		if opened != 1 || len(src.requests) < 2 {
			t.Errorf("%d streams of %d requests", opened, len(src.requests))
		}
	})
}

func TestConnectionThatIsStuckIsGivenUp(t *testing.T) {
	for stuck := range 3 { // the first, and two of those beside it
		synctest.Test(t, func(t *testing.T) {
			content, _ := random(24 << 20)
			src := &source{content: content, beside: 3, pace: perStream(1 << 20)}
			streams, cut := make(map[*stream]int), false
			src.pace = func(st *stream, n int) time.Duration {
				st.s.mu.Lock()
				if _, known := streams[st]; !known {
					streams[st] = len(streams)
				}
				sticks := streams[st] == stuck && st.pos > 2<<20 && st.pos < 18<<20 // the last of all has nobody beside it
				st.s.mu.Unlock()
				if sticks {
					cut = true
					<-st.ctx.Done()
				}
				return time.Duration(n) * time.Second / (1 << 20)
			}
			pull(t, content, src)
			if !cut {
				t.Errorf("stream %d was never stuck", stuck)
			}
		})
	}
}

func TestSourceThatThrottlesHasOneConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, _ := random(24 << 20)
		src := &source{content: content, beside: 7, pace: perStream(1 << 20), strains: []error{nil, nil, errThrottled}}
		pull(t, content, src)
		if src.most != 2 && src.most != 3 {
			t.Errorf("%d streams at once", src.most)
		}
		after := src.requests[4:] // those of the trial had been on their way
		for _, r := range after[min(2, len(after)):] {
			if r.Beside > 0 {
				t.Errorf("a stream beside %d others was asked for at %d", r.Beside, r.Offset)
			}
		}
	})
}

func TestConnectionThatFailsLeavesItsPartToTheOthers(t *testing.T) {
	for name, src := range map[string]*source{
		"refused":                   {beside: 2},
		"broken off":                {beside: 5, cuts: []int64{1 << 40, 8 << 20, 6 << 20}},
		"refused for other reasons": {beside: 5, strains: []error{nil, errors.New("502"), errFinal}},
	} {
		synctest.Test(t, func(t *testing.T) {
			content, _ := random(24 << 20)
			src.content, src.pace = content, perStream(5<<20)
			if len(src.cuts) > 0 {
				src.cuts[0] = int64(len(content))
			}
			t.Log(name)
			pull(t, content, src)
		})
	}
}

func TestReaderFromTheStartIsNotStarvedByConnectionsAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, d := random(24 << 20)
		w := newWorld(t)
		src := &source{content: content, beside: 5, pace: perStream(1 << 20)}
		r, _, err := w.Join(t.Context(), d, int64(len(content)), src, Whole)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		// What has landed ahead of the reader is never more than what the workers hold between them.
		for pos := int64(0); pos < int64(len(content)); pos += 1 << 20 {
			expectRead(t, r, content[pos:pos+1<<20])
			r.f.mu.Lock()
			ahead := r.f.have.total() - r.f.have.end(0)
			r.f.mu.Unlock()
			if most := int64(12 << 20); ahead > most {
				t.Fatalf("%d bytes have landed ahead of the reader at %d", ahead, pos)
			}
		}
	})
}

func TestCrowd(t *testing.T) {
	const missing = 1 << 40
	c, now, waited := newCrowd(), time.Time{}, 1.0
	look := func(landed, missing int64, workers int) {
		now = now.Add(100 * time.Millisecond)
		c.look(now, 100*time.Millisecond, landed, waited, missing, workers)
	}
	steps := []struct {
		landed  int64
		workers int
		want    int
		why     string
	}{
		{100, 1, 1, "one look is none"},
		{200, 1, 1, "it is getting faster by itself"},
		{200, 1, 2, "a trial"},
		{230, 2, 2, "the new one has hardly begun"},
		{400, 2, 2, "not on average"},
		{400, 2, 4, "it was worth it: two more"},
		{400, 4, 4, "on trial"},
		{840, 4, 4, "the rate has not settled"},
		{840, 4, 8, "worth it too"},
		{800, 8, 8, "on trial"},
	}
	for i, s := range steps {
		if look(s.landed, missing, s.workers); c.want != s.want {
			t.Fatalf("step %d: want %d, should be %d: %s", i, c.want, s.want, s.why)
		}
	}
	for began := now; now.Sub(began) < trialFor; {
		look(800, missing, 8)
	}
	if c.want != 4 {
		t.Errorf("want %d after a trial that brought nothing", c.want)
	}
	for began := now; now.Sub(began) < restFor-time.Second; {
		if look(800, missing, 4); c.want != 4 {
			t.Fatal("no rest")
		}
	}
	c = newCrowd()
	for range 100 {
		if look(100, 400, 1); c.want != 1 {
			t.Fatal("a trial for what is here in a moment")
		}
	}
	c, waited = newCrowd(), 0.4
	for range 100 {
		if look(100, missing, 1); c.want != 1 {
			t.Fatal("a trial at a source that waits for us")
		}
	}
	c, waited = newCrowd(), 1
	c.answers = 10 * time.Second
	for range 100 {
		if look(100, 30_000, 1); c.want != 1 {
			t.Fatal("a trial for what is here before a source has answered")
		}
	}
}

func TestWhatWasTriedOfAnOriginIsKnownToTheNextFill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		take := func(src *source) {
			t.Helper()
			r, _, err := w.Join(t.Context(), digestOf(src.content), int64(len(src.content)), src, Whole)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			expectRead(t, r, src.content)
		}
		first, _ := random(24 << 20)
		take(&source{origin: "here", content: first, beside: 5, pace: perStream(1 << 20)})
		second, _ := random(25 << 20)
		src := &source{origin: "here", content: second, beside: 5, pace: perStream(1 << 20)}
		began := time.Now()
		take(src)
		if took := time.Since(began); src.most < 6 || took > 6*time.Second { // a seventh may be called by the reader
			t.Errorf("%d streams at once, %v", src.most, took)
		}
		<-time.After(2 * habitFor)
		alone, _ := random(26 << 20)
		take(&source{origin: "here", content: alone, beside: 7, pace: shared(4 << 20)})
		next, _ := random(27 << 20)
		src = &source{origin: "here", content: next, beside: 7, pace: shared(4 << 20)}
		take(src)
		if src.most != 1 {
			t.Errorf("%d streams at once where a second one had just brought nothing", src.most)
		}
	})
}
