package fill

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// script is a source each of whose answers is made up by the test.
type script struct {
	answer func(ctx context.Context, r Request) (Stream, error)

	mu         sync.Mutex
	asked      []time.Time
	distrusted []string
	open       int // streams
}

func (s *script) Open(ctx context.Context, r Request) (Stream, error) {
	s.mu.Lock()
	s.asked = append(s.asked, time.Now())
	s.mu.Unlock()
	return s.answer(ctx, r)
}

func (s *script) Distrust(origin string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.distrusted = append(s.distrusted, origin)
}

func (s *script) requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.asked)
}

// flow is what a script answers with: bytes at a rate, after a delay.
type flow struct {
	s     *script
	ctx   context.Context
	b     []byte
	rate  int // bytes a second
	delay time.Duration
}

// flow returns a stream of the part of content that r asks for.
func (s *script) flow(ctx context.Context, content []byte, r Request, rate int, delay time.Duration) Stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open++
	part := content[r.Offset:]
	if r.Length >= 0 {
		part = part[:r.Length]
	}
	return Stream{Body: &flow{s, ctx, part, rate, delay}, Size: int64(len(content)), Origin: "good"}
}

func (f *flow) Read(p []byte) (int, error) {
	if err := sleep(f.ctx, f.delay); err != nil {
		return 0, err
	}
	if f.delay = 0; len(f.b) == 0 {
		return 0, io.EOF
	}
	n := min(copy(p, f.b), max(1, f.rate/8))
	if err := sleep(f.ctx, time.Duration(n)*time.Second/time.Duration(f.rate)); err != nil {
		return 0, err
	}
	f.b = f.b[n:]
	return n, nil
}

func (f *flow) Close() error {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	f.s.open--
	return nil
}

// readAll reads all of the content through a fill, and returns what it got.
func readAll(t *testing.T, w *world, content []byte, src Source) ([]byte, error) {
	t.Helper()
	r, _, err := w.Join(t.Context(), digestOf(content), int64(len(content)), src, Whole)
	if err != nil {
		return nil, err
	}
	got, err := io.ReadAll(r)
	r.Close()
	w.idle()
	return got, err
}

// TestLateBytesOfOneThatWasToStopAreNobodyElses has a worker that is to stop land a last chunk, of wrong bytes, late: had its
// place been given to another by then, they would lie over right bytes that are hashed already.
func TestLateBytesOfOneThatWasToStopAreNobodyElses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, d := random(64 << 20)
		wrong := make([]byte, len(content))
		besides := 0
		src := &script{}
		src.answer = func(ctx context.Context, r Request) (Stream, error) {
			if r.Beside == 0 {
				return src.flow(ctx, content, r, 4<<20, 0), nil
			}
			src.mu.Lock()
			besides++
			n := besides
			src.mu.Unlock()
			switch n {
			case 1:
				return src.flow(ctx, content, r, 4<<20, 0), nil
			case 2:
				return src.flow(ctx, wrong, r, 4<<20, 4*time.Second), nil
			}
			return Stream{}, errors.Join(errThrottled, sleep(ctx, 100*time.Millisecond))
		}
		w := newWorld(t)
		_, err := readAll(t, w, content, src)
		if kept := w.content(d); kept != nil && !bytes.Equal(kept, content) {
			t.Errorf("wrong content is kept; the reader got %v", err)
		}
	})
}

func TestTrialThatIsSlowHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, _ := random(64 << 20)
		src := &script{}
		src.answer = func(ctx context.Context, r Request) (Stream, error) {
			if r.Beside > 0 {
				return src.flow(ctx, content, r, 50<<10, 0), nil
			}
			return src.flow(ctx, content, r, 5<<20, 0), nil
		}
		began := time.Now()
		if got, err := readAll(t, newWorld(t), content, src); err != nil || !bytes.Equal(got, content) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
		if took := time.Since(began); took > 25*time.Second { // by the test's own clock; 13 s by one connection
			t.Errorf("the reader waited %s, for a connection that brought a hundredth of the other", took)
		}
	})
}

// TestOneOfSeveralThatIsThrottledEndsNoPull has a source that suddenly gives one stream at a time.
func TestOneOfSeveralThatIsThrottledEndsNoPull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, _ := random(64 << 20)
		src := &script{}
		src.answer = func(ctx context.Context, r Request) (Stream, error) {
			src.mu.Lock()
			strict := time.Since(src.asked[0]) > 3*time.Second && src.open > 0
			src.mu.Unlock()
			switch {
			case r.Beside > 1:
				return Stream{}, errEnough
			case strict:
				return Stream{}, errThrottled
			}
			return src.flow(ctx, content, r, 1<<20-r.Beside*300<<10, 0), nil
		}
		if got, err := readAll(t, newWorld(t), content, src); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	})
}

func TestNobodyAsksForWhatNobodyWants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, _ := random(64 << 20)
		src := &script{}
		src.answer = func(ctx context.Context, r Request) (Stream, error) {
			delay := time.Duration(0)
			if src.requests() == 3 {
				delay = math.MaxInt64 // one that is stuck
			}
			return src.flow(ctx, content, r, 4<<20, delay), nil
		}
		w := newWorld(t)
		w.Close()
		w.open(func(o *Options) { o.Park = true })
		r, _, err := w.Join(t.Context(), digestOf(content), int64(len(content)), src, Whole)
		if err != nil {
			t.Fatal(err)
		}
		elapse(3 * time.Second)
		r.Close()
		asked := src.requests()
		w.idle()
		if more := src.requests() - asked; more > 0 {
			t.Errorf("%d requests after the last reader had left", more)
		}
	})
}

func TestClaimedSizeIsNoSourcesLie(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, d := random(4 << 20)
		w := newWorld(t)
		src := &source{content: content, silent: true, origin: "good"}
		r, _, err := w.Join(t.Context(), d, int64(len(content))-1, src, Whole)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if _, err := io.ReadAll(r); !errors.Is(err, ErrDigest) || len(src.distrusted) > 0 {
			t.Errorf("%v; distrusted: %v", err, src.distrusted)
		}
	})
}

// TestWhoLiedShowsWhenOneSendsAll has two origins bring wrong content between them: who of them it was shows when the next
// time one of them alone brings all of it, be it right or wrong.
func TestWhoLiedShowsWhenOneSendsAll(t *testing.T) {
	for _, alone := range []string{"liar", "honest"} {
		synctest.Test(t, func(t *testing.T) {
			content, _ := random(48 << 20)
			wrong := make([]byte, len(content))
			src := &script{}
			src.answer = func(ctx context.Context, r Request) (Stream, error) {
				lies := (alone == "liar") == (r.Beside == 0)
				s := src.flow(ctx, content, r, 4<<20, 0)
				if s.Origin = "honest"; lies {
					s.Origin = "liar"
					s.Body.(*flow).b = wrong[:len(s.Body.(*flow).b)]
				}
				return s, nil
			}
			w := newWorld(t)
			if _, err := readAll(t, w, content, src); !errors.Is(err, ErrDigest) || len(src.distrusted) > 0 {
				t.Errorf("%v; distrusted at once: %v", err, src.distrusted)
			}
			if _, err := readAll(t, w, content, src); (err == nil) != (alone == "honest") {
				t.Errorf("%s alone: %v", alone, err)
			}
			if len(src.distrusted) != 1 || src.distrusted[0] != "liar" {
				t.Errorf("distrusted: %v", src.distrusted)
			}
		})
	}
}

func TestSourcesOfOthersUseUpNoTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, d := random(4 << 20)
		w := newWorld(t)
		failures := map[int64]error{2: errors.New("503"), 3: errors.New("503"), 4: errors.New("503")}
		good := &source{content: content, cuts: []int64{1 << 20}, gate: 1000, open: make(chan struct{}), fails: failures}
		r := join(t, w, d, good)
		defer r.Close()
		for range 3 {
			join(t, w, d, &script{answer: func(context.Context, Request) (Stream, error) {
				return Stream{}, errors.New("connection refused")
			}}).Close()
		}
		close(good.open)
		expectRead(t, r, content)
	})
}

func TestConnectionsAreAddedToWhatWasParkedToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, d := random(48 << 20)
		w := newWorld(t)
		src := &source{content: content, beside: 5, pace: perStream(2 << 20)}
		w.part(t, d, src, content, 0, 1<<20)
		w.idle()
		a, _, err := w.Join(t.Context(), d, int64(len(content)), src, Part{To: 1 << 20, Ranged: true}) // wants what is here
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		b := join(t, w, d, src)
		defer b.Close()
		expectRead(t, b, content)
		if src.most < 2 {
			t.Errorf("%d streams at once", src.most)
		}
	})
}

func TestCrowdGoesNoFurtherBackThanBack(t *testing.T) {
	c := newCrowd()
	c.want, c.trial = 4, 2
	c.backTo(time.Now(), 2)
	if c.backTo(time.Now(), 3); c.want != 2 {
		t.Errorf("%d are wanted", c.want)
	}
}
