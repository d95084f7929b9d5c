package disk

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

func TestParkedContentThatWasWrittenToIsNotIntact(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	defer s.Close()
	d := digest.FromString("content")
	p, err := s.Create(d, 7)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Park([]byte("state")); err != nil {
		t.Fatal(err)
	}
	p.Close()
	name := filepath.Join(dir, partialPath(d))
	if err := os.WriteFile(name, []byte("tampers"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(name, time.Time{}, time.Now().Add(time.Second)); err != nil { // the clock of a file system may be coarse
		t.Fatal(err)
	}
	p, _, intact, ok := s.Parked(d)
	if !ok || intact {
		t.Errorf("parked: %v, intact: %v", ok, intact)
	}
	p.Discard()
	p.Close()
}

func TestFits(t *testing.T) {
	s := open(t, Options{Dir: t.TempDir(), MaxSize: 10 * block})
	defer s.Close()
	if err := s.Put(digest.FromString("x"), []byte("x")); err != nil {
		t.Fatal(err)
	}
	for size, want := range map[int64]bool{0: true, 10 * block: true, 10*block + 1: false, -1: false, 1 << 60: false} {
		if got := s.Fits(size); got != want {
			t.Errorf("%d fits: %v", size, got)
		}
	}
	p, err := s.Create(digest.FromString("y"), 5*block)
	if err != nil {
		t.Fatal(err)
	}
	if s.Fits(6*block) || !s.Fits(5*block) {
		t.Error("what lands is taken for room that could be had")
	}
	p.Discard()
	p.Close()
}
