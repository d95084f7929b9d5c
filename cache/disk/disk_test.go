package disk

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

func open(t *testing.T, opts Options) *Store {
	t.Helper()
	if opts.Dir == "" {
		opts.Dir = t.TempDir()
	}
	s, err := Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// limit is the smallest configured size below which n blocks of content have room in one directory, one content landing at a time.
func limit(n int64) int64 { return fixed + block + beside + n*block }

func put(t *testing.T, s *Store, content string) digest.Digest {
	t.Helper()
	d := digest.FromString(content)
	if err := s.Put(d, []byte(content)); err != nil {
		t.Fatal(err)
	}
	return d
}

// scan is all that Scan finds.
func scan(t *testing.T, s *Store) (found []Entry, err error) {
	t.Helper()
	err = s.Scan(t.Context(), func(some []Entry) { found = append(found, some...) })
	return found, err
}

func read(t *testing.T, s *Store, d digest.Digest) string {
	t.Helper()
	f, err := s.Blob(d)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil || int64(len(b)) != f.Size {
		t.Fatalf("%d bytes of %d, %v", len(b), f.Size, err)
	}
	return string(b)
}

func TestNameExistsOnlyAfterCommit(t *testing.T) {
	s := open(t, Options{})
	d := digest.FromString("content")
	p, err := s.Create(d, 7, 7)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, err := p.WriteAt([]byte("tent"), 3); err != nil {
		t.Fatal(err)
	}
	if _, err := p.WriteAt([]byte("con"), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Blob(d); !errors.Is(err, fs.ErrNotExist) || s.Has(d) {
		t.Fatalf("visible before commit: %v", err)
	}
	if err := p.Commit(); err != nil {
		t.Fatal(err)
	}
	if got := read(t, s, d); got != "content" {
		t.Errorf("got %q", got)
	}
	b := make([]byte, 7)
	if _, err := p.ReadAt(b, 0); err != nil || string(b) != "content" {
		t.Errorf("reading on after commit: %q, %v", b, err)
	}
}

func TestContentSurvivesReopening(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	d := put(t, s, "kept")
	p, err := s.Create(digest.FromString("unfinished"), 10, 10)
	if err != nil {
		t.Fatal(err)
	}
	p.Close()
	s.Close()

	s = open(t, Options{Dir: dir})
	found, err := scan(t, s)
	if err != nil || len(found) != 1 || found[0].Digest != d || found[0].Size != 4 {
		t.Fatalf("found %v, %v", found, err)
	}
	if got := read(t, s, d); got != "kept" {
		t.Errorf("got %q", got)
	}
	if s.Used() != block {
		t.Errorf("used %d", s.Used())
	}
	if left, _ := os.ReadDir(filepath.Join(dir, "partial")); len(left) > 0 {
		t.Errorf("leftovers: %v", left)
	}
}

func TestForeignFilesAreLeftAlone(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	for _, name := range []string{"blobs/README", "blobs/sha256/ab/short", "blobs/md5/ab/abcd"} {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if found, err := scan(t, s); err != nil || len(found) > 0 {
		t.Errorf("found %v, %v", found, err)
	}
}

func TestTheCapIsHard(t *testing.T) {
	s := open(t, Options{MaxSize: limit(4) + beside}) // two land at once
	d := put(t, s, "one block")
	p, err := s.Create(digest.FromString("x"), 3*block, 3*block)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, err := s.Create(digest.FromString("y"), 1, 1); !errors.Is(err, ErrFull) {
		t.Errorf("above the cap: %v", err)
	}
	if _, err := s.Create(digest.FromString("z"), 4*block+1, 4*block+1); !errors.Is(err, ErrTooLarge) {
		t.Errorf("larger than the cap: %v", err)
	}
	if err := s.Remove(d, 7); err != nil {
		t.Fatal(err)
	}
	q, err := s.Create(digest.FromString("y"), 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	p.Discard()
	q.Discard()
	p.Close()
	q.Close()
	if s.Used() != 0 {
		t.Errorf("used %d after all is gone", s.Used())
	}
}

func TestFreeSpaceIsLeft(t *testing.T) {
	s := open(t, Options{MinFree: 1 << 60})
	if _, err := s.Create(digest.FromString("x"), 1, 1); !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v, want that removing everything would not help", err)
	}
}

func TestNonsensicalSizesAreRefused(t *testing.T) {
	s := open(t, Options{MaxSize: 1 << 20})
	for _, size := range []int64{-1, 1<<63 - 1, 1<<63 - 4096, 1 << 62} {
		if p, err := s.Create(digest.FromString("x"), size, size); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%d: %v, %v", size, p, err)
		}
	}
	if s.Used() != 0 {
		t.Errorf("used %d", s.Used())
	}
}

func TestWhatIsNoDigestNamesNoFile(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, d := range []digest.Digest{"", "a:b", "md9:abc", "sha256:..//../lock", "sha256:../../lock"} {
		if f, err := s.Blob(d); err == nil {
			f.Close()
			t.Errorf("%q opens a file", d)
		}
		if s.Has(d) || s.Remove(d, 1) == nil || s.Put(d, nil) == nil {
			t.Errorf("%q is taken", d)
		}
		if _, err := s.Create(d, 1, 1); err == nil {
			t.Errorf("%q is created", d)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "lock")); err != nil {
		t.Error(err)
	}
}

func TestSameContentPutManyTimesIsCountedOnce(t *testing.T) {
	s := open(t, Options{})
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() { put(t, s, "same") })
	}
	wg.Wait()
	if s.Used() != block {
		t.Errorf("used %d", s.Used())
	}
}

func TestRemovedContentIsReadOn(t *testing.T) {
	s := open(t, Options{})
	d := put(t, s, "content")
	f, err := s.Blob(d)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := s.Remove(d, 7); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(f); err != nil || string(b) != "content" {
		t.Errorf("%q, %v", b, err)
	}
	if s.Has(d) || s.Used() != block {
		t.Errorf("still there, or its blocks are not counted: %d bytes used", s.Used())
	}
	if err := f.Close(); err != nil || f.Close() == nil || s.Used() != 0 {
		t.Errorf("%v: %d bytes used after it was closed", err, s.Used())
	}
}

func TestNewPartialLeavesOldReadersAlone(t *testing.T) {
	s := open(t, Options{})
	d := digest.FromString("content")
	old, err := s.Create(d, 7, 7)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if _, err := old.WriteAt([]byte("content"), 0); err != nil {
		t.Fatal(err)
	}
	old.Discard()
	fresh, err := s.Create(d, 7, 7)
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.Close()
	b := make([]byte, 7)
	if _, err := old.ReadAt(b, 0); err != nil || !bytes.Equal(b, []byte("content")) {
		t.Errorf("%q, %v", b, err)
	}
}

func TestDirectoryIsForOneProcess(t *testing.T) {
	dir := t.TempDir()
	open(t, Options{Dir: dir})
	ctx, cancel := context.WithTimeout(t.Context(), 120*time.Millisecond)
	defer cancel()
	if s, err := Open(ctx, Options{Dir: dir}); err == nil {
		s.Close()
		t.Error("opened twice")
	}
}

func TestUnwritableDirectoryIsAnError(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if s, err := Open(t.Context(), Options{Dir: filepath.Join(file, "data")}); err == nil {
		s.Close()
		t.Error("opened below a file")
	}
}
