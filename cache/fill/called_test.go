package fill

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"
)

func TestRefusalBesideOthersIsNotAskedAgainAndAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, d := random(64 << 20)
		src := &script{}
		src.answer = func(ctx context.Context, r Request) (Stream, error) {
			if r.Offset == 0 {
				return src.flow(ctx, content, r, 64<<10, 0), nil // slow
			}
			if src.requests() > 100 {
				return Stream{}, sleep(ctx, time.Hour) // or this test would never end
			}
			return Stream{}, errFinal
		}
		w := newWorld(t)
		a, _, err := w.Join(t.Context(), d, int64(len(content)), src, Part{From: 0, To: 1 << 20, Ranged: true})
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		b, _, err := w.Join(ctx, d, int64(len(content)), src, Part{From: 32 << 20, To: 33 << 20, Ranged: true})
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		b.Seek(32<<20, io.SeekStart)
		began := time.Now()
		_, err = b.Read(make([]byte, 1))
		if n := src.requests(); n > 5 || !errors.Is(err, errFinal) {
			t.Errorf("%d requests within %s; %v", n, time.Since(began), err)
		}
	})
}

func TestReaderAheadOfAWholeGetsItsWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, d := random(64 << 20)
		src := &script{}
		src.answer = func(ctx context.Context, r Request) (Stream, error) {
			if r.Beside > 0 {
				return Stream{}, errEnough
			}
			return src.flow(ctx, content, r, 1<<20, 400*time.Millisecond), nil
		}
		w := newWorld(t)
		a := join(t, w, d, src)
		defer a.Close()
		elapse(3 * time.Second)
		b, _, err := w.Join(t.Context(), d, int64(len(content)), src, Part{From: 48 << 20, To: 49 << 20, Ranged: true})
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		b.Seek(48<<20, io.SeekStart)
		began := time.Now()
		expectRead(t, b, content[48<<20:48<<20+1<<20])
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("waited %s for 1 MiB; %d requests", took, src.requests())
		}
	})
}

func TestLastOfSeveralIsBesideNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, _ := random(64 << 20)
		src := &script{}
		broken := false
		src.answer = func(ctx context.Context, r Request) (Stream, error) {
			src.mu.Lock()
			refuse := broken || r.Beside > 1
			src.mu.Unlock()
			if r.Beside > 0 && refuse {
				return Stream{}, errEnough
			}
			if r.Beside == 1 && r.Offset > 56<<20 {
				src.mu.Lock()
				broken = true
				src.mu.Unlock()
				s := src.flow(ctx, content, r, 1<<20, 0)
				s.Body = &breaks{s.Body, 1536 << 10}
				return s, nil
			}
			return src.flow(ctx, content, r, 4<<20, 0), nil
		}
		got, err := readAll(t, newWorld(t), content, src)
		if err != nil || !bytes.Equal(got, content) {
			t.Errorf("%d bytes, %v, %d requests", len(got), err, src.requests())
		}
	})
}

type breaks struct {
	io.ReadCloser
	left int
}

func (b *breaks) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errors.New("connection reset by peer")
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

func TestThrottledRangeLeavesTheOthersAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, d := random(256 << 20)
		src := &script{}
		src.answer = func(ctx context.Context, r Request) (Stream, error) {
			if src.requests() == 5 {
				return Stream{}, errThrottled
			}
			return src.flow(ctx, content, r, 1<<20, 0), nil
		}
		w := newWorld(t)
		done := make(chan bool)
		for i := range 5 {
			go func() {
				from := int64(i) * 32 << 20
				w.part(t, d, src, content, from, from+16<<20)
				done <- true
			}()
			elapse(100 * time.Millisecond)
		}
		for range 5 {
			<-done
		}
		after := 0 // requests within half a second of the 429
		for _, at := range src.asked[5:] {
			if at.Sub(src.asked[4]) < 500*time.Millisecond {
				after++
			}
		}
		if after > 1 {
			t.Errorf("%d requests right after a 429, for which one is to be repeated", after)
		}
	})
}

func TestNobodyIsAskedAfterAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, d := random(64 << 20)
		src := &script{}
		src.answer = func(ctx context.Context, r Request) (Stream, error) {
			if src.requests() > 1 {
				return src.flow(ctx, content, r, 4<<20, time.Hour), nil // stuck
			}
			s := src.flow(ctx, content, r, 4<<20, 0)
			s.Body = &breaks{s.Body, 8 << 20}
			return s, nil
		}
		w := newWorld(t)
		w.Close()
		w.open(func(o *Options) { o.Park = true })
		r, _, err := w.Join(t.Context(), d, int64(len(content)), src, Whole)
		if err != nil {
			t.Fatal(err)
		}
		io.ReadFull(r, make([]byte, 8<<20))
		elapse(50 * time.Millisecond)
		asked := src.requests()
		r.Close()
		began := time.Now()
		w.idle()
		if more := src.requests() - asked; more > 0 {
			t.Errorf("%d requests after the last reader had left; the flight went on for %s", more, time.Since(began))
		}
	})
}

func TestVainTrialHoldsNoReaderUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, d := random(128 << 20)
		src := &script{}
		src.answer = func(ctx context.Context, r Request) (Stream, error) {
			s := src.flow(ctx, content, r, 2<<20, 400*time.Millisecond)
			s.Body = &unequal{s.Body.(*flow), r.Beside}
			return s, nil
		}
		r := join(t, newWorld(t), d, src)
		defer r.Close()
		began, last, worst := time.Now(), time.Now(), time.Duration(0)
		buf := make([]byte, 1<<20)
		for {
			_, err := r.Read(buf)
			worst = max(worst, time.Since(last))
			last = time.Now()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if worst > 15*time.Second {
			t.Errorf("the reader waited %s at a stretch; all took %s, %d requests", worst, time.Since(began), src.requests())
		}
	})
}

// unequal is a stream over a line of 2 MiB/s, of which the older of two gets a quarter.
type unequal struct {
	*flow
	beside int
}

func (s *unequal) Read(p []byte) (int, error) {
	s.s.mu.Lock()
	open := s.s.open
	s.s.mu.Unlock()
	switch {
	case open <= 1:
		s.rate = 2 << 20
	case s.beside == 0:
		s.rate = 512 << 10
	default:
		s.rate = 1536 << 10 / (open - 1)
	}
	return s.flow.Read(p)
}

func TestChangedStaysChangedWhenParkedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, d := random(8 << 20)
		w := newWorld(t)
		src := &source{content: content, cuts: []int64{3 << 20}, fails: map[int64]error{2: errFinal, 3: errFinal}}
		if _, err := readAll(t, w, content, src); !errors.Is(err, errFinal) {
			t.Fatal(err)
		}
		w.mu.Lock()
		p := w.parked[d]
		p.b[0]++
		p.changed = true
		w.parked[d] = p
		w.mu.Unlock()
		if _, err := readAll(t, w, content, src); !errors.Is(err, errFinal) {
			t.Fatal(err)
		}
		got, err := readAll(t, w, content, src)
		if kept := w.content(d); kept != nil && !bytes.Equal(kept, content) {
			t.Errorf("wrong content is kept; the reader got %d bytes, %v", len(got), err)
		}
	})
}

func TestSilentSourceIsNotWaitedForByRanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, d := random(64 << 20)
		src := &script{}
		src.answer = func(ctx context.Context, r Request) (Stream, error) {
			delay := time.Duration(0)
			if src.requests() == 1 {
				delay = time.Hour
			}
			return src.flow(ctx, content, r, 4<<20, delay), nil
		}
		w := newWorld(t)
		r, _, err := w.Join(t.Context(), d, int64(len(content)), src, Part{From: 0, To: 1 << 20, Ranged: true})
		if err != nil {
			t.Fatal(err)
		}
		elapse(time.Second)
		r.Close()
		elapse(time.Second)
		if w.Stats().Flights > 0 {
			t.Error("it is waited for")
		}
		began := time.Now()
		w.part(t, d, src, content, 0, 1<<20)
		if took := time.Since(began); took > time.Second {
			t.Errorf("who came next waited %s", took)
		}
	})
}

// TestLastOneThatIsStuckIsGivenUp has the stream that was first bring the head of the content at a trickle, while others bring
// all the rest and leave.
func TestLastOneThatIsStuckIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, _ := random(64 << 20)
		src := &script{}
		src.answer = func(ctx context.Context, r Request) (Stream, error) {
			if src.requests() == 1 {
				s := src.flow(ctx, content, r, 8<<20, 0)
				s.Body = &trickles{s.Body, 6 << 20}
				return s, nil
			}
			return src.flow(ctx, content, r, 8<<20, 0), nil
		}
		began := time.Now()
		if got, err := readAll(t, newWorld(t), content, src); err != nil || !bytes.Equal(got, content) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
		if took := time.Since(began); took > 20*time.Second { // by the test's own clock
			t.Errorf("the reader waited %s", took)
		}
	})
}

// trickles is a stream that brings a byte a second after so many.
type trickles struct {
	io.ReadCloser
	left int
}

func (s *trickles) Read(p []byte) (int, error) {
	if s.left <= 0 {
		p = p[:1]
		if err := sleep(s.ReadCloser.(*flow).ctx, time.Second); err != nil {
			return 0, err
		}
	}
	n, err := s.ReadCloser.Read(p)
	s.left -= n
	return n, err
}
