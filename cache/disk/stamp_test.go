package disk

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// verifiedAt is what a look at the content says of its verification.
func verifiedAt(t *testing.T, s *Store, d digest.Digest) time.Time {
	t.Helper()
	c, err := s.Blob(d)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.Verified
}

func TestKeptContentIsVerifiedUntilItIsChanged(t *testing.T) {
	for name, change := range map[string]func(path string) error{
		"written to": func(path string) error { return os.WriteFile(path, []byte("tampers"), 0o640) },
		"truncated":  func(path string) error { return os.Truncate(path, 3) },
		"replaced": func(path string) error {
			return errors.Join(os.WriteFile(path+".new", []byte("replace"), 0o640), os.Rename(path+".new", path))
		},
		"touched": func(path string) error { return os.Chtimes(path, time.Time{}, time.Now()) },
		"of another size, its time restored": func(path string) error {
			info, err := os.Stat(path)
			return errors.Join(err, os.WriteFile(path, []byte("longer than it was"), 0o640), os.Chtimes(path, time.Time{}, info.ModTime()))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir, begun := t.TempDir(), time.Now().Truncate(time.Second)
			s := open(t, Options{Dir: dir})
			d := put(t, s, "content")
			s.Close()
			s = open(t, Options{Dir: dir})
			if at := verifiedAt(t, s, d); at.Before(begun) || at.After(time.Now()) {
				t.Fatalf("kept, but verified %v", at)
			}
			if err := change(filepath.Join(dir, blobPath(d))); err != nil {
				t.Fatal(err)
			}
			if at := verifiedAt(t, s, d); !at.IsZero() {
				t.Errorf("changed, but verified %v", at)
			}
		})
	}
}

func TestAStampIsOfOneDigestSizeAndSecond(t *testing.T) {
	a, b := digest.FromString("a"), digest.FromString("b")
	of := check(a, 1, 1)
	for _, other := range []int64{check(b, 1, 1), check(a, 2, 1), check(a, 1, 2)} {
		if other == of || of < 0 || of >= 1e9 {
			t.Errorf("%d and %d", of, other)
		}
	}
}

// TestAStampIsWrittenByWhoHasRead has content whose stamp does not fit, and that is found to be right.
func TestAStampIsWrittenByWhoHasRead(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	d := put(t, s, "content")
	path := filepath.Join(dir, blobPath(d))
	spoil := func(at time.Time) {
		t.Helper()
		if err := os.Chtimes(path, time.Time{}, at); err != nil {
			t.Fatal(err)
		}
	}
	spoil(time.Unix(1, 1))
	first, err := s.Blob(d)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	second, err := s.Blob(d)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	at := time.Unix(1_700_000_000, 5)
	for _, c := range []*Content{first, second} { // two at the same time are both right
		if err := s.Stamp(c, at); err != nil || !c.Verified.Equal(at.Truncate(time.Second)) {
			t.Errorf("%v, %v", c.Verified, err)
		}
	}
	if got := verifiedAt(t, s, d); !got.Equal(at.Truncate(time.Second)) {
		t.Errorf("verified %v", got)
	}
	spoil(time.Unix(2, 2))
	if err := s.Stamp(first, at); err == nil {
		t.Error("what was changed while it was read is said to be verified")
	}
	if got := verifiedAt(t, s, d); !got.IsZero() {
		t.Errorf("verified %v", got)
	}
}

// TestUseIsWhatWasNoted: reading does not count, and a note leaves the stamp alone.
func TestUseIsWhatWasNoted(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	d := put(t, s, "content")
	stamped := verifiedAt(t, s, d)
	used := time.Unix(1_600_000_000, 0)
	if err := s.Note(d, used); err != nil {
		t.Fatal(err)
	}
	if got := read(t, s, d); got != "content" {
		t.Errorf("got %q", got)
	}
	s.Close()
	s = open(t, Options{Dir: dir})
	found, err := scan(t, s)
	if err != nil || len(found) != 1 || !found[0].Used.Equal(used) || !found[0].Verified.Equal(stamped) {
		t.Errorf("found %v, %v", found, err)
	}
	if err := s.Note(digest.FromString("none"), used); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("noted the use of nothing: %v", err)
	}
}

// TestWithoutNanosecondsTheSecondsCount is a store on a file system that keeps none.
func TestWithoutNanosecondsTheSecondsCount(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	if s.coarse {
		t.Fatal("the file system for temporary files keeps no nanoseconds")
	}
	s.coarse = true
	d := put(t, s, "content")
	if err := os.Chtimes(filepath.Join(dir, blobPath(d)), time.Time{}, time.Unix(1_500_000_000, 0)); err != nil {
		t.Fatal(err)
	}
	if got := verifiedAt(t, s, d); !got.Equal(time.Unix(1_500_000_000, 0)) {
		t.Errorf("verified %v", got)
	}
}

// TestAWalkListsWhatIsThere walks while the census has not begun, and again after content has gone.
func TestAWalkListsWhatIsThere(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	kept := make(map[digest.Digest]bool)
	for _, c := range neighbours(10) {
		kept[put(t, s, c)] = true
	}
	s.Close()
	s = open(t, Options{Dir: dir})
	for range 2 {
		found := 0
		err := s.Walk(t.Context(), func(entries []Entry) error {
			for _, e := range entries {
				if !kept[e.Digest] || e.Verified.IsZero() {
					t.Errorf("found %v", e)
				}
				found++
			}
			return nil
		})
		if err != nil || found != len(kept) {
			t.Errorf("found %d of %d, %v", found, len(kept), err)
		}
		for d := range kept {
			size, ok := s.Meet(d)
			if !ok || s.Remove(d, size) != nil {
				t.Fatal("not removed")
			}
			delete(kept, d)
			break
		}
	}
	if err := s.Walk(t.Context(), func([]Entry) error { return io.EOF }); !errors.Is(err, io.EOF) {
		t.Errorf("the walk went on: %v", err)
	}
}
