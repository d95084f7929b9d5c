package testbed

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// MountMemory mounts a file system in memory on a new directory, with options such as size=200m. It goes with the bed, or
// with [Sweep]. It takes root.
func (b *Bed) MountMemory(options string) (string, error) {
	dir, err := b.Subdir("memory")
	if err != nil {
		return "", err
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		return "", fmt.Errorf("mounting a tmpfs (%s) on %s: %w", options, dir, err)
	}
	return dir, nil
}

// Occupied is how many bytes of the file system that holds dir are taken, all at one moment: by files that have no name any
// more too.
func Occupied(dir string) (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("statfs %s: %w", dir, err)
	}
	return int64(st.Blocks-st.Bfree) * st.Bsize, nil
}

// Allocated is how many bytes the regular files at and below dir take up, in the file system's blocks. Files that go
// meanwhile may be counted or not.
func Allocated(dir string) (int64, error) {
	var sum int64
	err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			var info fs.FileInfo
			if info, err = e.Info(); err == nil {
				sum += info.Sys().(*syscall.Stat_t).Blocks * 512
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	return sum, err
}

// Unlinked is how many bytes are taken up by the files that the process has open and that have no name any more.
func (p *Process) Unlinked() (int64, error) {
	fds := fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid)
	entries, err := os.ReadDir(fds)
	if err != nil {
		return 0, err
	}
	seen := map[uint64]bool{} // by inode: one may be open twice
	var sum int64
	for _, e := range entries {
		fd := filepath.Join(fds, e.Name())
		name, err := os.Readlink(fd)
		if err != nil || !strings.HasSuffix(name, " (deleted)") {
			continue
		}
		info, err := os.Stat(fd)
		if err != nil {
			continue // closed meanwhile
		}
		if st := info.Sys().(*syscall.Stat_t); info.Mode().IsRegular() && !seen[st.Ino] {
			seen[st.Ino] = true
			sum += st.Blocks * 512
		}
	}
	return sum, nil
}

// Flood is another program that fills a file system to the last byte, takes what becomes free at once, and goes away again.
// It begins low. Its methods are for one caller at a time.
type Flood struct {
	file *os.File
	stop context.CancelFunc // nil while low
	done chan error
}

// again is how soon it looks for more room. There is nothing to wait on for that.
const again = time.Millisecond

// OpenFlood makes the file that floods the file system of dir.
func OpenFlood(dir string) (*Flood, error) {
	f, err := os.Create(filepath.Join(dir, "flood"))
	return &Flood{file: f}, err
}

// Rise returns when the file system is full, and keeps it so.
func (f *Flood) Rise() error {
	if f.stop != nil {
		return nil
	}
	size, err := f.fill(0)
	if err != nil {
		return err
	}
	var ctx context.Context
	ctx, f.stop = context.WithCancel(context.Background())
	f.done = make(chan error, 1)
	go func() {
		tick := time.NewTicker(again)
		defer tick.Stop()
		var err error
		for err == nil {
			select {
			case <-tick.C:
				size, err = f.fill(size)
			case <-ctx.Done():
				f.done <- nil
				return
			}
		}
		f.done <- err
	}()
	return nil
}

// fill writes from an offset on until there is no room, and returns the size that the file then has.
func (f *Flood) fill(at int64) (int64, error) {
	chunk := make([]byte, 1<<20)
	for len(chunk) > 0 {
		n, err := f.file.WriteAt(chunk, at)
		at += int64(n)
		switch {
		case errors.Is(err, syscall.ENOSPC):
			chunk = chunk[:len(chunk)/2]
		case err != nil:
			return at, err
		}
	}
	return at, nil
}

// Fall frees all that it took.
func (f *Flood) Fall() error {
	if f.stop == nil {
		return nil
	}
	f.stop()
	f.stop = nil
	return errors.Join(<-f.done, f.file.Truncate(0))
}

// Close is Fall, and the file goes.
func (f *Flood) Close() error {
	return errors.Join(f.Fall(), f.file.Close(), os.Remove(f.file.Name()))
}
