package disk

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// The census counts what was kept at Open while the store is in use already: of a million files that takes seconds, and
// from a cold disk minutes. Until it is over, what it has not come to counts as much as it may be at most:
//
//   - The file bound says how many bytes are kept and reserved at most. It is raised, durably and in steps, before a file is made
//     that would exceed it, so it holds after a power cut as well. At Close it becomes what is kept and parked.
//   - unseen begins as that bound, less what is parked. What is counted goes over from unseen to kept, so that their sum is
//     never less than what there is. Without a bound (somebody has removed the file, or restored blobs/ alone) nothing is sure:
//     then there is no room under a configured size before all is counted.
//
// Each content is counted once: by the census, or else by who made its name or met it during the census. The census goes by
// directories. While one is pending, names that are counted apart are taken down, before the lock naming is released under
// which that happened; when its turn comes, the census lists it without a lock, and then, holding naming, counts what was
// listed and not taken down. A name that came after Open is taken down, whether or not it was listed. One that was there at Open
// can go only once it is counted, for only what is counted is removed: then it was taken down, or the directory is no longer
// pending and is never listed again.

// rest is for how long the census pauses at most: work that takes longer is the disk's, and not the processor's.
const rest = 100 * time.Millisecond

// openCensus finds which directories there are to count, and how much may be in them.
func (s *Store) openCensus() error {
	s.pending = make(map[string]map[digest.Digest]bool)
	dirs, err := s.contentDirs()
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		s.pending[dir] = make(map[digest.Digest]bool)
		s.space.move(s.charged(dir), nowhere, sundry)
	}
	s.bound = -1
	if b, err := s.root.ReadFile("bound"); err == nil {
		s.bound = parseBound(b)
	}
	switch {
	case len(s.pending) == 0:
	case s.bound >= 0:
		s.space.set(unseen, max(0, s.bound-s.space.of(parked)))
	default:
		s.space.set(unseen, unbounded)
	}
	return nil
}

// charged is what a directory takes up. It grows with its names, little: that is looked at by the next Open.
func (s *Store) charged(dir string) int64 {
	var st unix.Stat_t
	err := onDescriptor(s.dir, func(fd int) error { return unix.Fstatat(fd, dir, &st, unix.AT_SYMLINK_NOFOLLOW) })
	if err != nil {
		return block
	}
	return max(block, st.Blocks*512)
}

// Counted reports whether all that was kept at Open has been counted.
func (s *Store) Counted() bool {
	s.naming.Lock()
	defer s.naming.Unlock()
	return len(s.pending) == 0
}

// Scan counts what was kept at Open, and tells found of it, some at a time, before it can be removed: found must not call
// the store, nor keep the slice. Names that are not digests are somebody else's and left alone. Scan is called once, ends early
// when ctx does, and rests about as long as it works, for there are requests to be served. What can't be read stays uncounted.
func (s *Store) Scan(ctx context.Context, found func([]Entry)) error {
	s.naming.Lock()
	dirs := slices.Sorted(maps.Keys(s.pending))
	s.naming.Unlock()
	var errs []error
	var entries []Entry
	for _, dir := range dirs {
		begun := time.Now()
		var err error
		if entries, err = s.list(entries[:0], dir); err != nil {
			errs = append(errs, fmt.Errorf("count %s: %w", dir, err))
			continue
		}
		s.count(dir, entries, found)
		select {
		case <-time.After(min(time.Since(begun), rest)):
		case <-ctx.Done():
			return errors.Join(append(errs, context.Cause(ctx))...)
		}
	}
	s.closeCensus()
	return errors.Join(errs...)
}

// count counts what was listed of a directory.
func (s *Store) count(dir string, entries []Entry, found func([]Entry)) {
	s.naming.Lock()
	defer s.naming.Unlock()
	apart := s.pending[dir]
	entries = slices.DeleteFunc(entries, func(e Entry) bool { return apart[e.Digest] })
	var sum int64
	for _, e := range entries {
		sum += blocks(e.Size)
	}
	found(entries)
	delete(s.pending, dir)
	s.space.saw(sum)
}

// Meet counts content that Scan has not come to; ok is false if there is none, or it is counted. After it the content can be
// removed.
func (s *Store) Meet(d digest.Digest) (size int64, ok bool) {
	if validate(d) != nil {
		return 0, false
	}
	s.naming.Lock()
	defer s.naming.Unlock()
	apart, pending := s.pending[blobDir(d)]
	if !pending || apart[d] {
		return 0, false
	}
	info, err := s.root.Lstat(blobPath(d))
	if err != nil || !info.Mode().IsRegular() {
		return 0, false
	}
	apart[d] = true
	s.space.saw(blocks(info.Size()))
	return info.Size(), true
}

// closeCensus ends the census if all is counted: then nothing is unseen.
func (s *Store) closeCensus() {
	s.naming.Lock()
	defer s.naming.Unlock()
	if len(s.pending) > 0 {
		return
	}
	s.space.set(unseen, 0)
	var err error
	if s.bound < 0 {
		err = s.lower()
	} else {
		err = s.raise() // one that is not of this directory, but of a backup for example, may say too little
	}
	if err != nil { // a disk is full, or read-only; without a bound the next Open knows that it knows nothing
		_ = s.root.Remove("bound")
		s.bound = -1
	}
}
