// Package index keeps the records that are not content: what a tag named when it was last looked up, which digests
// belong to which repository, the last good answer of a listing. It is the only importer of Badger.
//
// Everything in it can be lost: the content itself lies in files, and upstream knows the rest. So records are written
// without waiting for the disk (they survive a kill, not a power cut), one that can't be read is one that isn't there, and
// an index that can't be opened is moved aside and begun anew.
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
	"github.com/dgraph-io/badger/v4/options"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.uber.org/zap"
)

// Repository names a repository of a registry.
type Repository struct {
	Registry, Name string
}

// String is the repository as people write it.
func (r Repository) String() string { return r.Registry + "/" + r.Name }

// Tag is what a tag named when upstream was last asked.
type Tag struct {
	Manifest ocispec.Descriptor // MediaType, Digest and Size
	Checked  time.Time          // when upstream last said so
	Changed  time.Time          // when it last said something else
}

// Member is the proof, or the claim, that a digest belongs to a repository.
type Member struct {
	MediaType string
	Size      int64 // -1 if unknown
	// Confirmed: upstream itself showed the digest in this repository. If not, a manifest of it names the digest.
	Confirmed bool
}

// Listing is the last good answer of a listing, such as the tags of a repository.
type Listing struct {
	ContentType string
	Link        string // upstream's Link header
	Body        []byte
	Checked     time.Time
}

// Index is an open index. Its methods may be called concurrently.
type Index struct {
	db    *badger.DB
	roomy func() bool
	lists listings

	// What was read lately. A digest that was shown once stays so: the records of that kind are never overwritten.
	tags    recent[tagID, Tag]
	members recent[memberID, Member]
	shown   recent[shownID, struct{}]
}

// ErrNoRoom says that a record was not written because the file system is nearly full: Badger's own writing would end the
// process there.
var ErrNoRoom = errors.New("index: no room on the file system")

// Open opens the index in dir, creating it if need be. One that is damaged is moved aside, to dir with the suffix
// ".damaged" and a time, which log is told. Records are written as long as roomy says that the file system has room. The
// caller sees to it that no other process has the index open.
//
// Badger reads some kinds of damage with a panic in a goroutine of its own, which ends the process. So a mark stands
// beside the index while it is being opened: if it stands there already, the last who tried did not survive.
func Open(dir string, roomy func() bool, log *zap.Logger) (*Index, error) {
	mark := filepath.Clean(dir) + ".opening"
	var db *badger.DB
	err := errors.New("the process ended while opening it")
	if _, statErr := os.Lstat(mark); statErr != nil {
		err = os.WriteFile(mark, nil, 0o640)
		if err == nil {
			db, err = open(dir, log)
		}
	}
	if err != nil && damaged(err) {
		if err = moveAside(dir, err, log); err == nil {
			db, err = open(dir, log)
		}
	}
	if err = errors.Join(err, os.RemoveAll(mark)); err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	x := &Index{db: db, roomy: roomy}
	return x, x.loadListings()
}

func moveAside(dir string, damage error, log *zap.Logger) error {
	aside := filepath.Clean(dir) + ".damaged-" + time.Now().UTC().Format("20060102T150405.000")
	if err := os.Rename(dir, aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(damage, err)
	}
	log.Error("the index is damaged: it was moved aside and begun anew; content is kept, freshness is lost",
		zap.String("aside", aside), zap.NamedError("damage", damage))
	return nil
}

func open(dir string, log *zap.Logger) (*badger.DB, error) {
	// The sizes are for hundreds of thousands of records of 200 bytes in tens of megabytes of memory. Values stay out of
	// the value log (all are below the threshold), so that it needs no collection.
	return badger.Open(badger.DefaultOptions(dir).
		WithLogger(logger{log.WithOptions(zap.IncreaseLevel(zap.WarnLevel)).Sugar()}).
		WithBypassLockGuard(true).
		WithMemTableSize(8 << 20).WithNumMemtables(2).WithBaseTableSize(2 << 20).WithNumCompactors(2).
		WithValueThreshold(1 << 20).WithValueLogFileSize(16 << 20).
		WithCompression(options.None).WithBlockCacheSize(0).
		WithMetricsEnabled(false).WithSyncWrites(false))
}

// damaged reports whether an index that can't be opened had better be begun anew: not when the disk or the permissions
// are what is wrong. Badger wraps errors so that only their text is left.
func damaged(err error) bool {
	for _, e := range []syscall.Errno{syscall.ENOSPC, syscall.EACCES, syscall.EPERM, syscall.EROFS, syscall.EIO, syscall.EMFILE, syscall.ENOMEM} {
		if strings.Contains(err.Error(), e.Error()) {
			return false
		}
	}
	return true
}

// Close writes what is pending and closes the index.
func (x *Index) Close() error { return x.db.Close() }

// Tag returns the record of a tag; ok is false if there is none.
func (x *Index) Tag(repo Repository, tag string) (rec Tag, ok bool) {
	key := tagID{repo, tag}
	rec, writes, ok := x.tags.get(key)
	if ok {
		return rec, true
	}
	return load(x, &x.tags, key, writes, decodeTag)
}

// SetTag records a tag.
func (x *Index) SetTag(repo Repository, tag string, rec Tag) error {
	defer x.tags.forget(tagID{repo, tag})
	return x.update(func(txn *badger.Txn) error { return txn.Set(tagKey(repo, tag), rec.encode()) })
}

// DeleteTag forgets a tag.
func (x *Index) DeleteTag(repo Repository, tag string) error {
	defer x.tags.forget(tagID{repo, tag})
	return x.db.Update(func(txn *badger.Txn) error { return txn.Delete(tagKey(repo, tag)) })
}

// Member returns what is known of a digest in a repository; ok is false if nothing is.
func (x *Index) Member(repo Repository, d digest.Digest) (rec Member, ok bool) {
	key := memberID{repo, d}
	rec, writes, ok := x.members.get(key)
	if ok {
		return rec, true
	}
	return load(x, &x.members, key, writes, decodeMember)
}

// Confirm records that upstream showed the digest in the repository.
func (x *Index) Confirm(repo Repository, d digest.Digest, rec Member) error {
	rec.Confirmed = true
	defer x.members.forget(memberID{repo, d})
	return x.update(func(txn *badger.Txn) error {
		return errors.Join(
			txn.Set(memberKey(repo, d), rec.encode()),
			txn.Set(shownKey(repo.Registry, d), nil))
	})
}

// Claim records that a manifest of the repository names these. What is confirmed stays so.
func (x *Index) Claim(repo Repository, named []ocispec.Descriptor) error {
	if !x.roomy() {
		return ErrNoRoom
	}
	var claimed []memberID
	defer func() { x.members.forget(claimed...) }() // after Cancel, which waits for what is being written
	batch := x.db.NewWriteBatch()
	defer batch.Cancel()
	for _, desc := range named {
		if have, ok := x.Member(repo, desc.Digest); ok && have.Confirmed {
			continue
		}
		claimed = append(claimed, memberID{repo, desc.Digest})
		rec := Member{MediaType: desc.MediaType, Size: desc.Size}
		if err := batch.Set(memberKey(repo, desc.Digest), rec.encode()); err != nil {
			return err
		}
	}
	return batch.Flush()
}

// Shown reports whether any repository of the registry was seen to hold the digest.
func (x *Index) Shown(registry string, d digest.Digest) bool {
	key := shownID{registry, d}
	_, writes, ok := x.shown.get(key)
	if !ok {
		_, ok = load(x, &x.shown, key, writes, decodeShown)
	}
	return ok
}

// Listing returns the last good answer of a listing; ok is false if there is none.
func (x *Index) Listing(repo Repository, resource string) (rec Listing, ok bool) {
	ok = x.get(listingKey(repo, resource), rec.decode)
	return rec, ok
}

// SetListing records a good answer. One too large for a record is not kept, which is no error.
func (x *Index) SetListing(repo Repository, resource string, rec Listing) error {
	key, value := listingKey(repo, resource), rec.encode()
	if len(value) > maxListing {
		return nil
	}
	if err := x.update(func(txn *badger.Txn) error { return txn.Set(key, value) }); err != nil {
		return err
	}
	return x.deleteAll(x.lists.add(string(key), len(value)))
}

// DeleteListing forgets a listing.
func (x *Index) DeleteListing(repo Repository, resource string) error {
	key := string(listingKey(repo, resource))
	x.lists.remove(key)
	return x.deleteAll([]string{key})
}

func (x *Index) deleteAll(keys []string) error {
	for _, key := range keys {
		if err := x.db.Update(func(txn *badger.Txn) error { return txn.Delete([]byte(key)) }); err != nil {
			return err
		}
	}
	return nil
}

func (x *Index) loadListings() error {
	return x.db.View(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.IteratorOptions{Prefix: listingPrefix})
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			x.lists.add(string(it.Item().KeyCopy(nil)), int(it.Item().ValueSize()))
		}
		return nil
	})
}

// update writes, if there is room.
func (x *Index) update(write func(*badger.Txn) error) error {
	if !x.roomy() {
		return ErrNoRoom
	}
	return x.db.Update(write)
}

// load reads a record that is not among the recent ones, and makes it one of them; size is that of its strings.
func load[K id[K], V any](x *Index, r *recent[K, V], key K, writes uint64, decode func([]byte) (v V, size int, err error)) (v V, ok bool) {
	var size int
	ok = x.get(key.key(), func(b []byte) (err error) {
		v, size, err = decode(b)
		return err
	})
	if ok {
		r.put(key, v, size, writes)
	}
	return v, ok
}

func decodeTag(b []byte) (rec Tag, size int, err error) {
	err = rec.decode(b)
	rec.Manifest.MediaType = interned(rec.Manifest.MediaType)
	return rec, len(b), err
}

func decodeMember(b []byte) (rec Member, size int, err error) {
	err = rec.decode(b)
	rec.MediaType = interned(rec.MediaType)
	return rec, len(b), err
}

func decodeShown([]byte) (rec struct{}, size int, err error) { return rec, 0, nil }

func (x *Index) get(key []byte, decode func([]byte) error) bool {
	err := x.db.View(func(txn *badger.Txn) error {
		item, err := txn.Get(key)
		if err != nil {
			return err
		}
		return item.Value(decode)
	})
	return err == nil
}

// logger is Badger's view of zap.
type logger struct{ *zap.SugaredLogger }

func (l logger) Warningf(format string, args ...any) { l.Warnf(strings.TrimSpace(format), args...) }
