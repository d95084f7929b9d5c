package index

import (
	"container/list"
	"sync"
)

const (
	// maxListing is the largest listing that is recorded, in bytes: a transaction holds little more.
	maxListing = 512 << 10

	// maxListings is how many bytes of listings are recorded. Their number is bounded by nothing else: each page size that a
	// client thinks of is a listing of its own.
	maxListings = 32 << 20
)

// listings knows which listings are recorded, and in which order. The zero value knows of none.
type listings struct {
	mu sync.Mutex
	// guards following
	order list.List // of listingEntry, the newest in front
	at    map[string]*list.Element
	bytes int
}

type listingEntry struct {
	key   string
	bytes int
}

// add says that a listing is recorded, and returns which are to be deleted to make up for it.
func (l *listings) add(key string, bytes int) (surplus []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.removeLocked(key)
	if l.at == nil {
		l.at = make(map[string]*list.Element)
	}
	bytes += len(key)
	l.at[key] = l.order.PushFront(listingEntry{key, bytes})
	l.bytes += bytes
	for l.bytes > maxListings {
		oldest := l.order.Back().Value.(listingEntry).key
		l.removeLocked(oldest)
		surplus = append(surplus, oldest)
	}
	return surplus
}

// remove says that a listing is not recorded any more.
func (l *listings) remove(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.removeLocked(key)
}

func (l *listings) removeLocked(key string) {
	if e, ok := l.at[key]; ok {
		l.bytes -= l.order.Remove(e).(listingEntry).bytes
		delete(l.at, key)
	}
}
