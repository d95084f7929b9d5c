package disk

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
)

func TestParkedContentIsTakenUpAgain(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	d := digest.FromString("content")
	land := func(p *Partial, err error) {
		t.Helper()
		if err == nil {
			_, err = p.WriteAt([]byte("cont"), 0)
		}
		if err == nil {
			err = p.Park([]byte("state"))
		}
		if err != nil {
			t.Fatal(err)
		}
		p.Close()
	}
	land(s.Create(d, 7, 7))
	for range 2 { // in this process, and in the next
		p, state, intact, ok := s.Parked(d)
		b := make([]byte, 4)
		if !ok || !intact || string(state) != "state" {
			t.Fatalf("%v %v %q", ok, intact, state)
		}
		if _, err := p.ReadAt(b, 0); err != nil || string(b) != "cont" {
			t.Fatalf("%q %v", b, err)
		}
		if _, _, _, twice := s.Parked(d); twice {
			t.Error("taken up twice")
		}
		land(p, nil)
		if s.Used() != block {
			t.Errorf("used %d", s.Used())
		}
		s.Close()
		s = open(t, Options{Dir: dir})
	}
	if !s.DropOldestParked() || s.DropOldestParked() || s.Used() != 0 {
		t.Errorf("used %d after all that is parked was dropped", s.Used())
	}
	if left, _ := os.ReadDir(filepath.Join(dir, "partial")); len(left) > 0 {
		t.Errorf("leftovers: %v", left)
	}
}

func TestKilledProcessLeavesWhatItSaved(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	saved, unsaved := digest.FromString("saved"), digest.FromString("unsaved")
	for _, d := range []digest.Digest{saved, unsaved} {
		p, err := s.Create(d, 100, 100)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		if d == saved {
			err = p.Save([]byte("state"))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	// What was parked before the machine was started anew may have lost some of its content.
	otherBoot := digest.FromString("other boot")
	base := filepath.Join(dir, "partial", "sha256-"+otherBoot.Encoded())
	if err := errors.Join(os.WriteFile(base, []byte("x"), 0o600), os.WriteFile(base+".state", []byte("other\nstate"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sha256-junk", "sha256-junk.state", "put-1", saved.Algorithm().String() + "-" + saved.Encoded() + ".draft"} {
		if err := os.WriteFile(filepath.Join(dir, "partial", name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.Close() // no Park, no Discard: the end of a process does neither
	s = open(t, Options{Dir: dir})
	if p, state, _, ok := s.Parked(saved); !ok || string(state) != "state" {
		t.Errorf("%v %q", ok, state)
	} else {
		p.Discard()
		p.Close()
	}
	for _, d := range []digest.Digest{unsaved, otherBoot} {
		if _, _, _, ok := s.Parked(d); ok {
			t.Error("what had no state of this boot is parked")
		}
	}
	if left, _ := os.ReadDir(filepath.Join(dir, "partial")); len(left) > 0 || s.Used() != 0 {
		t.Errorf("leftovers: %v, %d bytes used", left, s.Used())
	}
}

func TestDroppingWhatIsParkedSparesWhatIsMadeAnew(t *testing.T) {
	s := open(t, Options{})
	d := digest.FromString("content")
	for range 500 {
		p, err := s.Create(d, 7, 7)
		if err == nil {
			err = p.Park(nil)
		}
		if err != nil {
			t.Fatal(err)
		}
		p.Close()
		var wg sync.WaitGroup
		wg.Go(func() { s.DropOldestParked() })
		wg.Go(func() {
			p, _, _, ok := s.Parked(d)
			if !ok {
				p, err = s.Create(d, 7, 7)
			}
			if err == nil {
				_, err = p.WriteAt([]byte("content"), 0)
			}
			if err == nil {
				err = p.Commit()
			}
			if err != nil {
				t.Error(err)
				return
			}
			p.Close()
		})
		wg.Wait()
		if got := read(t, s, d); got != "content" {
			t.Fatalf("got %q", got)
		}
		if err := s.Remove(d, 7); err != nil {
			t.Fatal(err)
		}
	}
	if s.Used() != 0 || s.space.unwritten != 0 {
		t.Errorf("%d bytes used, %d to be written", s.Used(), s.space.unwritten)
	}
}

func TestGarbageInPartialIsRemoved(t *testing.T) {
	dir := t.TempDir()
	partial := filepath.Join(dir, "partial")
	for name, arrange := range map[string]func() error{
		"a file for the directory": func() error { return os.WriteFile(partial, nil, 0o640) },
		"a link for the directory": func() error { return os.Symlink("/", partial) },
		"all kinds of things": func() error {
			return errors.Join(os.MkdirAll(filepath.Join(partial, "a", "b"), 0o750), os.Symlink("/", filepath.Join(partial, "link")),
				os.WriteFile(filepath.Join(partial, "file"), nil, 0))
		},
	} {
		if err := errors.Join(os.RemoveAll(partial), arrange()); err != nil {
			t.Fatal(err)
		}
		s := open(t, Options{Dir: dir})
		if want := 3; name == "all kinds of things" && s.Leftovers() != want {
			t.Errorf("%s: %d leftovers", name, s.Leftovers())
		}
		d := put(t, s, "content")
		if left, err := os.ReadDir(partial); err != nil || len(left) > 0 {
			t.Errorf("%s: %v, %v", name, left, err)
		}
		if err := s.Evict(d, 7); err != nil {
			t.Error(err)
		}
		s.Close()
	}
}
