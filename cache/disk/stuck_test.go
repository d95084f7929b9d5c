package disk

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
)

// TestWhatCouldNotBeRemovedIsCountedOnce: a partial file can't be removed for a moment, and later another of the same digest is
// made in its place.
func TestWhatCouldNotBeRemovedIsCountedOnce(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir, MaxSize: limit(64)})
	d := digest.FromString("content")
	size := int64(len("content"))
	fail := func() (back func()) {
		partial := filepath.Join(dir, "partial")
		if err := os.Rename(partial, partial+"x"); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(partial, nil, 0o640); err != nil {
			t.Fatal(err)
		}
		return func() {
			if err := os.Remove(partial); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(partial+"x", partial); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 3 {
		p, err := s.Create(d, size, size)
		if err != nil {
			t.Fatal(err)
		}
		back := fail()
		p.Discard()
		p.Close()
		back()
	}
	p, err := s.Create(d, size, size)
	if err != nil {
		t.Fatal(err)
	}
	p.Discard()
	p.Close()
	names, err := os.ReadDir(filepath.Join(dir, "partial"))
	if err != nil || len(names) > 0 {
		t.Fatal(names, err)
	}
	if s.Used() != 0 {
		t.Errorf("%d bytes are counted where there is no file", s.Used())
	}
}
