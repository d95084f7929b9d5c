package disk

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// ordinarily runs f as somebody whom permissions bind, and who owns what is below dir: for root, on a thread of its own that is
// another user's as to files.
func ordinarily(t *testing.T, dir string, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		f()
		return
	}
	const nobody = 65534
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil { // which is for its owner alone
		t.Fatal(err)
	}
	if err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, nobody, nobody))
	}); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with this
		if err := unix.Setfsuid(nobody); err != nil {
			t.Error(err)
			return
		}
		f()
	}()
	<-done
}

// forbidden takes the permissions from a path below dir.
func forbidden(t *testing.T, dir, name string, mode fs.FileMode) {
	t.Helper()
	if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
		t.Fatal(err)
	}
}

func TestPermissionsAreMended(t *testing.T) {
	d := digest.FromString("content")
	for name, mode := range map[string]fs.FileMode{
		".": 0, "lock": 0, "bound": 0, "partial": 0, "blobs": 0, "blobs/sha256": 0, blobDir(d): 0, blobPath(d): 0,
		"./": 0o500, "partial/": 0o500, "blobs/": 0o500, "blobs/sha256/": 0o500, blobDir(d) + "/": 0o500,
	} {
		t.Run(strings.ReplaceAll(name, "/", " "), func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, Options{Dir: dir})
			put(t, s, "content")
			s.Close()
			forbidden(t, dir, strings.TrimSuffix(name, "/"), mode)
			t.Cleanup(func() { _ = os.Chmod(filepath.Join(dir, name), 0o750) }) // what nobody wrote to was not mended
			ordinarily(t, dir, func() {
				s, err := Open(t.Context(), Options{Dir: dir})
				if err != nil {
					t.Error(err)
					return
				}
				defer s.Close()
				if err := s.Scan(t.Context(), func([]Entry) {}); err != nil || s.Used() != block {
					t.Errorf("counted %d, %v", s.Used(), err)
				}
				c, err := s.Blob(d)
				if err != nil {
					t.Error(err)
					return
				}
				c.Close()
				if unsure := name == blobPath(d); c.mended != unsure || c.Verified.IsZero() != unsure {
					t.Errorf("mended: %v, verified %v", c.mended, c.Verified)
				}
				if err := errors.Join(s.Evict(d, 7), s.Put(d, []byte("content"))); err != nil {
					t.Error(err)
				}
				if err := s.Put(digest.FromString("x"), []byte("x")); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestWhatWasMendedStaysUnverified, also when it is opened once more, until somebody has read it.
func TestWhatWasMendedStaysUnverified(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	d := put(t, s, "content")
	s.Close()
	forbidden(t, dir, blobPath(d), 0o200)
	ordinarily(t, dir, func() {
		s, err := Open(t.Context(), Options{Dir: dir})
		if err != nil {
			t.Error(err)
			return
		}
		defer s.Close()
		var first *Content
		for _, mended := range []bool{true, false} {
			c, err := s.Blob(d)
			if err != nil {
				t.Error(err)
				return
			}
			if c.mended != mended || !c.Verified.IsZero() {
				t.Errorf("mended: %v, verified %v", c.mended, c.Verified)
			}
			defer c.Close()
			if mended {
				first = c
			}
		}
		if err := s.Stamp(first, time.Now()); err != nil || first.Verified.IsZero() {
			t.Errorf("not stamped by who has read it: %v", err)
		}
	})
}

// TestWhatCantBeMendedIsAnErrorWithARemedy has a directory that is not ours to change.
func TestWhatCantBeMendedIsAnErrorWithARemedy(t *testing.T) {
	above := t.TempDir()
	dir := filepath.Join(above, "data")
	s := open(t, Options{Dir: dir})
	s.Close()
	forbidden(t, above, ".", 0)
	ordinarily(t, above, func() {
		s, err := Open(t.Context(), Options{Dir: dir})
		if err == nil {
			s.Close()
		}
		if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "chown") {
			t.Errorf("no remedy: %v", err)
		}
	})
	forbidden(t, above, ".", 0o700) // or the test could not remove it
}
