package e2e

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/entrepot/entrepot/e2e/bench/origin"
	"github.com/entrepot/entrepot/e2e/testbed"
)

// ordinary is a user who has no rights of his own. Permissions don't bind root.
const ordinary = 65534

// A directory that can't be written any more keeps no pull from succeeding; what is kept is served from it; and it is used
// again when it can be.
func TestPromiseDirectoryThatTurnsReadOnly(t *testing.T) {
	needRoot(t)
	data := ordinaryDir(t)
	s := openShop(t, origin.Line{}, testbed.EntrepotOptions{DataDir: data, User: ordinary})
	kept := s.push(t, "library/before", 1<<20, 3<<20)
	s.pullUntilKept(t, kept)
	ready := s.watchReadiness(t)
	for range 2 {
		if err := setDirectories(data, 0o555); err != nil {
			t.Fatal(err)
		}
		s.servesReadOnly(t, kept)
		if err := setDirectories(data, 0o755); err != nil {
			t.Fatal(err)
		}
		s.worksAsEver(t)
	}
	ready()
}

// A start on a file system that is read-only serves what is kept, and passes on the rest.
func TestPromiseReadOnlyAtStart(t *testing.T) {
	needRoot(t)
	data, err := bed.Subdir("readonly")
	if err != nil {
		t.Fatal(err)
	}
	s := openShop(t, origin.Line{}, testbed.EntrepotOptions{DataDir: data})
	kept := s.push(t, "library/before", 1<<20, 3<<20)
	s.pullUntilKept(t, kept)
	for _, end := range []func() error{s.entrepot.Stop, s.entrepot.Kill} {
		if err := end(); err != nil {
			t.Fatal(err)
		}
		if err := bindReadOnly(data); err != nil {
			t.Fatal(err)
		}
		if err := s.entrepot.Start(running); err != nil {
			t.Fatalf("started on a read-only directory: %v", err)
		}
		s.servesReadOnly(t, kept)
		if err := errors.Join(s.entrepot.Stop(), syscall.Unmount(data, 0), s.entrepot.Start(running)); err != nil {
			t.Fatal(err)
		}
		s.worksAsEver(t)
	}
}

// A file system that turns read-only because of an error takes no byte any more, not even of files that are open. It comes
// back with a mount, and so with a restart. That is where a log in mapped memory kills its process.
func TestPromiseFileSystemThatFails(t *testing.T) {
	needRoot(t)
	need(t, "mkfs.ext4", "mount", "findmnt")
	dir, fail := failingDisk(t)
	s := openShop(t, origin.Line{}, testbed.EntrepotOptions{DataDir: filepath.Join(dir, "data")})
	kept := s.push(t, "library/before", 1<<20, 3<<20)
	s.pullUntilKept(t, kept)
	ready := s.watchReadiness(t)
	if err := fail(); err != nil {
		t.Fatal(err)
	}
	s.servesReadOnly(t, kept)
	// Enough records that the index has to write to pages that it had not.
	sizes := make([]int64, 300)
	for k := range sizes {
		sizes[k] = int64(k + 1)
	}
	if err := s.image(running, s.push(t, "library/during-small", sizes...), nil); err != nil {
		t.Errorf("on a file system that failed, many small layers: %v", err)
	}
	ready()
	if err := s.entrepot.Stop(); err != nil {
		t.Error(err)
	}
}

// servesReadOnly pulls what is kept, which has to cost upstream no layer, and twice what is not.
func (s *shop) servesReadOnly(t *testing.T, kept origin.Image) {
	t.Helper()
	before := s.upstream.Count()
	if err := s.image(running, kept, nil); err != nil {
		t.Errorf("read-only, what is kept: %v", err)
	}
	if n := s.upstream.Count().Since(before).Gets[origin.Layers]; n != 0 {
		t.Errorf("read-only: %d layers that are kept were fetched again", n)
	}
	during := s.push(t, "library/during", 1<<20, 20<<20)
	for range 2 {
		if err := s.image(running, during, nil); err != nil {
			t.Errorf("read-only, what is not kept: %v", err)
		}
	}
}

// ordinaryDir makes a directory that belongs to the ordinary user.
func ordinaryDir(t *testing.T) string {
	t.Helper()
	dir, err := bed.Subdir("ordinary")
	if err == nil {
		err = os.Chown(dir, ordinary, ordinary)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// setDirectories sets the permissions of dir and of all directories below it.
func setDirectories(dir string, mode fs.FileMode) error {
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			err = os.Chmod(path, mode)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it went meanwhile
		}
		return err
	})
}

// bindReadOnly makes a directory one of a read-only file system, until it is unmounted.
func bindReadOnly(dir string) error {
	err := syscall.Mount(dir, dir, "", syscall.MS_BIND, "")
	if err != nil {
		return err
	}
	return syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_BIND|syscall.MS_RDONLY, "")
}

// failingDisk mounts a file system of a file of its own, and returns what has it find an error.
func failingDisk(t *testing.T) (dir string, fail func() error) {
	t.Helper()
	ctx := context.WithoutCancel(running)
	file := filepath.Join(workDir(t, "image"), "disk")
	dir = workDir(t, "failing")
	writeFile(t, file, "")
	if err := os.Truncate(file, 256<<20); err != nil {
		t.Fatal(err)
	}
	if _, err := testbed.Run(ctx, nil, "mkfs.ext4", "-q", "-F", "-O", "^has_journal", file); err != nil {
		t.Fatal(err)
	}
	// mount sees to it that the loop device goes with the file system.
	if _, err := testbed.Run(ctx, nil, "mount", "-o", "loop,errors=remount-ro", file, dir); err != nil {
		t.Fatal(err)
	}
	source, err := testbed.Run(ctx, nil, "findmnt", "-no", "SOURCE", dir)
	if err != nil {
		t.Fatal(err)
	}
	trigger := filepath.Join("/sys/fs/ext4", filepath.Base(strings.TrimSpace(source)), "trigger_fs_error")
	return dir, func() error { return os.WriteFile(trigger, []byte("1"), 0) }
}
