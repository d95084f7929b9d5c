package keeper

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
)

// astray makes one directory of content fail, as a disk does for a moment, until back is called: nothing in it can be opened or removed.
func (s *shop) astray(d digest.Digest) (back func()) {
	s.t.Helper()
	dir := filepath.Dir(s.path(d))
	must(s.t, os.Rename(dir, dir+"x"))
	must(s.t, os.Symlink("/nowhere", dir))
	return func() {
		s.t.Helper()
		must(s.t, os.Remove(dir))
		must(s.t, os.Rename(dir+"x", dir))
	}
}

// TestADiskThatFailedForAMomentIsKnown: what could neither be read nor removed for a moment can be evicted, and counted, after it.
func TestADiskThatFailedForAMomentIsKnown(t *testing.T) {
	s := openShop(t, Options{})
	d := s.put("content", 100_000)
	back := s.astray(d)
	s.read(d)
	back()
	if _, ok := s.read(d); !ok {
		t.Error("not served after the disk is well again")
	}
	if n := s.Stats().Content; n != 1 {
		t.Errorf("%d are known, of one that is kept and served: it is never evicted", n)
	}
	empty(t, s)
}

// TestDamageThatCouldNotBeRemovedHealsLater: the disk refuses to remove what is damaged, once.
func TestDamageThatCouldNotBeRemovedHealsLater(t *testing.T) {
	s := openShop(t, Options{})
	d := s.put("content", 100_000)
	back := s.astray(d)
	s.read(d)
	back()
	s.flip(d, false)
	if _, ok := s.read(d); ok {
		t.Fatal("served")
	}
	s.put("content", 100_000) // as a pull would
	if _, ok := s.read(d); !ok {
		t.Error("damaged content is never removed: it does not heal")
	}
}

// TestNoDescriptorIsNoDamage: a process that has all its files open for a moment loses no content.
func TestNoDescriptorIsNoDamage(t *testing.T) {
	s := openShop(t, Options{})
	d := s.put("content", 100_000)
	var was syscall.Rlimit
	must(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &was))
	f, err := os.Open(os.DevNull)
	must(t, err)
	lowest := uint64(f.Fd())
	f.Close()
	must(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: lowest, Max: was.Max}))
	_, ok := s.Blob(t.Context(), d)
	must(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &was))
	if ok {
		t.Fatal("the limit is none")
	}
	if st := s.Stats(); st.Damaged != 0 || st.Content != 1 || st.Trouble != "" || !s.Has(d) {
		t.Errorf("%+v; there %v", st, s.Has(d))
	}
}

// TestAFullDiskIsEvicted, and one that can't be written is not: the order would be lost for nothing.
func TestAFullDiskIsEvicted(t *testing.T) {
	s := openShop(t, Options{})
	s.put("first", 100_000)
	s.put("second", 100_000)
	s.Trouble(&os.PathError{Op: "write", Path: "content", Err: syscall.EROFS})
	if _, ok := s.evict(); ok {
		t.Error("evicted although the disk is read-only")
	}
	s.examine()
	s.Trouble(&os.PathError{Op: "write", Path: "content", Err: syscall.ENOSPC})
	if _, ok := s.evict(); !ok {
		t.Error("not evicted although the disk is full")
	}
}
