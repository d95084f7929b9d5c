//go:build rooted

// These tests need root, for they mount file systems. `make e2e` runs them, in a mount namespace of their own.

package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// mount mounts a small file system in memory.
func mount(t *testing.T, options string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := unix.Mount("entrepot", dir, "tmpfs", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// flood fills the file system to its last byte, as others do; ebb gives the space back.
func flood(t *testing.T, dir string) (ebb func()) {
	t.Helper()
	path := filepath.Join(dir, "of others")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for b := bytes.Repeat([]byte("x"), 1<<20); len(b) > 0; {
		if _, err := f.Write(b); errors.Is(err, syscall.ENOSPC) {
			b = b[:len(b)/2]
		} else if err != nil {
			t.Fatal(err)
		}
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	}
}

// empty checks that nothing has leaked into the accounts, but for what is kept.
func empty(t *testing.T, s *Store, kept int64) {
	t.Helper()
	if s.Used() != kept || s.space.of(sundry) != fixed+s.dirs(t) || s.space.unwritten != 0 || len(s.uses.of) != 0 {
		t.Errorf("used %d; accounts %v, %d to be written, in use %v", s.Used(), s.space.sums, s.space.unwritten, s.uses.of)
	}
}

// writes reports whether content can be kept.
func writes(s *Store, content string) error {
	d := digest.FromString(content)
	if err := s.Put(d, []byte(content)); err != nil {
		return err
	}
	return errors.Join(s.Probe(), s.Evict(d, int64(len(content))))
}

func TestRootedFullWhileItIsOpen(t *testing.T) {
	dir := mount(t, "size=8m")
	s := open(t, Options{Dir: dir})
	put(t, s, "kept")
	if err := writes(s, "first"); err != nil {
		t.Fatal(err)
	}
	p, err := s.Create(digest.FromString("landing"), 4<<20, 4<<20)
	if err != nil {
		t.Fatal(err)
	}
	ebb := flood(t, dir)
	if _, err := p.WriteAt(make([]byte, 4<<20), 0); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("wrote to a full disk: %v", err)
	}
	if err := p.Park([]byte("state")); err == nil {
		t.Error("parked on a full disk")
	}
	p.Close()
	if _, err := s.Create(digest.FromString("more"), 1, 1); err == nil {
		t.Error("created on a full disk")
	}
	if writes(s, "second") == nil || s.Probe() == nil {
		t.Error("kept on a full disk")
	}
	if got := read(t, s, digest.FromString("kept")); got != "kept" {
		t.Errorf("got %q", got)
	}
	empty(t, s, block)
	ebb()
	if err := writes(s, "third"); err != nil {
		t.Errorf("there is space again: %v", err)
	}
	empty(t, s, block)
}

// TestRootedFullAtTheStart, with and without what an earlier process has kept.
func TestRootedFullAtTheStart(t *testing.T) {
	for _, kept := range []int64{0, 1} {
		t.Run(fmt.Sprint(kept), func(t *testing.T) {
			opts := Options{Dir: mount(t, "size=8m"), MaxSize: 4 << 20}
			if kept > 0 {
				s := open(t, opts)
				put(t, s, "kept")
				s.Close()
			}
			ebb := flood(t, opts.Dir)
			s := open(t, opts)
			if kept > 0 && read(t, s, digest.FromString("kept")) != "kept" {
				t.Error("what is kept is not served")
			}
			if err := s.Scan(t.Context(), func([]Entry) {}); err != nil {
				t.Error(err)
			}
			if writes(s, "first") == nil || s.Roomy() {
				t.Error("there is room")
			}
			empty(t, s, kept*block)
			ebb()
			if err := writes(s, "second"); err != nil || !s.Roomy() {
				t.Errorf("there is space again: %v", err)
			}
			empty(t, s, kept*block)
		})
	}
}

// TestRootedPruning has a file system that others have filled around what is kept: the index gets what it needs.
func TestRootedPruning(t *testing.T) {
	dir := mount(t, "size=32m")
	s := open(t, Options{Dir: dir})
	for i := range 24 {
		put(t, s, string(bytes.Repeat([]byte{byte('a' + i)}, 1<<20)))
	}
	s.Close()
	flood(t, dir)
	s = open(t, Options{Dir: dir})
	if s.Roomy() {
		t.Fatal("there is room")
	}
	s.Prune(t.Context(), func(digest.Digest) {})
	free, err := s.space.free()
	if !s.Roomy() || err != nil || free > s.needs+1<<20 {
		t.Errorf("%d bytes are free, %d are needed, %v", free, s.needs, err)
	}
	found, err := scan(t, s)
	if err != nil || s.Used() != int64(len(found))*blocks(1<<20) || len(found) < 20 {
		t.Errorf("found %d, %d bytes used, %v", len(found), s.Used(), err)
	}
}

func TestRootedBallast(t *testing.T) {
	dir := mount(t, "size=64m")
	s := open(t, Options{Dir: dir})
	s.Restock()
	if is := s.space.of(ballast); is != 4<<20 {
		t.Fatalf("a ballast of %d bytes", is)
	}
	ebb := flood(t, dir)
	if !s.Roomy() {
		t.Error("the ballast is not enough")
	}
	if s.Restock(); !s.Roomy() || s.space.of(ballast) != 0 {
		t.Error("the ballast was made of what it had made room for")
	}
	ebb()
	if s.Restock(); s.space.of(ballast) != 4<<20 {
		t.Error("no ballast although there is space again")
	}
}

func TestRootedNoInodesLeft(t *testing.T) {
	dir := mount(t, "size=8m,nr_inodes=40")
	s := open(t, Options{Dir: dir})
	put(t, s, "kept")
	var names []string
	for {
		name := filepath.Join(dir, fmt.Sprint("of others", len(names)))
		if err := os.Mkdir(name, 0o750); errors.Is(err, syscall.ENOSPC) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	again := func() {
		t.Helper()
		if err := writes(s, "first"); !errors.Is(err, ErrTooLarge) || !errors.Is(s.Probe(), syscall.ENOSPC) || !s.Crowded() {
			t.Errorf("kept without an inode: %v", err)
		}
		if got := read(t, s, digest.FromString("kept")); got != "kept" {
			t.Errorf("got %q", got)
		}
		empty(t, s, block)
	}
	again()
	s.Close()
	s = open(t, Options{Dir: dir})
	if _, err := scan(t, s); err != nil {
		t.Error(err)
	}
	again()
	for _, name := range names {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	if err := writes(s, "second"); err != nil {
		t.Errorf("there are inodes again: %v", err)
	}
}

func TestRootedReadOnly(t *testing.T) {
	dir := mount(t, "size=8m")
	remount := func(flags uintptr) {
		t.Helper()
		if err := unix.Mount("entrepot", dir, "tmpfs", unix.MS_REMOUNT|flags, "size=8m"); err != nil {
			t.Fatal(err)
		}
	}
	s := open(t, Options{Dir: dir})
	d := put(t, s, "kept")
	p, err := s.Create(digest.FromString("parked"), 7, 7)
	if err == nil {
		err = p.Park(nil)
	}
	if err != nil || s.ReadOnly() {
		t.Fatalf("read-only: %v, %v", s.ReadOnly(), err)
	}
	p.Close()
	s.Close()
	for _, lock := range []bool{true, false} { // whether an earlier process has left its lock
		if !lock {
			if err := os.Remove(filepath.Join(dir, "lock")); err != nil {
				t.Fatal(err)
			}
		}
		remount(unix.MS_RDONLY)
		s = open(t, Options{Dir: dir, MaxSize: 4 << 20})
		ctx, cancel := context.WithTimeout(t.Context(), 120*time.Millisecond)
		if other, err := Open(ctx, Options{Dir: dir}); !errors.Is(err, ErrLocked) {
			other.Close()
			t.Errorf("opened twice: %v", err)
		}
		cancel()
		if found, err := scan(t, s); err != nil || len(found) != 1 || !s.ReadOnly() {
			t.Errorf("found %v, %v; read-only: %v", found, err, s.ReadOnly())
		}
		if got := read(t, s, d); got != "kept" {
			t.Errorf("got %q", got)
		}
		for what, err := range map[string]error{
			"put": s.Put(digest.FromString("x"), []byte("x")), "removed": s.Remove(d, 4), "evicted": s.Evict(d, 4),
			"noted": s.Note(d, time.Now()), "probed": s.Probe(),
		} {
			if !errors.Is(err, syscall.EROFS) {
				t.Errorf("%s: %v", what, err)
			}
		}
		s.Restock()
		s.Roomy()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		remount(0)
	}
	s = open(t, Options{Dir: dir})
	if err := writes(s, "first"); err != nil {
		t.Error(err)
	}
	if p, _, _, ok := s.Parked(digest.FromString("parked")); !ok {
		t.Error("what was parked is gone")
	} else {
		p.Close()
	}
}

// TestRootedForeignFiles reads what belongs to somebody else, who alone may ask that its time of use is left alone.
func TestRootedForeignFiles(t *testing.T) {
	s := open(t, Options{})
	d := put(t, s, "content")
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with this
		if err := errors.Join(unix.Fchmod(int(s.dir.Fd()), 0o755), s.root.Chmod("blobs", 0o755), s.root.Chmod("blobs/sha256", 0o755),
			s.root.Chmod(blobDir(d), 0o755), s.root.Chmod(blobPath(d), 0o644), unix.Setfsuid(65534)); err != nil {
			t.Error(err)
			return
		}
		c, err := s.Blob(d)
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		if c.mended || c.Verified.IsZero() || s.Stamp(c, time.Now()) == nil {
			t.Errorf("mended: %v, verified %v, or stamped by who may not", c.mended, c.Verified)
		}
	}()
	<-done
}
