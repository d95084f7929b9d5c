package cache

import (
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestTagWithoutItsManifestIsWaitedFor has a tag that is known, because somebody asked for it by HEAD, and nothing at hand that could
// be served in place of upstream's answer.
func TestTagWithoutItsManifestIsWaitedFor(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, s *shelf, r *reader, _, _ ocispec.Descriptor) {
		r.head("1")
		<-time.After(time.Hour)
		expectAsked(t, s, "HEAD 1")
		release := s.hold("HEAD 1")
		time.AfterFunc(3*time.Second, release)
		if how := r.tag("1").Outcome; how != Miss {
			t.Errorf("%v, want a miss", how)
		}
	})
}
