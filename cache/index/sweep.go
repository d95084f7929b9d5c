package index

import (
	"context"
	"encoding/binary"
	"errors"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/opencontainers/go-digest"
	"go.uber.org/zap"
)

// Stats are figures of an index.
type Stats struct {
	Bytes int64 // that it occupies, when Settle was last called
	// Records that were there at the last Sweep.
	Tags, Members, Shown, Listings, Listed, Public int
}

// Stats returns the latest figures.
func (x *Index) Stats() Stats {
	var s Stats
	if counted := x.stats.Load(); counted != nil {
		s = *counted
	}
	s.Bytes = x.bytes.Load()
	return s
}

// batch is how many records are looked at in one go, and deleted in one transaction.
const batch = 512

// errDone ends a scan.
var errDone = errors.New("done")

// seen is a record that scan came to.
type seen struct {
	record
	version uint64 // grows with each write to the index
}

// scan has look see the records whose key begins with prefix, in order, a batch at a time: each batch is as it is at that
// moment, and no lock is held while look is at it.
func (x *Index) scan(prefix []byte, look func([]seen) error) error {
	for from := prefix; from != nil; {
		found := make([]seen, 0, batch)
		err := x.view(func(txn *badger.Txn) error {
			it := txn.NewIterator(badger.IteratorOptions{Prefix: prefix}) // prefetches nothing: a goroutine would do it
			defer it.Close()
			for it.Seek(from); it.Valid() && len(found) < batch; it.Next() {
				item := it.Item()
				value, err := item.ValueCopy(nil)
				if err != nil {
					return err
				}
				found = append(found, seen{record{item.KeyCopy(nil), value}, item.Version()})
			}
			return nil
		})
		if err != nil {
			return err
		}
		from = nil
		if len(found) == batch {
			from = append(found[batch-1].key[:len(found[batch-1].key):len(found[batch-1].key)], 0) // the next key there can be
		}
		if err := look(found); err != nil {
			return err
		}
	}
	return nil
}

// Tags calls yield for each tag that is recorded, until it returns false. The index may be used meanwhile.
func (x *Index) Tags(yield func(Repository, string, Tag) bool) error {
	err := x.scan(tagPrefix, func(found []seen) error {
		for _, s := range found {
			var tag Tag
			_, parts := splitKey(s.key)
			if len(parts) != 3 || tag.decode(s.value) != nil {
				continue
			}
			if !yield(Repository{parts[0], parts[1]}, parts[2], tag) {
				return errDone
			}
		}
		return nil
	})
	if errors.Is(err, errDone) {
		return nil
	}
	return err
}

func (x *Index) loadListings() {
	err := x.scan(listingPrefix, func(found []seen) error {
		for _, s := range found {
			x.lists.add(string(s.key), len(s.value))
		}
		return nil
	})
	if err != nil {
		x.opts.Log.Warn("not all listings can be read", zap.Error(err))
	}
}

// Sweep forgets what is recorded of content that is not kept: that it belongs to a repository, or was shown in a registry, and
// which tags name it. It goes on behind everything else until it is through or ctx ends. kept is called once a record; it had
// better say yes to what is being transferred. A Sweep that ended early is as none; of one that is through, at is recorded as its
// time, see Swept.
//
// Only records go that were there at the last Sweep already, and were not written since. Content is recorded when a pull comes
// to it, and kept when the transfer ends. So a pull that began after the last Sweep loses nothing that it has recorded; and what
// an older record said of content that was evicted, upstream is asked for again. Versions tell: each write to the index has a
// higher one than those before, the highest at the last Sweep is recorded itself, and a record that is written again between
// the look at it and its deletion makes the deletion fail.
func (x *Index) Sweep(ctx context.Context, at time.Time, kept func(digest.Digest) bool) error {
	if _, ids, _, _ := x.listTables(); !x.rotten.Load() {
		if err := x.opts.checkTables(ids, whole); err != nil {
			x.rot(err) // else only misses would tell
		}
	}
	sw, err := x.newSweep(at, kept)
	if err != nil {
		return err
	}
	for _, kind := range []struct {
		prefix []byte
		n      *int
	}{
		{tagPrefix, &sw.left.Tags}, {memberPrefix, &sw.left.Members}, {shownPrefix, &sw.left.Shown},
		{listingPrefix, &sw.left.Listings}, {listedPrefix, &sw.left.Listed}, {publicPrefix, &sw.left.Public},
	} {
		err := x.scan(kind.prefix, func(found []seen) error {
			begun := time.Now()
			gone, err := sw.forget(found)
			*kind.n += len(found) - gone
			return errors.Join(err, rest(ctx, time.Since(begun)))
		})
		if err != nil {
			return err
		}
	}
	x.stats.Store(&sw.left)
	mark := appendTime(binary.AppendUvarint(nil, sw.now), at)
	return sw.write(cost{}.plus(sweptKey, mark), func(txn *badger.Txn) error { return txn.Set(sweptKey, mark) })
}

// sweep is one round of Sweep.
type sweep struct {
	x         *Index
	db        *badger.DB // the round ends if the store is exchanged: the versions are this one's
	at        time.Time
	kept      func(digest.Digest) bool
	last, now uint64 // versions: the highest at the last Sweep, and when this one began
	left      Stats
}

var errExchanged = errors.New("index: opened anew in the middle of a sweep")

func (x *Index) newSweep(at time.Time, kept func(digest.Digest) bool) (*sweep, error) {
	sw := &sweep{x: x, at: at, kept: kept}
	err := x.view(func(txn *badger.Txn) error {
		sw.db, sw.now = x.live.db, txn.ReadTs()
		item, err := txn.Get(sweptKey)
		if errors.Is(err, badger.ErrKeyNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		return item.Value(func(b []byte) error {
			sw.last, _ = binary.Uvarint(b)
			return nil
		})
	})
	return sw, err
}

// Swept returns the time of the last Sweep that was through, in whichever process; it is zero if none is known.
func (x *Index) Swept() (at time.Time) {
	x.get(sweptKey, func(b []byte) error {
		_, n := binary.Uvarint(b)
		d := decoder{rest: b[max(n, 0):]}
		if t := d.time(); d.done() == nil { // else the mark has none, as in indexes of earlier versions
			at = t
		}
		return nil
	})
	return at
}

func (sw *sweep) write(c cost, do func(*badger.Txn) error) error {
	return sw.x.write(c, func(db *badger.DB) error {
		if db != sw.db {
			return errExchanged
		}
		return db.Update(do)
	})
}

// forget deletes those of the records that are outdated, and returns how many.
func (sw *sweep) forget(found []seen) (gone int, err error) {
	var c cost
	var keys [][]byte
	for _, s := range found {
		if s.version <= sw.last && !sw.useful(s.record) {
			keys, c = append(keys, s.key), c.plus(s.key, nil)
		}
	}
	if len(keys) == 0 {
		return 0, nil
	}
	defer func() { sw.x.forgetRecent(keys) }()
	err = sw.write(c, func(txn *badger.Txn) error {
		gone = 0
		for _, key := range keys {
			item, err := txn.Get(key) // which makes the transaction fail if it is written meanwhile
			if errors.Is(err, badger.ErrKeyNotFound) || err == nil && item.Version() > sw.last {
				continue
			}
			if err == nil {
				err = txn.Delete(key)
			}
			if err != nil {
				return err
			}
			gone++
		}
		return nil
	})
	if errors.Is(err, badger.ErrConflict) {
		return 0, nil // they are the next Sweep's
	}
	return gone, err
}

// useful reports whether a record is of content that is kept, or is not of content. What is ill-formed is of no use.
func (sw *sweep) useful(r record) bool {
	kind, parts := splitKey(r.key)
	switch {
	case kind == listedKind:
		return sw.kept(listedDigest(r.key))
	case kind == tagKind && len(parts) == 3:
		var tag Tag
		return tag.decode(r.value) == nil && sw.kept(tag.Manifest.Digest)
	case kind == publicKind && len(parts) == 3:
		checked, err := decodePublic(r.value)
		return err == nil && sw.at.Sub(checked) < maxPublic
	case kind == memberKind && len(parts) == 3, kind == shownKind && len(parts) == 2:
		return sw.kept(digest.Digest(parts[len(parts)-1]))
	}
	return kind == listingKind
}

// forgetRecent says that records have been deleted.
func (x *Index) forgetRecent(keys [][]byte) {
	var tags []tagID
	var members []memberID
	var shown []shownID
	for _, key := range keys {
		switch kind, parts := splitKey(key); {
		case kind == tagKind && len(parts) == 3:
			tags = append(tags, tagID{Repository{parts[0], parts[1]}, parts[2]})
		case kind == memberKind && len(parts) == 3:
			members = append(members, memberID{Repository{parts[0], parts[1]}, digest.Digest(parts[2])})
		case kind == shownKind && len(parts) == 2:
			shown = append(shown, shownID{parts[0], digest.Digest(parts[1])})
		}
	}
	x.tags.forget(tags...)
	x.members.forget(members...)
	x.shown.forget(shown...)
}

// rest waits that long, or until ctx ends: what is done in the background takes half of a processor.
func rest(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return context.Cause(ctx)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
