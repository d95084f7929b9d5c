package fill

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// resting is a source that does not want to be asked for a while.
type resting struct {
	*source
	until time.Time
}

func (s *resting) Open(ctx context.Context, r Request) (Stream, error) {
	if len(s.asked()) > 0 && time.Now().Before(s.until) {
		return Stream{}, errThrottled
	}
	return s.source.Open(ctx, r)
}

func TestSourceIsLeftAloneForAsLongAsItWants(t *testing.T) {
	for _, pause := range []time.Duration{20 * time.Second, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.open(func(o *Options) { o.Pause = func(error) time.Duration { return pause } })
			content, d := random(1 << 20)
			start := time.Now()
			src := &resting{&source{content: content, cuts: []int64{500_000}}, start.Add(100 * time.Second)}
			r := join(t, w, d, src)
			defer r.Close()
			expectRead(t, r, content)
			if took := time.Since(start); took < 100*time.Second || took > 130*time.Second {
				t.Errorf("it was there after %s", took)
			}
		})
	}
}
