package index

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

const (
	// memTable is how many bytes of records Badger gathers before it writes a table of them. It is that small so that there is
	// room for one on a small file system too, and so large because a transaction, which may be of one listing, holds 15 % of it.
	memTable = 4 << 20

	// step is how far the log is allocated ahead of what is written, in bytes.
	step = 256 << 10

	// slack is what Badger writes beyond the records: the head of the log, and zeros behind the last one.
	slack = 4 << 10
)

var (
	errFull   = errors.New("a table is to be written first")
	errRotten = errors.New("index: a table can't be read")
	errFault  = errors.New("index: the file system filled up in the middle of opening it: not again before a restart")
)

// cost says how many bytes records take at most: of the log, and of the table that is gathered in memory.
//
// Badger's node of a record takes 16 bytes, 4 for each level that it is linked in, and up to 7 for alignment. A third of the
// nodes reach each further level, so that it is 29 on average and 40 is a bound for any thousand of them.
type cost struct{ log, table int64 }

func (c cost) plus(key, value []byte) cost {
	if c.log == 0 {
		c.log = 48 // the end of a transaction
	}
	kv := int64(len(key) + len(value))
	return cost{c.log + 22 + kv, c.table + 40 + 20 + kv}
}

// store is an open Badger, in a directory or in memory.
//
// Badger writes by memory maps of sparse files. On a full file system that ends the process: the kernel finds no block for the
// page and sends SIGBUS. So it never comes to write where no block is. It writes in three places:
//
//   - The log of the newest records, a file with the suffix .mem. It is allocated ahead of each record: what there is no
//     block for is not written. The records under way cost no more than has been taken down for them beforehand, and all of
//     them are taken down since the file was begun, so none goes beyond what is allocated.
//   - Tables, and a new log, when the old one is full. Nobody can allocate these beforehand: they have no name until they are
//     written. They are written only when there is room for them, and Options.Roomy says that it is ample: by the records that
//     may be the ones to fill the log, which come alone; by compactLocked; by Open and Close.
//   - The value log and its statistics. Both are begun by Open, and no value is long enough to go there.
//
// What remains is that another process takes all of that room, see maxMargin, while a table is being written: some milliseconds
// for each that fills, of twenty thousand records, and longer when they are compacted.
type store struct {
	db  *badger.DB
	dir string // "": in memory
	own Options

	// alone is held for reading by records that go into the log as it is, and for writing by one that may begin another.
	alone sync.RWMutex
	mu    sync.Mutex
	// guards following, of which log, id and claimed are written only by who holds alone for writing
	log       *os.File // the log that is written to
	id        int      // its number
	spent     cost     // since it was begun
	allocated int64    // bytes of it
	claimed   bool     // the table that is to be written
}

func badgerOptions(dir string, log *zap.Logger) badger.Options {
	// The sizes are for hundreds of thousands of records of 200 bytes in some megabytes of memory. Values stay out of the
	// value log (all are below the threshold), so that it needs no collection. Tables are compacted by compact alone.
	return badger.DefaultOptions(dir).
		WithLogger(logger{atLeastWarn(log).Sugar()}).
		WithBypassLockGuard(true).
		WithMemTableSize(memTable).WithNumMemtables(2).WithBaseTableSize(2 << 20).
		WithNumCompactors(0).WithNumLevelZeroTablesStall(1 << 20).
		WithChecksumVerificationMode(options.OnBlockRead).
		WithValueThreshold(600 << 10).WithValueLogFileSize(1 << 20).
		WithCompression(options.None).WithBlockCacheSize(0).
		WithMetricsEnabled(false).WithSyncWrites(false)
}

// openMemory opens a store in memory.
func openMemory(own Options) (*store, error) {
	db, err := badger.Open(badgerOptions("", own.Log).WithInMemory(true))
	return &store{db: db, own: own}, err
}

// openDir opens the store in a directory, creating it if need be. There has to be ample room.
func openDir(dir string, own Options) (s *store, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		p := recover()
		if _, fault := p.(interface{ Addr() uintptr }); fault {
			err = errFault // by this goroutine, but others of Badger's may have begun to write tables
		} else if p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	db, err := badger.Open(badgerOptions(dir, own.Log))
	if err != nil {
		return nil, err
	}
	s = &store{db: db, dir: dir, own: own}
	if err := s.follow(cost{}); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

// follow turns to the log that Badger writes now, in which what was spent has been written. No record is under way.
func (s *store) follow(spent cost) error {
	names, err := filepath.Glob(filepath.Join(s.dir, "*.mem"))
	if err != nil {
		return err
	}
	newest, name := -1, ""
	for _, n := range names {
		var id int
		if _, err := fmt.Sscanf(filepath.Base(n), "%d.mem", &id); err == nil && id > newest {
			newest, name = id, n
		}
	}
	log, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.log != nil {
		s.log.Close()
	}
	s.log, s.id, s.allocated, s.claimed = log, newest, 0, false
	s.spent = cost{slack + spent.log, slack + spent.table}
	return nil
}

// write has do write what costs so much, or returns ErrNoRoom.
func (s *store) write(c cost, do func(*badger.DB) error) error {
	s.alone.RLock()
	err := s.reserve(c, memTable-slack)
	if err == nil {
		defer s.alone.RUnlock()
		return do(s.db)
	}
	s.alone.RUnlock()
	if !errors.Is(err, errFull) {
		return err
	}
	return s.writeAlone(c, do)
}

// writeAlone writes what may fill the log, so that Badger begins another and writes a table. It looks which log there is
// afterwards: as the only one under way, it went into that one, and nothing else did. What is in memory stays below a table.
func (s *store) writeAlone(c cost, do func(*badger.DB) error) error {
	if s.dir == "" {
		return ErrNoRoom
	}
	s.alone.Lock()
	defer s.alone.Unlock()
	err := s.reserve(c, memTable-slack)
	if errors.Is(err, errFull) { // else somebody else has begun another meanwhile
		s.claimed = s.claimed || s.own.Claim(memTable)
		if !s.claimed || !s.own.roomFor(memTable) {
			return ErrNoRoom
		}
		err = s.reserve(c, 2*memTable) // as long as the file is; Badger begins another long before
	}
	if errors.Is(err, errFull) {
		return ErrNoRoom
	}
	if err != nil {
		return err
	}
	err = do(s.db)
	if _, statErr := os.Stat(s.logName(s.id + 1)); statErr == nil {
		err = errors.Join(err, s.follow(c))
	}
	return err
}

func (s *store) logName(id int) string { return filepath.Join(s.dir, fmt.Sprintf("%05d.mem", id)) }

// reserve takes the cost down, and allocates the log for it. errFull says that the log or its table would exceed limit.
func (s *store) reserve(c cost, limit int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	sum := cost{s.spent.log + c.log, s.spent.table + c.table}
	if max(sum.log, sum.table) > limit {
		return errFull
	}
	for s.log != nil && s.allocated < min(sum.log+slack, 2*memTable) {
		if !s.own.Claim(step) {
			return ErrNoRoom
		}
		if err := allocate(s.log, s.allocated, step); err != nil {
			return err
		}
		s.allocated += step
	}
	s.spent = sum
	return nil
}

// allocate gives blocks to a part of a file that is all zeros, and that nobody writes meanwhile.
func allocate(f *os.File, offset, size int64) error {
	err := unix.Fallocate(int(f.Fd()), 0, offset, size)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		_, err = f.WriteAt(make([]byte, size), offset)
	}
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return ErrNoRoom
	}
	return err
}

// view has look read, on this goroutine alone. A table that is rotten, or that the disk does not give, is no reason to die:
// looking at it panics, or faults, which is made a panic here.
func (s *store) view(look func(*badger.Txn) error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", errRotten, p)
		}
	}()
	return s.db.View(look)
}

// close closes the store; where there is no room to write a table of the newest records, it leaves them in the log, as a
// kill would: what belongs to Badger is never touched again then, but given back only by the end of the process.
func (s *store) close() error {
	if s.dir == "" {
		return s.db.Close()
	}
	defer s.log.Close()
	if !s.own.roomFor(s.spent.log) || !s.own.writable() {
		return nil
	}
	// A table that can't be written all the same Badger would try to write for ever.
	done := make(chan error, 1)
	go func() { done <- s.db.Close() }()
	select {
	case err := <-done:
		return err
	case <-time.After(closePatience):
		return errors.New("index: the newest records could not be written to a table, and are left in the log")
	}
}

// writable reports whether a file can be made and written in the directory.
func (o Options) writable() bool {
	f, err := os.CreateTemp(o.Dir, "probe-*")
	if err != nil {
		return false
	}
	_, err = f.WriteString("probe")
	return errors.Join(err, f.Sync(), f.Close(), os.Remove(f.Name())) == nil
}

// closePatience is how long Badger is waited for: what it writes are a few megabytes.
const closePatience = 8 * time.Second

// atLeastWarn is a log that takes warnings and what is worse, if it takes them: zap complains about an increase that is none.
func atLeastWarn(log *zap.Logger) *zap.Logger {
	if !log.Core().Enabled(zap.WarnLevel) {
		return log
	}
	return log.WithOptions(zap.IncreaseLevel(zap.WarnLevel))
}

// logger is Badger's view of zap.
type logger struct{ *zap.SugaredLogger }

func (l logger) Warningf(format string, args ...any) { l.Warnf(strings.TrimSpace(format), args...) }
