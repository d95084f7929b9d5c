package cache

import (
	"math"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache/disk"
	"github.com/entrepot/entrepot/cache/policy"
)

// recency is the policy and its lock, and how it learns of what was on disk at the start while it is in use already.
type recency struct {
	mu sync.Mutex
	// guards following
	policy *policy.Policy
	early  map[digest.Digest]bool // what was used before it was found on disk; nil once all has been found
	found  []arrival
}

// arrival is content that was found on disk: when it was kept, in seconds, and below that what the policy calls it. So sorting
// them is sorting them by time.
type arrival uint64

func (a arrival) ref() policy.Ref { return policy.Ref(uint32(a)) }

func newRecency() *recency {
	return &recency{policy: policy.New(), early: make(map[digest.Digest]bool)}
}

// turn is how much is done under the lock at once: some fraction of a millisecond's work, for requests wait for it.
const turn = 512

// adopt says that content was found on disk. It may go at once, before all that is known to have been used.
func (r *recency) adopt(found []disk.Entry) {
	for some := range slices.Chunk(found, turn) {
		r.adoptTurn(some)
	}
}

func (r *recency) adoptTurn(found []disk.Entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range found {
		ref, ok := r.policy.Adopt(e.Digest, e.Size)
		switch {
		case !ok:
		case r.early[e.Digest]:
			r.policy.Touch(e.Digest)
		default:
			kept := uint64(min(max(0, e.Kept.Unix()), math.MaxUint32))
			r.found = append(r.found, arrival(kept<<32|uint64(ref)))
		}
	}
}

// settle says that all has been found: from now on it goes as if it had been used when it was kept. It is called once.
//
// That takes many turns. What has not had its own yet was kept earlier than what has, and goes first, in the order in which it was
// found: so what goes meanwhile is always of the older part.
func (r *recency) settle() {
	r.mu.Lock()
	found := r.found
	r.found, r.early = nil, nil
	r.mu.Unlock()
	found = latest(found)
	slices.Sort(found)
	slices.Reverse(found)
	refs := make([]policy.Ref, 0, turn)
	for some := range slices.Chunk(found, turn) {
		refs = refs[:0]
		for _, a := range some {
			refs = append(refs, a.ref())
		}
		r.mu.Lock()
		r.policy.Settle(refs)
		r.mu.Unlock()
	}
}

// latest returns the arrivals less those whose content is gone and what the policy called it taken for content that arrived later.
// They are given in the order in which they came.
func latest(all []arrival) []arrival {
	last := policy.Ref(0)
	for _, a := range all {
		last = max(last, a.ref())
	}
	seen := make([]bool, last+1)
	kept := all[:0]
	slices.Reverse(all)
	for _, a := range all {
		if !seen[a.ref()] {
			seen[a.ref()] = true
			kept = append(kept, a)
		}
	}
	return kept
}

// add says that content of that size is on disk, and used.
func (r *recency) add(d digest.Digest, size int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.policy.Add(d, size)
}

// touch says that the content was used, if it is known.
func (r *recency) touch(d digest.Digest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if known, _ := r.policy.Touch(d); !known && r.early != nil {
		r.early[d] = true
	}
}

// len is how much content is known to be on disk.
func (r *recency) len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.policy.Len()
}

// has reports whether the content is known to be on disk. Content that is not may be there all the same, until all that was
// there at the start has been found.
func (r *recency) has(d digest.Digest) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.policy.Has(d)
}

// takeVictim forgets and returns what is to go first; ok is false if nothing is known.
func (r *recency) takeVictim() (victim policy.Entry, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.policy.TakeVictim()
}

// take forgets and returns content; ok is false if it isn't known. Of several that take the same, one gets it.
func (r *recency) take(d digest.Digest) (is policy.Entry, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.policy.Take(d)
}
