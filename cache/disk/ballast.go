package disk

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// The index dies where there is no block left for a page that it has mapped, and it needs some of them for what it can't put off:
// a table that it writes when its memory is full, another when it is opened. What may be evicted may not be enough for that, or
// too late: others fill the same file system. So a file of no use is kept while there is room, and removed in need.

const (
	// maxBallast is as much as the index writes at once, several times over.
	maxBallast = 64 << 20

	// ample is how many times the ballast is to be free beyond what is to be left free, for one to be made.
	ample = 4
)

// ballastSize is the size of the ballast on a file system of that capacity, below a configured size, in bytes.
func ballastSize(capacity, maxSize int64) int64 {
	size := min(maxBallast, capacity/16)
	if maxSize > 0 {
		size = min(size, maxSize/32)
	}
	return whole(size)
}

// Roomy reports whether there is room on the file system for what the index writes next, and gives the ballast up for it if
// need be. It is half a ballast, so that the ballast alone is enough if nothing else is left.
func (s *Store) Roomy() bool {
	free, err := s.space.free()
	if err != nil || free > s.need {
		return true
	}
	s.ballasting.Lock()
	defer s.ballasting.Unlock()
	if s.space.of(ballast) == 0 || s.root.Remove("ballast") != nil {
		return false
	}
	s.space.set(ballast, 0)
	free, err = s.space.free()
	return err != nil || free > s.need
}

// RoomyAt is Roomy for an index in a directory elsewhere, where there is no ballast.
func RoomyAt(dir string) bool {
	capacity, err := Capacity(dir)
	if err != nil {
		return true
	}
	free, err := freeSpace(dir)
	return err != nil || free > ballastSize(capacity, 0)/2
}

// Restock makes the ballast anew when it is missing and there is ample room for it.
func (s *Store) Restock() {
	s.ballasting.Lock()
	defer s.ballasting.Unlock()
	size := s.ballastSize
	if size == 0 || s.space.of(ballast) != 0 || !s.space.take(size, ballast, ample*size) {
		return
	}
	if s.makeBallast(size) != nil { // a file system that can't allocate ahead, for example
		s.space.set(ballast, 0)
	}
}

func (s *Store) makeBallast(size int64) error {
	f, err := s.open("ballast", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	err = onDescriptor(f, func(fd int) error { return unix.Fallocate(fd, 0, 0, size) })
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, s.root.Remove("ballast"))
	}
	return nil
}

// openBallast takes over the ballast of an earlier process, if it is one of this size.
func (s *Store) openBallast() {
	var st unix.Stat_t
	err := onDescriptor(s.dir, func(dir int) error { return unix.Fstatat(dir, "ballast", &st, unix.AT_SYMLINK_NOFOLLOW) })
	switch {
	case err != nil:
	case st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size == s.ballastSize && st.Blocks*512 >= st.Size:
		s.space.set(ballast, s.ballastSize)
	default:
		_ = s.root.RemoveAll("ballast")
	}
}
