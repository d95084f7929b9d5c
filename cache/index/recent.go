package index

import "sync"

// maxRecent is how many bytes of records of one kind a generation holds. There are two generations and three kinds, so it is
// 6 MiB altogether: some twenty thousand records.
const maxRecent = 1 << 20

// overhead is what a record costs beside its strings, in bytes: its place in a map that is half empty.
const overhead = 200

// id names a record in a way that needs no bytes to be put together for looking it up.
type id[K any] interface {
	comparable
	key() []byte // in Badger
	owned() K    // the same, in memory that nobody else's strings share
	size() int   // of its strings, in bytes
}

// recent keeps records of a kind that were read lately, as they were decoded: Badger takes microseconds and a dozen
// allocations for each, and every request needs two or three. The zero value keeps none.
//
// It has two generations. What is found in the old one moves to the young one; when that is full it becomes the old one, and
// what nobody has asked for since it was there is forgotten.
//
// Nothing is kept here that was overwritten. A reader who finds nothing loads the record, and may come back with one that is
// being overwritten meanwhile. So it puts that only if no write has ended since it looked here. A writer writes first, and
// then forgets, which is when the write ends. A load that yields the old record has begun before the new one was visible,
// thus its reader looked here before the write ended: either it puts the record before that, and it is forgotten then; or after,
// and it is not put. Two writers of one record may forget in another order than they wrote, which is no matter, for they put
// nothing. Until a write ends, its record is read as old or new.
type recent[K id[K], V any] struct {
	mu sync.Mutex
	// guards following
	young, old map[K]held[V]
	room       int    // bytes that may still go into young
	writes     uint64 // that have ended
}

type held[V any] struct {
	v    V
	size int
}

// get returns a record; if it isn't here, writes is what put wants to know.
func (r *recent[K, V]) get(key K) (v V, writes uint64, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h, ok := r.young[key]
	if ok {
		return h.v, 0, true
	}
	if h, ok = r.old[key]; ok {
		r.addLocked(key, h)
	}
	return h.v, r.writes, ok
}

// put keeps a record that was loaded, whose strings take up size bytes, if that is not outdated.
func (r *recent[K, V]) put(key K, v V, size int, writes uint64) {
	h := held[V]{v, overhead + key.size() + size}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.writes == writes {
		r.addLocked(key.owned(), h)
	}
}

func (r *recent[K, V]) addLocked(key K, h held[V]) {
	if r.young == nil || h.size > r.room {
		if r.young, r.old = r.old, r.young; r.young == nil {
			r.young = make(map[K]held[V])
		}
		clear(r.young)
		r.room = maxRecent
	}
	if _, ok := r.young[key]; !ok { // else another reader has loaded the same
		r.young[key] = h
		r.room -= h.size
	}
}

// forget says that writes of these records have ended, or failed.
func (r *recent[K, V]) forget(keys ...K) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.writes++
	for _, key := range keys {
		delete(r.young, key)
		delete(r.old, key)
	}
}

// forgetAll says that any record may have been written.
func (r *recent[K, V]) forgetAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.writes++
	clear(r.young)
	clear(r.old)
	r.room = maxRecent
}
