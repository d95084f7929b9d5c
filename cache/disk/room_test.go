package disk

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// TestParkedContentThatWasChanged changes it after its state was written.
func TestParkedContentThatWasChanged(t *testing.T) {
	for name, tt := range map[string]struct {
		parked     bool // or saved only, by a process that was killed
		change     func(name string) error
		ok, intact bool
	}{
		"parked, untouched":  {true, func(string) error { return nil }, true, true},
		"parked, written to": {true, func(name string) error { return os.WriteFile(name, []byte("tampers"), 0o640) }, false, false},
		"parked, longer":     {true, func(name string) error { return os.Truncate(name, 8) }, false, false},
		"saved, untouched":   {false, func(string) error { return nil }, true, true},
		"saved, written to": {false, func(name string) error {
			return os.Chtimes(name, time.Time{}, time.Now().Add(time.Second)) // the clock of a file system may be coarse
		}, true, false},
		"saved, shorter": {false, func(name string) error { return os.Truncate(name, 6) }, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, Options{Dir: dir})
			d := digest.FromString("content")
			p, err := s.Create(d, 7, 7)
			if err == nil {
				if err = p.Save([]byte("state")); tt.parked && err == nil {
					err = p.Park([]byte("state"))
				}
			}
			if err != nil {
				t.Fatal(err)
			}
			p.Close()
			if !tt.parked {
				kill(t, s)
				s = open(t, Options{Dir: dir})
			}
			if err := tt.change(filepath.Join(dir, partialPath(d))); err != nil {
				t.Fatal(err)
			}
			p, _, intact, ok := s.Parked(d)
			if ok != tt.ok || intact != tt.intact {
				t.Errorf("parked: %v, intact: %v", ok, intact)
			}
			if ok {
				p.Discard()
				p.Close()
			}
			if left, _ := os.ReadDir(filepath.Join(dir, "partial")); len(left) > 0 || s.Used() != 0 {
				t.Errorf("leftovers: %v, %d bytes used", left, s.Used())
			}
		})
	}
}

func TestFits(t *testing.T) {
	s := open(t, Options{Dir: t.TempDir(), MaxSize: limit(10)})
	defer s.Close()
	if err := s.Put(digest.FromString("x"), []byte("x")); err != nil {
		t.Fatal(err)
	}
	for size, want := range map[int64]bool{0: true, 10 * block: true, 10*block + 1: false, -1: false, 1 << 60: false} {
		if got := s.Fits(size); got != want {
			t.Errorf("%d fits: %v", size, got)
		}
	}
	p, err := s.Create(digest.FromString("y"), 5*block, 5*block)
	if err != nil {
		t.Fatal(err)
	}
	if rest := 5*block - int64(beside); s.Fits(rest+1) || !s.Fits(rest) {
		t.Error("what lands is taken for room that could be had")
	}
	p.Discard()
	p.Close()
}
