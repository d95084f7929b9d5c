package cache

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// pinning is the options that pin all tags that begin with "pinned".
func pinning(wait func()) Options {
	return Options{Pinned: func(_ Repository, tag string) bool { wait(); return strings.HasPrefix(tag, "pinned") }}
}

// TestPinsOutliveATemporaryIndex: at the start there is no room for the index, or none can be opened, and later there is.
func TestPinsOutliveATemporaryIndex(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf()
		opts := pinning(func() {})
		r := newReader(t, s, opts)
		image := s.image("image", 1)
		s.tag("pinned", image)
		r.head("pinned")
		r.get(image)
		r.blob("image layer 0")
		synctest.Wait()
		r.repin()
		if !r.keeper.Pinned(digest.FromString("image layer 0")) {
			t.Fatal("not pinned")
		}
		dir := r.opts.DataDir
		r.close()

		at := filepath.Join(dir, "index")
		if err := os.Rename(at, at+"x"); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("/proc/none/index", at); err != nil { // it can't be made
			t.Fatal(err)
		}
		opts.DataDir, opts.Upstreams = dir, r.opts.Upstreams
		c, err := open(t.Context(), opts)
		if err != nil {
			t.Fatal(err)
		}
		if !c.index.Temporary() {
			t.Fatal("not temporary")
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			c.tend()
		}()
		<-time.After(2*tendEvery + tendEvery/2)
		synctest.Wait() // what is tended finds no directory half way
		if err := os.Remove(at); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(at+"x", at); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Hour)
		synctest.Wait()
		if c.index.Temporary() {
			t.Error("still temporary")
		}
		if !c.keeper.Pinned(digest.FromString("image layer 0")) {
			t.Error("not pinned any more")
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		<-ended
	})
}

// TestWhatIsPinnedMeanwhileStays: a pinned manifest comes while what is to stay is being found anew.
func TestWhatIsPinnedMeanwhileStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf()
		var hold chan struct{}
		r := newReader(t, s, Options{Pinned: func(_ Repository, tag string) bool {
			if hold != nil && tag == "z" {
				<-hold
			}
			return tag == "pinned"
		}})
		image := s.image("image", 1)
		s.tag("pinned", image)
		s.tag("z", s.image("other", 0))
		r.head("pinned")
		r.head("z")
		if r.stalePins.Swap(false); r.keeper.Has(image.Digest) {
			t.Fatal("it is here already")
		}
		hold = make(chan struct{})
		done := make(chan struct{})
		go func() { // as tend does
			defer close(done)
			r.repin()
		}()
		synctest.Wait()
		r.get(image)
		synctest.Wait()
		if !r.keeper.Pinned(digest.FromString("image layer 0")) {
			t.Fatal("not pinned")
		}
		close(hold)
		<-done
		if !r.keeper.Pinned(digest.FromString("image layer 0")) && !r.stalePins.Load() {
			t.Error("not pinned any more, and nobody will look")
		}
	})
}

// TestPinsComeBeforeEviction: the cache is opened with less room than before.
func TestPinsComeBeforeEviction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf()
		r := newReader(t, s, pinning(func() {}))
		layer := strings.Repeat("l", 60<<20)
		image := s.put("", "image", ocispec.MediaTypeImageManifest,
			`{"layers":[{"mediaType":"x/y","digest":"`+digest.FromString(layer).String()+`","size":62914560}]}`)
		s.put("", "layer", "x/y", layer)
		s.tag("pinned", image)
		r.head("pinned")
		r.get(image)
		r.blob(layer)
		synctest.Wait()
		dir := r.opts.DataDir
		r.close()

		hold := make(chan struct{})
		opts := pinning(func() { <-hold })
		opts.DataDir, opts.Upstreams, opts.MaxSize, opts.ScrubRate = dir, r.opts.Upstreams, 64<<20, -1
		c, err := Open(t.Context(), opts)
		if err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Minute)
		close(hold)
		synctest.Wait()
		if !c.keeper.Has(digest.FromString(layer)) {
			t.Error("what is pinned was evicted before that was found out")
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}
