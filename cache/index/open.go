package index

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
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
// is moved aside, to its name with the suffix ".damaged" and a time, and begun anew, which the log is told. If it can't be
// opened for lack of room or permission, records are kept in memory until Settle can open it.
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
	if !x.opts.Roomy() {
		return ErrNoRoom
	}
	if err := x.takeLock(); err != nil {
		return err
	}
	real, begun, err := x.opts.openOrBegin()
	if err != nil {
		return err
	}
	x.exchange(real, begun)
	x.loadListings()
	return nil
}

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
	f, err := os.OpenFile(x.opts.Dir+".lock", os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return fmt.Errorf("%w: %w", errLocked, err)
	}
	x.lock = f
	return nil
}

// openOrBegin opens the store in the directory; one that is damaged is moved aside and begun anew.
func (o Options) openOrBegin() (s *store, begun string, err error) {
	if _, err := os.Lstat(filepath.Join(o.Dir, badger.ManifestFilename)); errors.Is(err, fs.ErrNotExist) {
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
	if reason != "" || earlier >= maxAttempts {
		return nil, fmt.Errorf("%d processes ended while opening it; %s", earlier, reason)
	}
	if err := o.mark(strings.Repeat(attempt, earlier+1)); err != nil {
		return nil, err
	}
	s, err := o.openChecked()
	return s, errors.Join(err, os.Remove(o.markName()))
}

// attempt is what a mark holds for each who has begun to open the index. Anything else is a reason not to.
const attempt = "."

func (o Options) markName() string { return o.Dir + ".opening" }

func (o Options) mark(text string) error { return os.WriteFile(o.markName(), []byte(text), 0o640) }

func (o Options) marked() (attempts int, reason string) {
	text, err := os.ReadFile(o.markName())
	if err != nil {
		return 0, ""
	}
	reason = strings.TrimLeft(string(text), attempt)
	return max(1, len(text)-len(reason)), reason
}

// openChecked opens the store in the directory after it has been looked through.
func (o Options) openChecked() (*store, error) {
	if err := os.MkdirAll(o.Dir, 0o750); err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, syscall.ENOTDIR) {
		return nil, err
	}
	o.permit()
	if err := o.check(); err != nil {
		return nil, err
	}
	return openDir(o.Dir, o)
}

// damaged reports whether an index that can't be opened had better be begun anew: not when the disk, the permissions or the
// process's means are what is wrong. Badger wraps errors so that only their text is left.
func damaged(err error) bool {
	for _, e := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EACCES, syscall.EPERM, syscall.EROFS, syscall.EIO,
		syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM} {
		if strings.Contains(err.Error(), e.Error()) {
			return false
		}
	}
	return true
}

// moveAside makes place for an index that is begun anew, and removes the oldest of those that were moved aside before.
func (o Options) moveAside(damage error) error {
	aside := o.Dir + asideSuffix + time.Now().UTC().Format("20060102T150405.000")
	if err := os.Rename(o.Dir, aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(damage, err)
	}
	o.Log.Error("the index is damaged: it was moved aside and begun anew; content is kept, freshness is lost",
		zap.String("aside", aside), zap.NamedError("damage", damage))
	asides := o.asides()
	for len(asides) > maxAside {
		if err := os.RemoveAll(asides[0]); err != nil {
			return err
		}
		asides = asides[1:]
	}
	return os.RemoveAll(o.markName())
}

const asideSuffix = ".damaged-"

// asides are the damaged indexes that were moved aside, the oldest first.
func (o Options) asides() (paths []string) {
	parent, base := filepath.Split(o.Dir)
	entries, _ := os.ReadDir(filepath.Clean(parent))
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), base+asideSuffix) {
			paths = append(paths, filepath.Join(parent, e.Name()))
		}
	}
	slices.Sort(paths)
	return paths
}
