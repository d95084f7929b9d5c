package cache

import (
	"testing"
	"testing/synctest"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// draft makes a manifest one that is being written, until the returned function has written it.
func (r *reader) draft(s *shelf, desc ocispec.Descriptor) (write func()) {
	is := &small{digest: desc.Digest, body: s.items[desc.Digest.String()].content}
	if !r.memory.draft(is) {
		r.t.Fatal("refused")
	}
	return func() {
		r.write(is)
		r.memory.written(is)
	}
}

// TestATagMovesOnlyToWhatIsWritten looks at what a process that is killed would leave behind while a manifest is being written.
func TestATagMovesOnlyToWhatIsWritten(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, s *shelf, r *reader, index, image ocispec.Descriptor) {
		names := func(want ocispec.Descriptor, when string) {
			t.Helper()
			synctest.Wait()
			if rec, known := r.index.Tag(testRepo, "1"); !known || rec.Manifest.Digest != want.Digest {
				t.Errorf("%s the tag names %v, %v", when, rec.Manifest.Digest, known)
			}
		}
		write := r.draft(s, index)
		r.head("1")
		names(index, "new, before that is written,")
		write()

		s.tag("1", image)
		write = r.draft(s, image)
		<-time.After(2 * time.Hour)
		answered := make(chan Outcome, 1)
		go func() { answered <- r.head("1") }()
		names(index, "moved, before that is written,")
		if len(answered) > 0 {
			t.Error("the client was told of what a kill would take back")
		}
		write()
		names(image, "moved and written,")
		if got := <-answered; got != Miss {
			t.Errorf("%v", got)
		}
	})
}

// TestAManifestThatComesDuringCloseIsKept keeps one for who has begun before Close did.
func TestAManifestThatComesDuringCloseIsKept(t *testing.T) {
	r := newReader(t, newShelf(), Options{})
	release, err := r.hold()
	if err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	s := smallOf(1, 0)
	if kept := r.keep(s); kept != r.keeper.Has(s.digest) || !kept {
		t.Errorf("kept: %v", kept)
	}
	release()
}
