package disk

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"
)

// lockPatience is how long Open waits for another process to let go: a process that was just killed holds its lock
// until the kernel has taken it apart.
const lockPatience = 10 * time.Second

// takeLock locks the directory for this process. Where the file lock can't be made, because the file system is full or
// read-only, the directory itself is what is locked; so it is always, for the next process may be able to make the file. There are
// file systems that lock no directories: there the file must do.
func (s *Store) takeLock(ctx context.Context) (err error) {
	if !s.opts.Look {
		_, err = s.mending("lock", func() (err error) {
			s.lock, err = s.root.OpenFile("lock", os.O_CREATE|os.O_RDWR, 0o640)
			return err
		})
	}
	if s.lock == nil {
		s.lock, err = s.root.Open("lock")
	}
	if err != nil {
		s.lock = nil
	}
	switch err := flock(ctx, s.dir); {
	case errors.Is(err, ErrLocked), s.lock == nil && !s.readOnly && !s.opts.Look:
		return err
	case s.lock == nil:
		return nil
	}
	s.coarse = isCoarse(s.lock, s.opts.Look)
	if err := flock(ctx, s.lock); errors.Is(err, ErrLocked) || !s.readOnly {
		return err
	}
	return nil
}

// flock takes the lock for this process, waiting up to lockPatience for another to let go of it.
func flock(ctx context.Context, f *os.File) error {
	ctx, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := onDescriptor(f, func(fd int) error { return syscall.Flock(fd, syscall.LOCK_EX|syscall.LOCK_NB) })
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return inUse(f)
		}
	}
}
