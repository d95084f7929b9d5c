package index

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/dgraph-io/badger/v4"
	"go.uber.org/zap"
)

// Options say where an index lies, and what it may take.
type Options struct {
	Dir string

	// Roomy says whether the file system has ample room for tables to be written, which are some megabytes; it may make that
	// room. Nil: always.
	Roomy func() bool
	// Claim is asked before files grow by n bytes. Nil: they may.
	Claim func(n int64) bool
	// Occupy is told how many bytes the index occupies, in place of all that was claimed. May be nil.
	Occupy func(n int64)
	// Mended is told when permissions that somebody had taken were given back. May be nil.
	Mended func()
	Log    *zap.Logger // may be nil
}

func (o Options) filled() Options {
	o.Dir = filepath.Clean(o.Dir)
	if o.Roomy == nil {
		o.Roomy = func() bool { return true }
	}
	if o.Claim == nil {
		o.Claim = func(int64) bool { return true }
	}
	if o.Mended == nil {
		o.Mended = func() {}
	}
	if o.Occupy == nil {
		o.Occupy = func(int64) {}
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	return o
}

const (
	// lockPatience is how long a process that had the index open and was killed has for being gone.
	lockPatience = 10 * time.Second

	// maxAside is how many damaged indexes are left for somebody to look at.
	maxAside = 2

	// maxAttempts is how many processes may end while they open the index before that is taken for its fault.
	maxAttempts = 2
)

var errLocked = errors.New("index: in use by another process")

// Open opens the index, creating it if need be; it waits a little for another process that has it open. One that is damaged
// is moved aside, into a directory within, and begun anew, which the log is told. If it can't be opened for lack of room or
// permission, records are kept in memory until Settle can open it.
func Open(own Options) (*Index, error) {
	x := &Index{opts: own.filled()}
	for end := time.Now().Add(lockPatience); ; {
		err := x.openReal()
		if err == nil {
			return x, nil
		}
		if !errors.Is(err, errLocked) {
			x.opts.Log.Error("the index can't be opened: records are kept in memory for now, and lost at the end", zap.Error(err))
			x.live, err = openMemory(x.opts)
			return x, err
		}
		if time.Now().After(end) {
			return nil, err
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// Temporary reports whether records are kept in memory only for now, as the index could not be opened.
func (x *Index) Temporary() bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.live != nil && x.live.dir == ""
}

// Begun tells how the index was found: "" as it was left, "missing" or "damaged".
func (x *Index) Begun() string {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.begun
}

// Close writes what is pending and closes the index. Where there is no room, the newest records stay in the log, to be read by
// the next Open.
func (x *Index) Close() error {
	x.tables.Lock()
	defer x.tables.Unlock()
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.live == nil {
		return nil
	}
	err := x.live.close()
	x.live = nil
	if x.lock != nil {
		err = errors.Join(err, x.lock.Close())
	}
	return err
}

// openReal opens the index in its directory, and takes the records over that were kept in memory until now. The caller holds
// tables, or is the only one to know the index.
func (x *Index) openReal() error {
	if x.stuck {
		return errFault
	}
	if err := x.opts.prepare(); err != nil {
		return err
	}
	if err := x.takeLock(); err != nil {
		return err
	}
	if !x.opts.roomFor(x.opts.logged()) {
		return ErrNoRoom
	}
	real, begun, err := x.opts.openOrBegin()
	x.stuck = errors.Is(err, errFault)
	if err != nil {
		return err
	}
	x.exchange(real, begun)
	x.loadListings()
	return nil
}

// logged is how many bytes of logs Badger makes tables of when it opens the directory.
func (o Options) logged() (sum int64) {
	logs, _ := filepath.Glob(o.path("*.mem"))
	for _, name := range logs {
		if info, err := os.Stat(name); err == nil {
			sum += info.Sys().(*syscall.Stat_t).Blocks * 512
		}
	}
	return sum
}

// exchange puts the store in the place of the one in memory, if there is one.
func (x *Index) exchange(real *store, begun string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	old := x.live
	x.live, x.begun = real, begun
	if old != nil {
		x.inherit(old)
	}
}

// takeLock keeps other processes from the index. It is left when the process ends.
func (x *Index) takeLock() error {
	if x.lock != nil {
		return nil
	}
	f, err := os.OpenFile(x.opts.path(lockName), os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return errLocked
		}
		return fmt.Errorf("index: lock: %w", err)
	}
	x.lock = f
	return nil
}

// What lies in the directory beside Badger's files: all that the index needs is within, for the directory may be the root of a
// file system.
const (
	lockName    = "lock"
	markName    = "opening"
	asidePrefix = "damaged-"
)

func (o Options) path(name string) string { return filepath.Join(o.Dir, name) }

// prepare makes the directory. A file in its place is moved into it.
func (o Options) prepare() error {
	aside := o.Dir + "." + asideName()
	info, err := os.Stat(o.Dir)
	isFile := err == nil && !info.IsDir()
	if isFile {
		if err := os.Rename(o.Dir, aside); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(o.Dir, 0o750); err != nil {
		return err
	}
	if isFile {
		o.Log.Error("the index was no directory: it was moved aside and begun anew")
		if err := os.Rename(aside, o.path(asideName())); err != nil {
			return err
		}
	}
	o.permit()
	return nil
}

// openOrBegin opens the store in the directory; one that is damaged is moved aside and begun anew.
func (o Options) openOrBegin() (s *store, begun string, err error) {
	if _, err := os.Lstat(o.path(badger.ManifestFilename)); errors.Is(err, fs.ErrNotExist) {
		begun = "missing"
	}
	s, err = o.openMarked()
	if err == nil || !damaged(err) {
		return s, begun, err
	}
	if err := o.moveAside(err); err != nil {
		return nil, "", err
	}
	s, err = o.openMarked()
	return s, "damaged", err
}

// openMarked opens the store in the directory, while a mark stands beside it. Badger reads some kinds of damage with a panic in
// a goroutine of its own, which ends the process, as a kill does: if several before us have not survived, it is damaged.
func (o Options) openMarked() (*store, error) {
	earlier, reason := o.marked()
	if reason != "" {
		return nil, errors.New(reason)
	}
	if earlier >= maxAttempts {
		return nil, fmt.Errorf("the last %d processes ended while opening it", earlier)
	}
	if err := o.mark(strings.Repeat(attempt, earlier+1)); err != nil {
		return nil, err
	}
	err := o.check()
	var s *store
	if err == nil {
		s, err = openDir(o.Dir, o)
	}
	return s, errors.Join(err, os.Remove(o.path(markName)))
}

// attempt is what a mark holds for each who has begun to open the index. Anything else is a reason not to.
const attempt = "."

func (o Options) mark(text string) error { return os.WriteFile(o.path(markName), []byte(text), 0o640) }

func (o Options) marked() (attempts int, reason string) {
	text, _ := os.ReadFile(o.path(markName))
	reason = strings.TrimLeft(string(text), attempt)
	return len(text) - len(reason), reason
}

// damaged reports whether an index that can't be opened had better be begun anew: not when the disk, the permissions or the
// process's means are what is wrong. Badger wraps errors so that only their text is left.
func damaged(err error) bool {
	for _, e := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EACCES, syscall.EPERM, syscall.EROFS, syscall.EIO,
		syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, errFault} {
		if strings.Contains(err.Error(), e.Error()) {
			return false
		}
	}
	return true
}

// moveAside makes place for an index that is begun anew, and removes the oldest of those that were moved aside before. The
// manifest goes first: tables without one are damaged still, should this process end in between.
func (o Options) moveAside(damage error) error {
	aside := o.path(asideName())
	if err := os.Mkdir(aside, 0o750); err != nil {
		return errors.Join(damage, err)
	}
	err := os.Rename(o.path(badger.ManifestFilename), filepath.Join(aside, badger.ManifestFilename))
	entries, listErr := os.ReadDir(o.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	err = errors.Join(err, listErr)
	for _, e := range entries {
		if name := e.Name(); isBadgers(name) || name == markName {
			err = errors.Join(err, os.Rename(o.path(name), filepath.Join(aside, name)))
		}
	}
	if err != nil {
		return errors.Join(damage, err)
	}
	o.Log.Error("the index is damaged: it was moved aside and begun anew; content is kept, freshness is lost",
		zap.String("aside", aside), zap.NamedError("damage", damage))
	for asides := o.asides(); len(asides) > maxAside; asides = asides[1:] {
		err = errors.Join(err, os.RemoveAll(asides[0]))
	}
	return err
}

func asideName() string { return asidePrefix + time.Now().UTC().Format("20060102T150405.000000000") }

// asides are the damaged indexes that were moved aside, the oldest first.
func (o Options) asides() []string {
	paths, _ := filepath.Glob(o.path(asidePrefix + "*")) // sorted
	return paths
}
