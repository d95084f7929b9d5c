// Package index keeps the records that are not content: what a tag named when it was last looked up, which digests
// belong to which repository, the last good answer of a listing. It is the only importer of Badger.
//
// Everything in it can be lost: the content itself lies in files, and upstream knows the rest. So records are written
// without waiting for the disk (they survive a kill, not a power cut), one that can't be read is one that isn't there, and
// an index that can't be opened is moved aside and begun anew. Where there is no room, records are refused or kept in memory:
// the process lives on.
package index

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
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
	opts Options

	// tables is held by who makes Badger rewrite its tables, or takes the store away. It is taken before mu.
	tables sync.Mutex
	// guards following
	lock  *os.File
	stuck bool // Badger was left in the middle of opening the directory

	mu sync.RWMutex // held for reading while the store is used, for writing while it is exchanged: never over more
	// guards following
	live  *store // nil: closed
	begun string

	lists listings
	stats atomic.Pointer[Stats] // of the last Sweep
	bytes atomic.Int64          // when last measured
	// rotten: a table can't be read. The tables stay as they are, and are moved aside by the next who opens them.
	rotten atomic.Bool

	// What was read lately. A digest that was shown stays so until Sweep forgets it: Confirm does not change what shown has.
	tags    recent[tagID, Tag]
	members recent[memberID, Member]
	shown   recent[shownID, struct{}]
}

// ErrNoRoom says that a record was not written, because the file system or what the cache may take of it is full.
var ErrNoRoom = errors.New("index: no room for records")

var errClosed = errors.New("index: closed")

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
	return x.set(tagKey(repo, tag), rec.encode())
}

// DeleteTag forgets a tag.
func (x *Index) DeleteTag(repo Repository, tag string) error {
	defer x.tags.forget(tagID{repo, tag})
	return x.remove(tagKey(repo, tag))
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
	return x.update(records{{memberKey(repo, d), rec.encode()}, {shownKey(repo.Registry, d), nil}})
}

// Claim records that a manifest of the repository names these. What is confirmed stays so.
func (x *Index) Claim(repo Repository, named []ocispec.Descriptor) error {
	var claimed []memberID
	var recs records
	for _, desc := range named {
		if have, ok := x.Member(repo, desc.Digest); ok && have.Confirmed {
			continue
		}
		rec := Member{MediaType: desc.MediaType, Size: desc.Size}
		claimed = append(claimed, memberID{repo, desc.Digest})
		recs = append(recs, record{memberKey(repo, desc.Digest), rec.encode()})
	}
	defer func() { x.members.forget(claimed...) }() // after Cancel, which waits for what is being written
	return x.write(recs.cost(), func(db *badger.DB) error {
		batch := db.NewWriteBatch()
		defer batch.Cancel()
		for _, r := range recs {
			if err := batch.Set(r.key, r.value); err != nil {
				return err
			}
		}
		return batch.Flush()
	})
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
	if err := x.set(key, value); err != nil {
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
		if err := x.remove([]byte(key)); err != nil {
			return err
		}
	}
	return nil
}

// record is one in Badger's form.
type record struct{ key, value []byte }

type records []record

func (rs records) cost() (c cost) {
	for _, r := range rs {
		c = c.plus(r.key, r.value)
	}
	return c
}

func (x *Index) set(key, value []byte) error { return x.update(records{{key, value}}) }

// update writes records, all or none of them.
func (x *Index) update(recs records) error {
	return x.write(recs.cost(), func(db *badger.DB) error {
		return db.Update(func(txn *badger.Txn) error {
			for _, r := range recs {
				if err := txn.Set(r.key, r.value); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

func (x *Index) remove(key []byte) error {
	return x.write(cost{}.plus(key, nil), func(db *badger.DB) error {
		return db.Update(func(txn *badger.Txn) error { return txn.Delete(key) })
	})
}

// write has do write what costs so much, if there is room.
func (x *Index) write(c cost, do func(*badger.DB) error) error {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if x.live == nil {
		return errClosed
	}
	return x.live.write(c, do)
}

// view has look read.
func (x *Index) view(look func(*badger.Txn) error) error {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if x.live == nil {
		return errClosed
	}
	err := x.live.view(look)
	if errors.Is(err, errRotten) {
		x.rot(err)
	}
	return err
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
	err := x.view(func(txn *badger.Txn) error {
		item, err := txn.Get(key)
		if err != nil {
			return err
		}
		return item.Value(decode)
	})
	return err == nil
}
