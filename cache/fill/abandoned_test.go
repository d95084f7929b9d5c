package fill

import (
	"context"
	"testing"
	"testing/synctest"
)

// late answers once it is released.
type late struct {
	*source
	release chan struct{}
}

func (l *late) Open(ctx context.Context, r Request) (Stream, error) {
	select {
	case <-l.release:
	case <-ctx.Done():
		return Stream{}, ctx.Err()
	}
	return l.source.Open(ctx, r)
}

// TestAbandonedBeforeTheAnswerCount has readers leave before the source has answered: no more than maxAbandoned go on either.
func TestAbandonedBeforeTheAnswerCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		release, landing := make(chan struct{}), make(chan struct{})
		for i := range maxAbandoned + 5 {
			content, d := random(2<<20 + i)
			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				synctest.Wait()
				cancel()
			}()
			if _, _, err := w.Join(ctx, d, -1, &late{&source{content: content, gate: 1, open: landing}, release}, Whole); err == nil {
				t.Error("joined")
			}
		}
		close(release)
		synctest.Wait() // all have their answer, and none can end before all are counted
		close(landing)
		w.idle()
		kept, parked := w.ends()
		if kept != maxAbandoned || w.abandoned.Load() != 0 {
			t.Errorf("%d kept, %d parked, %d counted at the end", kept, parked, w.abandoned.Load())
		}
	})
}

// TestResumedFillKnowsItsOrigin takes up what was parked, at first with nothing to ask for: what its crowd learns afterwards is
// learnt of the origin that answers then.
func TestResumedFillKnowsItsOrigin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, d := random(64 << 20)
		w := newWorld(t)
		w.Close()
		w.open(func(o *Options) { o.Park = true })
		src := &source{content: content, origin: "here", gate: 3 << 20, open: make(chan struct{})}
		r := join(t, w, d, src)
		expectRead(t, r, content[:3<<20])
		r.Close()
		w.idle()
		part, _, err := w.Join(t.Context(), d, -1, src, Part{From: 0, To: 1 << 20, Ranged: true})
		if err != nil {
			t.Fatal(err)
		}
		defer part.Close()
		all := join(t, w, d, src)
		defer all.Close()
		synctest.Wait() // a worker has its answer, and waits for the gate
		w.Fills.mu.Lock()
		f := w.flights[d]
		w.Fills.mu.Unlock()
		f.mu.Lock()
		answered, origin := len(f.origins), f.crowd.origin
		f.mu.Unlock()
		if answered != 1 || origin != "here" {
			t.Errorf("%d have answered, the crowd is about %q", answered, origin)
		}
		close(src.open)
		expectRead(t, all, content)
	})
}
