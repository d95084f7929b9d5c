// Package disk is the data directory: the only code that touches it.
//
//	lock                         one process at a time (flock)
//	ballast                      of no use but to be given up when the disk is full
//	bound                        how many bytes are kept and reserved at most
//	index/                       Badger's own, see package index
//	blobs/sha256/ab/abcd…        complete and verified content
//	partial/sha256-abcd…         content that is still landing, as long as it will be, with holes
//	partial/sha256-abcd….state   what of it is there
//
// The life of a blob:
//
//   - Create opens a private file in partial/, and reserves room for what is going to be written first: all, or a part;
//   - bytes are written to it at any offset, and read back from it; what they need is reserved before they are written;
//   - Park leaves it there for later, with a state that says how far it is; Parked takes it up again, also after a restart;
//   - Commit makes it durable and gives it its name, in that order: data fsynced, renamed, directory fsynced;
//   - Evict takes the name away, unless somebody has the file open; Remove does so in any case. Who has it open reads on.
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

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// headroom is what is left free on the file system even if nothing is configured, or an eighth of it if that is less: the
// index dies where there is no room for its next page.
const headroom = 256 << 20

// Options say where a Store lives and how large it may grow.
type Options struct {
	Dir     string
	MaxSize int64 // bytes on disk at most; 0: as much as MinFree leaves
	MinFree int64 // bytes of the file system to leave free; 0: none
	Look    bool  // nothing is made, changed or removed; what would be written is an error

	// Made is told of content each time that it has got its name, and may be removed; may be nil. Together with Scan and Meet it
	// tells of each content once, so who removes only what it was told of uncounts it once.
	Made func(d digest.Digest, size int64)

	Mended  func()                // told of each file or directory whose permissions were given back; may be nil
	Spoiled func(d digest.Digest) // told of parked content that somebody has changed, and that is gone for that; may be nil
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
	naming sync.Mutex // taken before all that follow
	// guards following
	pending map[string]map[digest.Digest]bool // directories of which not all is counted, and what of each is counted apart
	bound   int64                             // what the file of that name says; -1: nothing

	space *space
	uses  uses

	mu sync.Mutex
	// guards following
	parkings map[digest.Digest]parking
	stuck    map[string]int64 // what is held by files in partial/ that could not be removed

	ballasting sync.Mutex // held while the ballast comes or goes

	// set by Open
	needs     int64 // free bytes of the file system that the index needs
	coarse    bool  // the file system keeps no nanoseconds
	readOnly  bool
	leftovers int
}

// Open opens the data directory, creating it if need be, and locks it until Close. Content that has not all landed is
// parked; leftovers of any other kind are removed. That nothing can be written is no error: what is kept can be read.
func Open(ctx context.Context, opts Options) (*Store, error) {
	var err error
	if !opts.Look {
		err = os.MkdirAll(opts.Dir, 0o750)
	}
	var st unix.Statfs_t
	if err == nil {
		err = unix.Statfs(opts.Dir, &st)
	}
	if err != nil {
		return nil, fmt.Errorf("data directory %s: %w", opts.Dir, remedy(err))
	}
	capacity := int64(st.Blocks) * st.Bsize
	opts.MinFree = max(opts.MinFree, min(headroom, capacity/8))
	s := &Store{
		opts: opts, space: newSpace(opts, capacity), uses: uses{of: make(map[digest.Digest]use)},
		parkings: make(map[digest.Digest]parking), needs: needs(capacity), readOnly: st.Flags&unix.ST_RDONLY != 0,
	}
	if err = s.openRoot(); err == nil {
		err = s.prepare(ctx)
	}
	if err != nil {
		s.unlock()
		return nil, fmt.Errorf("data directory %s: %w", opts.Dir, err)
	}
	return s, nil
}

// openRoot opens the directory itself.
func (s *Store) openRoot() (err error) {
	s.root, err = os.OpenRoot(s.opts.Dir)
	if errors.Is(err, fs.ErrPermission) && !s.opts.Look && os.Chmod(s.opts.Dir, 0o750) == nil {
		s.root, err = os.OpenRoot(s.opts.Dir)
	}
	if err == nil {
		s.dir, err = s.root.Open(".")
	}
	if err == nil {
		s.space.free = func() (int64, error) { return freeSpace(s.dir) }
		s.mend(".")
	}
	return remedy(err)
}

// remedy says what would help against an error of permissions.
func remedy(err error) error {
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return fmt.Errorf("%w: user %d needs to search what is above it, and to read and write it and all that is below: "+
		"make that user its owner (chown -R), or run the program as the user that owns it", err, os.Geteuid())
}

func (s *Store) prepare(ctx context.Context) error {
	if err := s.takeLock(ctx); err != nil {
		return err
	}
	// What can't be made now is made when it is needed.
	if !s.opts.Look {
		if info, err := s.root.Lstat("partial"); err == nil && !info.IsDir() {
			_ = s.root.Remove("partial") // it is in the way
		}
		_ = s.root.Mkdir("partial", 0o750)
		_ = s.root.Mkdir("blobs", 0o750)
	}
	if err := errors.Join(s.adopt(), s.openCensus()); err != nil {
		return remedy(err)
	}
	if !s.opts.Look {
		s.openBallast()
	}
	return nil
}

// Close takes down how much is kept, and unlocks the directory. Files that are still open stay readable. No other method may
// be running.
func (s *Store) Close() error {
	s.naming.Lock()
	defer s.naming.Unlock()
	if s.opts.Look {
		return s.unlock()
	}
	_ = s.lower() // a bound that can't be lowered holds all the same
	return s.unlock()
}

func (s *Store) unlock() (err error) {
	for _, f := range []*os.File{s.lock, s.dir} {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	if s.root != nil {
		err = errors.Join(err, s.root.Close())
	}
	return err
}

// ReadOnly reports whether the file system was read-only at Open. What is kept is served all the same.
func (s *Store) ReadOnly() bool { return s.readOnly }

// Dir is the path of a directory of another package's below the data directory.
func (s *Store) Dir(name string) string { return filepath.Join(s.opts.Dir, name) }

// Probe writes a small file, durably, and removes it: whether anything can be written at all.
func (s *Store) Probe() error {
	const kept = "blobs/probe" // of which a kill leaves one
	name := fmt.Sprintf("partial/probe-%d", s.puts.Add(1))
	f, err := s.createFile(name, 0)
	if err != nil {
		return err
	}
	_, err = f.Write([]byte("probe\n"))
	if err = errors.Join(err, f.Sync(), f.Close(), s.root.Rename(name, kept)); err != nil {
		return errors.Join(err, s.root.Remove(name))
	}
	if err := s.root.Remove(kept); !missing(err) { // others may be at the same
		return err
	}
	return nil
}

func blobDir(d digest.Digest) string {
	return "blobs/" + d.Algorithm().String() + "/" + d.Encoded()[:2]
}

func blobPath(d digest.Digest) string {
	return "blobs/" + d.Algorithm().String() + "/" + d.Encoded()[:2] + "/" + d.Encoded()
}

func partialPath(d digest.Digest) string {
	return "partial/" + d.Algorithm().String() + "-" + d.Encoded()
}
