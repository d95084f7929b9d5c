package index

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/dgraph-io/badger/v4"
	"go.uber.org/zap"
)

// Settle is to be called every few seconds. It opens the index if records are kept in memory for now and it can be opened;
// it tells Occupy what the index occupies; and it compacts the tables of the newest records when there are many, which may
// take seconds. Its error says why the index still can't be opened.
func (x *Index) Settle() error {
	x.tables.Lock()
	defer x.tables.Unlock()
	var err error
	if x.Temporary() {
		if err = x.openReal(); err == nil {
			x.opts.Log.Info("the index is open: records are kept on disk again")
		}
	}
	x.compactLocked(manyTables)
	x.bytes.Store(x.opts.occupied())
	x.opts.Occupy(x.bytes.Load())
	return err
}

// manyTables is how many tables of the newest records make it worth while to merge them with the older ones: each is asked
// for a record that isn't in those before.
const manyTables = 6

// compactLocked merges all tables into one level if that many hold the newest records, and if there is room for all of them
// once more. The caller holds tables, and no other lock: records are read and written meanwhile.
//
// Badger merges in goroutines of its own, where a rotten block would end the process. So all are looked through before.
func (x *Index) compactLocked(many int) {
	s, ids, newest, size := x.listTables()
	if newest < many || x.rotten.Load() || !x.opts.roomFor(2*size) || !x.opts.Claim(size) {
		return
	}
	if err := x.opts.checkTables(ids, whole); err != nil {
		x.rot(err)
		return
	}
	if err := s.db.Flatten(1); err != nil {
		x.opts.Log.Warn("the index was not compacted", zap.Error(err))
	}
}

// listTables returns which tables there are at the moment, how many of them hold the newest records, and their size in bytes.
func (x *Index) listTables() (s *store, ids []uint64, newest int, size int64) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if x.live == nil || x.live.dir == "" {
		return nil, nil, 0, 0
	}
	for _, t := range x.live.db.Tables() {
		if t.Level == 0 {
			newest++
		}
		size += int64(t.OnDiskSize)
		ids = append(ids, t.ID)
	}
	return x.live, ids, newest, size
}

// rot says that a table can't be read. Its records are misses, and the next Open begins the index anew.
func (x *Index) rot(damage error) {
	if x.rotten.Swap(true) {
		return
	}
	if !damaged(damage) {
		x.opts.Log.Error("the index can't be read", zap.Error(damage))
		return
	}
	x.opts.Log.Error("the index is damaged: records that can't be read are learnt anew, all of them after the next start",
		zap.NamedError("damage", damage), zap.NamedError("mark", x.opts.mark(damage.Error())))
}

// inherit takes over what was learnt, and what was forgotten, while records were kept in memory. The caller holds mu: nobody reads
// or writes. What doesn't fit is lost.
//
// In memory Badger still has a mark of each deletion, of records too that were never there: it drops such marks when it merges
// tables, and there are none.
//
// What readers have loaded before is outdated by no record that is written here, for there was no newer one; but a claim that
// was confirmed is kept as such. So all that was read lately is forgotten, and what is on its way to be kept is not.
func (x *Index) inherit(old *store) {
	err := old.view(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.IteratorOptions{AllVersions: true}) // else it passes over what is deleted
		defer it.Close()
		var last []byte
		for it.Rewind(); it.Valid(); it.Next() {
			key := it.Item().KeyCopy(nil)
			if bytes.Equal(key, last) {
				continue // the newest version comes first
			}
			last = key
			if err := x.inheritRecord(key, it.Item()); err != nil {
				return err
			}
		}
		return nil
	})
	if err = errors.Join(err, old.close()); err != nil {
		x.opts.Log.Warn("not all records that were kept in memory are on disk", zap.Error(err))
	}
	x.tags.forgetAll()
	x.members.forgetAll()
	x.shown.forgetAll()
}

func (x *Index) inheritRecord(key []byte, item *badger.Item) error {
	if item.IsDeletedOrExpired() {
		return x.live.write(cost{}.plus(key, nil), func(db *badger.DB) error {
			return db.Update(func(txn *badger.Txn) error { return txn.Delete(key) })
		})
	}
	value, err := item.ValueCopy(nil)
	if err != nil {
		return err
	}
	switch kind, _ := splitKey(key); kind {
	case sweptKind:
		return nil // of versions in memory
	case memberKind:
		var have, now Member
		confirmed := func(b []byte) error { return have.decode(b) }
		err := x.live.view(func(txn *badger.Txn) error {
			item, err := txn.Get(key)
			if err != nil {
				return err
			}
			return item.Value(confirmed)
		})
		if err == nil && have.Confirmed && now.decode(value) == nil && !now.Confirmed {
			return nil
		}
	}
	return x.live.write(cost{}.plus(key, value), func(db *badger.DB) error {
		return db.Update(func(txn *badger.Txn) error { return txn.Set(key, value) })
	})
}

// occupied is how many bytes of the file system the index has, with what was moved aside.
func (o Options) occupied() (sum int64) {
	_ = filepath.WalkDir(o.Dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil // gone, or not to be counted
		}
		if info, err := e.Info(); err == nil {
			sum += info.Sys().(*syscall.Stat_t).Blocks * 512
		}
		return nil
	})
	return sum
}

// maxMargin is what is to be free beside what Badger writes next: the most that another process may write in the ten or
// twenty milliseconds that it takes to make a table. On small file systems it is less.
const maxMargin = 16 << 20

// roomFor reports whether there is room for n bytes of tables.
func (o Options) roomFor(n int64) bool {
	var st syscall.Statfs_t
	if !o.Roomy() || syscall.Statfs(o.Dir, &st) != nil {
		return false
	}
	if st.Files > 0 && st.Ffree < min(inodes, st.Files/8) {
		return false
	}
	margin := min(maxMargin, int64(st.Blocks)*st.Bsize/64)
	return int64(st.Bavail)*st.Bsize >= n+margin
}

// inodes is how many files there must still be room for: a log, and the tables that a merge makes.
const inodes = 64

// permit gives the owner, if that is us, leave to read and write, should somebody have taken it. What fails is told by who
// opens the file.
func (o Options) permit() {
	mended := false
	_ = filepath.WalkDir(o.Dir, func(path string, e fs.DirEntry, err error) error {
		info, statErr := os.Lstat(path)
		if statErr != nil {
			return nil
		}
		want := info.Mode().Perm() | 0o600
		if info.IsDir() {
			want |= 0o700
		}
		if info.Mode()&fs.ModeSymlink == 0 && want != info.Mode().Perm() {
			mended = os.Chmod(path, want) == nil || mended
		}
		return nil
	})
	if mended {
		o.Mended()
	}
}
