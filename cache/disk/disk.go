// Package disk is the data directory: the only code that touches it.
//
//	lock                         one process at a time (flock)
//	bound                        how many bytes are kept and reserved at most
//	index/                       Badger's own, see package index
//	blobs/sha256/ab/abcd…        complete and verified content
//	partial/sha256-abcd…         content that is still landing, as long as it will be, with holes
//	partial/sha256-abcd….state   what of it is there
//
// The life of a blob:
//
//   - Create reserves its size and opens a private file in partial/;
//   - bytes are written to it at any offset, and read back from it;
//   - Park leaves it there for later, with a state that says how far it is; Parked takes it up again, also after a restart;
//   - Commit makes it durable and gives it its name, in that order: data fsynced, renamed, directory fsynced;
//   - Remove takes the name away. Who has the file open reads on.
//
// So a name below blobs/ stands for content that was verified before (the caller's duty) and is durable: the files are
// the truth, and whatever else is known about them can be rebuilt. Space is reserved before it is written, rounded up to
// the blocks that a file system charges; what is reserved and what is kept never exceed the configured size together.
package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
)

// ErrFull says that the content does not fit at the moment: removing other content would help.
var ErrFull = errors.New("disk: no room left below the configured size")

// ErrTooLarge says that the content does not fit, and would not if all other content were removed: all that is counted, for
// nothing else can be.
var ErrTooLarge = errors.New("disk: larger than all the room that there could be")

// block is what file systems charge in: a file of one byte costs this much. ext4, XFS and tmpfs use 4 KiB by default.
const block = 4096

// maxSize is the largest content that is believed in, in bytes: 16 TiB. What upstream states beyond that is nonsense, and would
// overflow.
const maxSize = 16 << 40

// headroom is what is left free on the file system even if nothing is configured, or an eighth of it if that is less: the
// index dies where there is no room for its next page.
const headroom = 256 << 20

// lockPatience is how long Open waits for another process to let go: a process that was just killed holds its lock
// until the kernel has taken it apart.
const lockPatience = 10 * time.Second

// Options say where a Store lives and how large it may grow.
type Options struct {
	Dir     string
	MaxSize int64 // bytes on disk at most; 0: as much as MinFree leaves
	MinFree int64 // bytes of the file system to leave free; 0: none

	// Made is told of content each time that it has got its name, and may be removed; may be nil. Together with Scan and Meet it
	// tells of each content once, so who removes only what it was told of uncounts it once.
	Made func(d digest.Digest, size int64)
}

// Store is an open data directory. Its methods may be called concurrently.
type Store struct {
	opts Options
	root *os.Root
	dir  *os.File // the root, for system calls that os.Root does not make
	lock *os.File
	puts atomic.Uint64 // makes the private names of Put differ

	// naming is held while a name below blobs/, or one of a digest in partial/, comes or goes, so that the names and what is
	// counted or parked agree. The I/O under it is that of a name, and now and then of the bound.
	naming sync.Mutex
	// guards following
	pending map[string]map[digest.Digest]bool // directories of which not all is counted, and what of each is counted apart
	bound   int64                             // what the file of that name says; -1: nothing

	mu sync.Mutex // taken after naming
	// guards following; sizes in whole blocks
	kept      int64 // of complete content that is counted
	unseen    int64 // of complete content that is not counted yet, at most
	landing   int64 // reserved by content that is still landing
	unwritten int64 // how much of that is not written yet, in bytes
	parked    map[digest.Digest]parked
	parkedSum int64 // reserved by content that is parked
}

// Open opens the data directory, creating it if need be, and locks it until Close. Content that has not all landed is
// parked; leftovers of any other kind are removed.
func Open(ctx context.Context, opts Options) (*Store, error) {
	if err := os.MkdirAll(opts.Dir, 0o750); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	capacity, err := Capacity(opts.Dir)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	opts.MinFree = max(opts.MinFree, min(headroom, capacity/8))
	root, err := os.OpenRoot(opts.Dir)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	s := &Store{opts: opts, root: root, parked: make(map[digest.Digest]parked)}
	if err := s.prepare(ctx); err != nil {
		s.unlock()
		return nil, fmt.Errorf("data directory %s: %w", opts.Dir, err)
	}
	return s, nil
}

func (s *Store) prepare(ctx context.Context) (err error) {
	if s.dir, err = s.root.Open("."); err != nil {
		return err
	}
	lock, err := s.root.OpenFile("lock", os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		return err
	}
	s.lock = lock
	if err := flock(ctx, lock); err != nil {
		return err
	}
	if err := s.root.MkdirAll("partial", 0o750); err != nil {
		return err
	}
	if err := s.root.MkdirAll("blobs", 0o750); err != nil {
		return err
	}
	return errors.Join(s.adopt(), s.openCensus())
}

// flock takes the lock for this process, waiting up to lockPatience for another to let go of it.
func flock(ctx context.Context, f *os.File) error {
	ctx, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.New("in use by another process: stop it, or choose another directory")
		}
	}
}

// Close takes down how much is kept, and unlocks the directory. Files that are still open stay readable. No other method may
// be running.
func (s *Store) Close() error {
	s.naming.Lock()
	defer s.naming.Unlock()
	_ = s.lower() // a bound that can't be lowered holds all the same
	return s.unlock()
}

func (s *Store) unlock() error {
	return errors.Join(s.lock.Close(), s.dir.Close(), s.root.Close())
}

// Dir is the path of a directory of another package's below the data directory.
func (s *Store) Dir(name string) string { return filepath.Join(s.opts.Dir, name) }

// Remove takes content of that size away. Content that is gone already is only uncounted. The caller sees to it that each
// content is removed once.
func (s *Store) Remove(d digest.Digest, size int64) error {
	if err := validate(d); err != nil {
		return err
	}
	s.naming.Lock()
	defer s.naming.Unlock()
	if err := s.root.RemoveAll(blobPath(d)); err != nil {
		return fmt.Errorf("remove %s: %w", d, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept -= blocks(size)
	return nil
}

// Used is how many bytes are kept and reserved, in whole blocks; at most, as long as not all is counted.
func (s *Store) Used() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	used := s.kept + s.landing + s.parkedSum
	if s.unseen < unbounded {
		used += s.unseen
	}
	return used
}

// Roomy reports whether there is room on the file system for what is small and not reserved, such as the index.
func (s *Store) Roomy() bool {
	free, err := freeSpace(s.opts.Dir)
	return err != nil || free > min(headroom, s.opts.MinFree)/4
}

// Fits reports whether there could be room for content of that size, if need be in place of all that may be removed. What is
// not counted yet can't be.
func (s *Store) Fits(size int64) bool {
	free, err := freeSpace(s.opts.Dir)
	if err != nil {
		return true // Create will tell
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.roomLocked(size, free) != ErrTooLarge
}

// reserve takes size bytes out of what may still be used, or says why it can't.
func (s *Store) reserve(size int64) error {
	free, err := freeSpace(s.opts.Dir)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.roomLocked(size, free); err != nil {
		return err
	}
	s.landing += blocks(size)
	s.unwritten += size
	return nil
}

// roomLocked returns nil if there is room for size bytes. Whether removing other content would help is decided here, before
// any is removed.
func (s *Store) roomLocked(size, free int64) error {
	if size < 0 || size > maxSize {
		return ErrTooLarge
	}
	need := blocks(size)
	removable := s.kept + s.parkedSum
	if s.opts.MaxSize > 0 {
		switch room := s.opts.MaxSize - s.landing - need; {
		case room < s.unseen:
			return ErrTooLarge
		case room < s.unseen+removable:
			return ErrFull
		}
	}
	switch room := free - s.unwritten - need - s.opts.MinFree; {
	case room+removable < 0:
		return ErrTooLarge
	case room < 0:
		return ErrFull
	}
	return nil
}

func blocks(size int64) int64 { return (size + block - 1) / block * block }

// freeSpace is how many bytes of the file system an ordinary process may still take.
func freeSpace(dir string) (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("statfs: %w", err)
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// Capacity is the size in bytes of the file system that holds dir, or of the nearest parent that exists.
func Capacity(dir string) (int64, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return 0, err
	}
	for {
		var st syscall.Statfs_t
		err := syscall.Statfs(dir, &st)
		if err == nil {
			return int64(st.Blocks) * st.Bsize, nil
		}
		if !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			return 0, fmt.Errorf("statfs %s: %w", dir, err)
		}
		dir = filepath.Dir(dir)
	}
}

func blobDir(d digest.Digest) string {
	return "blobs/" + d.Algorithm().String() + "/" + d.Encoded()[:2]
}

func blobPath(d digest.Digest) string { return blobDir(d) + "/" + d.Encoded() }

func partialPath(d digest.Digest) string {
	return "partial/" + d.Algorithm().String() + "-" + d.Encoded()
}
