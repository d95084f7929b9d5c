package cache

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
)

// evictAll has so much pulled past a full cache that all goes which may.
func (r *reader) evictAll() {
	r.t.Helper()
	for r.keeper.Evict() {
	}
}

func (r *reader) keeps(t *testing.T, name string, want bool) {
	t.Helper()
	if got := r.keeper.Has(digest.FromString(name)); got != want {
		t.Errorf("%s: kept %v, want %v", name, got, want)
	}
}

// TestPromisePinnedImagesStay follows a pinned tag from its first pull to where it moves, over a restart. What it names stays, of the
// platforms that were pulled; what other tags name goes; and what the tag no longer names may go.
func TestPromisePinnedImagesStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf()
		old, other := s.image(here, 2), s.image("other", 1)
		s.tag("pinned", s.index("index", old, s.image("linux/elsewhere", 1)))
		s.tag("loose", other)
		opts := Options{DataDir: t.TempDir(), Pinned: func(repo Repository, tag string) bool { return repo == testRepo && tag == "pinned" }}
		r := newReader(t, s, opts)
		pull := func(tag, image string) {
			t.Helper()
			m, err := r.Manifest(t.Context(), testRepo, Reference{Tag: tag}, Accept{}, false)
			if err != nil {
				t.Fatal(err)
			}
			for _, child := range m.names.images {
				if s.items[child.Digest.String()].name == image {
					r.get(child)
				}
			}
			r.blob(image + " config")
			r.blob(image + " layer 0")
			synctest.Wait()
		}
		pull("pinned", here)
		pull("loose", "other")
		r.evictAll()
		r.keeps(t, here+" config", true)
		r.keeps(t, here+" layer 0", true)
		r.keeps(t, "other layer 0", false)
		if !r.here(old.Digest) {
			t.Error("the manifest of the platform that was pulled went")
		}
		r.blob(here + " layer 1") // it comes later, and stays too
		synctest.Wait()
		r.evictAll()
		r.keeps(t, here+" layer 1", true)

		r.close()
		r = newReader(t, s, opts)
		r.repin()
		r.keeper.Census(t.Context())
		r.evictAll()
		r.keeps(t, here+" layer 1", true)

		s.tag("pinned", s.image("new", 1))
		<-time.After(2 * time.Hour)
		pull("pinned", "new")
		r.evictAll()
		r.keeps(t, "new layer 0", true)
		if !r.stalePins.Load() {
			t.Fatal("what the tag named before stays for ever")
		}
		r.repin()
		r.evictAll()
		r.keeps(t, "new layer 0", true)
		r.keeps(t, here+" layer 1", false)
	})
}
