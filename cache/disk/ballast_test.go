package disk

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// pour fills or empties the file system that the store believes to be on.
func pour(s *Store, left func() int64) {
	s.space.free = func() (int64, error) { return left(), nil }
}

func TestTheBallastIsGivenUpInNeed(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir, MaxSize: 64 << 20})
	path := filepath.Join(dir, "ballast")
	ballastIs := func(there bool) {
		t.Helper()
		info, err := os.Stat(path)
		if there != (err == nil) || there && info.Size() != 2<<20 || there != (s.space.of(ballast) == 2<<20) {
			t.Errorf("%v, %v; counted: %d", info, err, s.space.of(ballast))
		}
	}
	ballastIs(false)
	s.Restock()
	ballastIs(true)
	s.Close()
	s = open(t, Options{Dir: dir, MaxSize: 64 << 20})
	ballastIs(true)
	others := int64(0) // beside what the ballast leaves of what is needed
	pour(s, func() int64 { return s.needs - 1<<20 + others - s.space.of(ballast) })
	if s.Roomy() {
		t.Error("roomy, without any room")
	}
	ballastIs(false)
	if s.Restock(); s.Roomy() {
		t.Error("roomy, without any room")
	}
	ballastIs(false)
	others = 1<<20 + 1
	if !s.Roomy() {
		t.Error("there is room")
	}
	pour(s, func() int64 { return s.space.minFree + 2<<20 - 1 })
	s.Restock()
	ballastIs(false) // it would be made of what is to be left free
	pour(s, func() int64 { return s.space.minFree + 2<<20 })
	s.Restock()
	ballastIs(true)
	pour(s, func() int64 { return s.needs + 1<<20 - s.space.of(ballast) })
	if !s.Roomy() {
		t.Error("the ballast was not enough")
	}
	ballastIs(false)
}

func TestABallastOfAnotherSizeGoes(t *testing.T) {
	dir := t.TempDir()
	for _, arrange := range []func(path string) error{
		func(path string) error { return os.WriteFile(path, nil, 0o640) },
		func(path string) error { return os.Mkdir(path, 0o750) },
		func(path string) error { // as long as it should be, without blocks
			f, err := os.Create(path)
			if err == nil {
				err = f.Truncate(2 << 20)
				f.Close()
			}
			return err
		},
	} {
		if err := arrange(filepath.Join(dir, "ballast")); err != nil {
			t.Fatal(err)
		}
		s := open(t, Options{Dir: dir, MaxSize: 64 << 20})
		if _, err := os.Lstat(filepath.Join(dir, "ballast")); err == nil || s.space.of(ballast) != 0 {
			t.Errorf("it is still there, and counts for %d", s.space.of(ballast))
		}
		s.Close()
	}
}

// TestPruningMakesRoomByWhatWasUsedLeastRecently has a file system with room for the index once two of four are gone, and what
// is parked, which goes first.
func TestPruningMakesRoomByWhatWasUsedLeastRecently(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	for i, content := range []string{"3", "1", "4", "2"} {
		d := put(t, s, content)
		if err := s.Note(d, time.Unix(int64(content[0]), int64(i))); err != nil {
			t.Fatal(err)
		}
	}
	p, err := s.Create(digest.FromString("parked"), 10, 10)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Park(nil); err != nil {
		t.Fatal(err)
	}
	p.Close()
	s.Close()
	s = open(t, Options{Dir: dir})
	gone := func(content string) bool { return !s.Has(digest.FromString(content)) }
	pour(s, func() int64 {
		free := s.needs - 2
		for _, content := range []string{"1", "2", "3", "4"} {
			if gone(content) {
				free++
			}
		}
		if s.space.of(parked) == 0 {
			free++
		}
		return free
	})
	s.Prune(t.Context(), func(digest.Digest) {})
	if s.space.of(parked) != 0 || !gone("1") || !gone("2") || gone("3") || gone("4") {
		t.Errorf("gone: %v %v %v %v", gone("1"), gone("2"), gone("3"), gone("4"))
	}
	if found, err := scan(t, s); err != nil || len(found) != 2 || s.Used() != 2*block {
		t.Errorf("found %v, %v; %d bytes used", found, err, s.Used())
	}
	pour(s, func() int64 { return 0 })
	s.Prune(t.Context(), func(digest.Digest) {}) // what is counted is not its own any more
	if gone("3") || gone("4") {
		t.Error("counted content was removed behind who was told of it")
	}
}
