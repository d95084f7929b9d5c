package disk

import (
	"context"
	"errors"
	"os"
	"slices"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// The index dies where there is no block left for a page that it has mapped, and it needs some for what it can't put off: a
// table that it writes when its memory is full, another when it is opened. What may be evicted may not be enough for that, or
// too late: others fill the same file system. So a file of no use is kept while there is room, and removed in need.

// ballastSize is the size of the ballast on a file system of that capacity, below a configured size, in bytes.
func ballastSize(capacity, maxSize int64) int64 {
	size := min(64<<20, capacity/16)
	if maxSize > 0 {
		size = min(size, maxSize/32)
	}
	return whole(size)
}

// needs is how many bytes the index needs at once, on a file system of that capacity: a table of 8 MiB and what is merged with it.
// On a small one, whose index is small too, it is less. A ballast is more than that, so it is enough if nothing else is left.
func needs(capacity int64) int64 { return ballastSize(capacity, 0) / 4 * 3 }

// Roomy reports whether there is room on the file system for what the index writes next, and gives the ballast up for it if
// need be.
func (s *Store) Roomy() bool {
	free, err := s.space.free()
	if err != nil || free > s.needs {
		return true
	}
	s.ballasting.Lock()
	defer s.ballasting.Unlock()
	if s.space.of(ballast) > 0 && s.root.Remove("ballast") == nil {
		s.space.set(ballast, 0)
	}
	free, err = s.space.free() // somebody else may have given it up a moment ago
	return err != nil || free > s.needs
}

// RoomyAt is Roomy for an index in a directory elsewhere, where there is no ballast.
func RoomyAt(dir string) bool {
	at, err := os.Open(dir)
	if err != nil {
		return true // who opens it will tell
	}
	defer at.Close()
	capacity, err := Capacity(dir)
	if err != nil {
		return true
	}
	free, err := freeSpace(at)
	return err != nil || free > needs(capacity)
}

// Restock makes the ballast anew when it is missing and there is room for it that no content has. Otherwise it counts towards
// Excess.
func (s *Store) Restock() {
	s.ballasting.Lock()
	defer s.ballasting.Unlock()
	size := s.space.lacks()
	if size == 0 || !s.space.take(size, ballast) {
		return
	}
	err := s.makeBallast(size)
	if err != nil {
		s.space.set(ballast, 0)
	}
	if errors.Is(err, unix.EOPNOTSUPP) {
		s.space.want(0) // for this file system can't
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
	size := s.space.lacks()
	var st unix.Stat_t
	err := onDescriptor(s.dir, func(dir int) error { return unix.Fstatat(dir, "ballast", &st, unix.AT_SYMLINK_NOFOLLOW) })
	switch {
	case err != nil:
	case st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size == size && st.Blocks*512 >= size:
		s.space.set(ballast, size)
	default:
		_ = s.root.RemoveAll("ballast")
	}
}

// sample is how much content Prune looks at before it removes any, at least, if there is so much.
const sample = 4096

// errRoomy ends a walk.
var errRoomy = errors.New("there is room")

// Prune makes room for the index to be opened with, on a file system that is full, before the census: it removes what is
// parked, and then content, of each sample what was used least recently first, until Roomy, or until nothing is left.
func (s *Store) Prune(ctx context.Context, gone func(digest.Digest)) {
	for !s.Roomy() && s.DropOldestParked() {
	}
	if s.Roomy() {
		return
	}
	var entries []Entry
	_ = s.Walk(ctx, func(dir []Entry) error {
		if entries = append(entries, dir...); len(entries) < sample {
			return nil
		}
		if s.prune(entries, gone) {
			return errRoomy
		}
		entries = entries[:0]
		return nil
	})
	s.prune(entries, gone)
}

// prune removes content until there is room, and tells gone of it.
func (s *Store) prune(entries []Entry, gone func(digest.Digest)) (roomy bool) {
	slices.SortFunc(entries, func(a, b Entry) int { return a.Used.Compare(b.Used) })
	for _, e := range entries {
		if s.Roomy() {
			return true
		}
		if size, ok := s.Meet(e.Digest); ok {
			if s.Remove(e.Digest, size) == nil {
				gone(e.Digest)
			}
		}
	}
	return s.Roomy()
}
