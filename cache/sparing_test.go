package cache

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/upstream"
)

// TestClientIsNotRefusedWhatReadingAheadIs has a client join a request that can be done without, and fails at a rate limit.
func TestClientIsNotRefusedWhatReadingAheadIs(t *testing.T) {
	bubble(t, Options{ReadAhead: ReadConfig}, func(t *testing.T, s *shelf, r *reader, index, image ocispec.Descriptor) {
		open, first := make(chan struct{}), new(atomic.Bool)
		s.fail(func(_ context.Context, asked string) error {
			if asked == "GET "+here && !first.Swap(true) {
				<-open
				return &upstream.Error{Status: 429}
			}
			return nil
		})
		r.get(index)
		expectAsked(t, s, "GET "+here, "GET index")
		got := make(chan Outcome)
		go func() { got <- r.get(image) }()
		synctest.Wait()
		close(open)
		if outcome := <-got; outcome != Miss {
			t.Errorf("%v", outcome)
		}
		expectAsked(t, s, "GET "+here)
	})
}

func TestRateLimitIsNoOutage(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, s *shelf, r *reader, index, image ocispec.Descriptor) {
		r.get(image)
		r.head("1")
		s.asked()
		<-time.After(2 * time.Hour) // the tag has expired, and nothing of the image but its manifest is here
		s.refuse("", 429)
		for range 2 {
			if got := r.get(image); got != Hit {
				t.Errorf("%v", got)
			}
		}
		if asked := s.asked(); !strings.HasPrefix(asked, "HEAD") {
			t.Errorf("asked %s", asked)
		}
		if r.remotes["docker.io"].Down() {
			t.Error("it is taken to be down")
		}
		s.fail(nil)
		r.blob(here + " layer 0")
	})
}
