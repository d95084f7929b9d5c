package cache

import (
	"context"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// hesitant is a shelf that takes its time to say what it shows.
type hesitant struct{ *shelf }

func (hesitant) Shows(ctx context.Context, _, _, _ string) (int64, error) {
	select {
	case <-time.After(9 * time.Second):
		return -1, nil
	case <-ctx.Done():
		return -1, ctx.Err()
	}
}

// TestAnswerThatNeedsAdmissionStartsInTime has upstream say late what it shows, and then nothing: as the proxy asks.
func TestAnswerThatNeedsAdmissionStartsInTime(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, s *shelf, r *reader, _, _ ocispec.Descriptor) {
		r.remotes["docker.io"].Upstream = hesitant{s}
		defer s.hold("GET 1")()
		start := time.Now()
		if err := r.Admit(t.Context(), testRepo, "manifests/1", ""); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Manifest(WaitingSince(t.Context(), start), testRepo, Reference{Tag: "1"}, Accept{}, false); err == nil {
			t.Fatal("no error")
		}
		if took := time.Since(start); took > startWithin {
			t.Errorf("refused after %v", took)
		}
	})
}
