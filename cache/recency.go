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
	order list.List // of digest.Digest, the most recently used in front
	at    map[digest.Digest]*list.Element
}

// load makes a fresh recency know what was on disk at the start, as if it had been used when it was kept.
func (r *recency) load(found []disk.Entry) {
	slices.SortFunc(found, func(a, b disk.Entry) int { return a.Kept.Compare(b.Kept) })
	for _, e := range found {
		r.add(e.Digest)
	}
}

// add says that the content is on disk, and used.
func (r *recency) add(d digest.Digest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.at == nil {
		r.at = make(map[digest.Digest]*list.Element)
	}
	if e, ok := r.at[d]; ok {
		r.order.MoveToFront(e)
		return
	}
	r.at[d] = r.order.PushFront(d)
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
func (r *recency) takeOldest() (d digest.Digest, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.order.Back()
	if e == nil {
		return "", false
	}
	d = r.order.Remove(e).(digest.Digest)
	delete(r.at, d)
	return d, true
}

// forget says that the content is gone.
func (r *recency) forget(d digest.Digest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e, ok := r.at[d]; ok {
		r.order.Remove(e)
		delete(r.at, d)
	}
}
