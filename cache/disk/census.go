package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
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

// Entry is a blob that Scan found.
type Entry struct {
	Digest digest.Digest
	Size   int64
	Kept   time.Time // when its content last changed: when it was kept
}

// step is by how much the bound is raised beyond what is needed, in bytes: so much may stay unused after a kill until all is
// counted, and each step costs two fsyncs.
const step = 256 << 20

// rest is for how long the census pauses at most: work that takes longer is the disk's, and not the processor's.
const rest = 100 * time.Millisecond

// unbounded stands for what is unseen when there is no bound: more than any file system has.
const unbounded = 1 << 60

// openCensus finds which directories there are to count, and how much may be in them.
func (s *Store) openCensus() error {
	s.pending = make(map[string]map[digest.Digest]bool)
	algorithms, err := s.directories("blobs")
	if err != nil {
		return err
	}
	for _, algorithm := range algorithms {
		dirs, err := s.directories(algorithm)
		if err != nil {
			return err
		}
		for _, dir := range dirs {
			s.pending[dir] = make(map[digest.Digest]bool)
		}
	}
	if b, err := s.root.ReadFile("bound"); err == nil {
		s.bound, err = strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
		if err != nil || s.bound < 0 || s.bound >= unbounded {
			s.bound = -1
		}
	} else {
		s.bound = -1
	}
	switch {
	case len(s.pending) == 0:
	case s.bound >= 0:
		s.unseen = max(0, s.bound-s.parkedSum)
	default:
		s.unseen = unbounded
	}
	return nil
}

// directories are the paths of the directories within one.
func (s *Store) directories(name string) (paths []string, err error) {
	dir, err := s.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	entries, err := dir.ReadDir(-1)
	for _, e := range entries {
		if e.IsDir() {
			paths = append(paths, name+"/"+e.Name())
		}
	}
	return paths, err
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
	return errors.Join(append(errs, s.closeCensus())...)
}

// list appends what is kept in a directory, which may change meanwhile.
func (s *Store) list(entries []Entry, name string) ([]Entry, error) {
	dir, err := s.root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return entries, nil
	}
	if err != nil {
		return entries, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return entries, err
	}
	err = onDescriptor(dir, func(fd int) error {
		entries, err = look(entries, name, fd, names)
		return err
	})
	return entries, err
}

// look appends those of the names in a directory that are kept content.
func look(entries []Entry, name string, dir int, names []string) ([]Entry, error) {
	algorithm := digest.Algorithm(strings.Split(name, "/")[1])
	for _, encoded := range names {
		d := digest.NewDigestFromEncoded(algorithm, encoded)
		if validate(d) != nil || blobDir(d) != name {
			continue
		}
		var st unix.Stat_t
		switch err := unix.Fstatat(dir, encoded, &st, unix.AT_SYMLINK_NOFOLLOW); {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return entries, err
		case st.Mode&unix.S_IFMT == unix.S_IFREG:
			entries = append(entries, Entry{Digest: d, Size: st.Size, Kept: time.Unix(st.Mtim.Unix())})
		}
	}
	return entries, nil
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
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seenLocked(sum)
}

// seenLocked moves so much from what is unseen to what is kept.
func (s *Store) seenLocked(sum int64) {
	s.kept += sum
	if s.unseen < unbounded {
		s.unseen = max(0, s.unseen-sum)
	}
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
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seenLocked(blocks(info.Size()))
	return info.Size(), true
}

// closeCensus ends the census if all is counted: then nothing is unseen.
func (s *Store) closeCensus() error {
	s.naming.Lock()
	defer s.naming.Unlock()
	if len(s.pending) > 0 {
		return nil
	}
	s.mu.Lock()
	s.unseen = 0
	s.mu.Unlock()
	if s.bound < 0 {
		return s.lower()
	}
	return s.raise() // one that is not of this directory, but of a backup for example, may say too little
}

// occupied is what is kept and reserved, at most; if nobody knows, it is unbounded or more.
func (s *Store) occupied() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kept + s.unseen + s.landing + s.parkedSum
}

// raise makes sure that the bound holds. It is called with naming held, after more was reserved and before there is a file.
func (s *Store) raise() error {
	need := s.occupied()
	if need <= s.bound || need >= unbounded {
		return nil
	}
	bound := need + step
	if s.opts.MaxSize > 0 {
		bound = max(need, min(bound, s.opts.MaxSize))
	}
	return s.setBound(bound)
}

// lower makes the bound what is kept and reserved, if that is known. Names that were removed are made durably so before: they
// would be back after a power cut, and nobody would expect them. It is called with naming held, and at times when nobody waits.
func (s *Store) lower() error {
	known := s.occupied()
	if known == s.bound || known >= unbounded {
		return nil
	}
	algorithms, err := s.directories("blobs")
	for _, algorithm := range algorithms {
		dirs, listErr := s.directories(algorithm)
		err = errors.Join(err, listErr)
		for _, dir := range dirs {
			err = errors.Join(err, s.syncDir(dir))
		}
	}
	if err != nil {
		return err
	}
	return s.setBound(known)
}

// setBound writes the bound durably. It is called with naming held.
func (s *Store) setBound(bound int64) error {
	const draft = "bound" + draftSuffix
	f, err := s.root.OpenFile(draft, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err == nil {
		_, err = fmt.Fprintln(f, bound)
		err = errors.Join(err, f.Sync(), f.Close())
	}
	if err == nil {
		err = s.root.Rename(draft, "bound")
	}
	if err == nil {
		err = s.syncDir(".")
	}
	if err != nil {
		return fmt.Errorf("bound: %w", err)
	}
	s.bound = bound
	return nil
}
