package cache

import (
	"container/list"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache/disk"
)

// recency knows in which order the content on disk was last used. The zero value knows of none.
type recency struct {
	mu sync.Mutex
	// guards following
	order list.List // of used, the most recently used in front
	at    map[digest.Digest]*list.Element
}

// used is content on disk.
type used struct {
	digest digest.Digest
	size   int64
}

// load makes a fresh recency know what was on disk at the start, as if it had been used when it was kept.
func (r *recency) load(found []disk.Entry) {
	slices.SortFunc(found, func(a, b disk.Entry) int { return a.Kept.Compare(b.Kept) })
	for _, e := range found {
		r.add(e.Digest, e.Size)
	}
}

// add says that content of that size is on disk, and used.
func (r *recency) add(d digest.Digest, size int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.at == nil {
		r.at = make(map[digest.Digest]*list.Element)
	}
	if e, ok := r.at[d]; ok {
		r.order.MoveToFront(e)
		return
	}
	r.at[d] = r.order.PushFront(used{d, size})
}

// touch says that the content was used, if it is known.
func (r *recency) touch(d digest.Digest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e, ok := r.at[d]; ok {
		r.order.MoveToFront(e)
	}
}

// takeOldest forgets and returns what was used least recently; ok is false if nothing is known.
func (r *recency) takeOldest() (oldest used, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.order.Back()
	if e == nil {
		return used{}, false
	}
	oldest = r.order.Remove(e).(used)
	delete(r.at, oldest.digest)
	return oldest, true
}

// take forgets and returns content; ok is false if it isn't known. Of several that take the same, one gets it.
func (r *recency) take(d digest.Digest) (is used, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e, ok := r.at[d]
	if !ok {
		return used{}, false
	}
	delete(r.at, d)
	return r.order.Remove(e).(used), true
}
