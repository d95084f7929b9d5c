package keeper

import (
	"math"
	"slices"
	"sync"
	"time"

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
	pinned map[digest.Digest]bool // what is to stay, whether it is here or not
	uses   []use                  // that were not taken down yet
}

// use is that content was used, for the first time in a period.
type use struct {
	digest digest.Digest
	at     time.Time
}

// maxUses is how many uses wait to be taken down at most; those beyond are forgotten by a restart, as they are by a kill.
const maxUses = 100_000

// arrival is content that was found on disk: when it was last used, in seconds, and below that what the policy calls it. So
// sorting them is sorting them by time.
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
			continue
		case r.early[e.Digest]:
			r.policy.Touch(e.Digest)
		default:
			used := uint64(min(max(0, e.Used.Unix()), math.MaxUint32))
			r.found = append(r.found, arrival(used<<32|uint64(ref)))
		}
		r.pinLocked(e.Digest)
	}
}

// settle says that all has been found: from now on it goes by when it was used before the start. It is called once.
//
// That takes many turns. What has not had its own yet was used earlier than what has, and goes first, in the order in which it was
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
	r.pinLocked(d)
}

// touch says that the content was used at that time, if it is known.
func (r *recency) touch(d digest.Digest, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	known, first := r.policy.Touch(d)
	if !known && r.early != nil && !r.early[d] {
		r.early[d], first = true, true
	}
	if first {
		r.usedLocked(d, at)
	}
}

// takeUses returns the uses that are to be taken down.
func (r *recency) takeUses() []use {
	r.mu.Lock()
	defer r.mu.Unlock()
	uses := r.uses
	r.uses = nil
	return uses
}

// turn begins a new period: the next use of each content is to be taken down.
func (r *recency) turn() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.policy.Turn()
}

// demote has content go next that was not used since.
func (r *recency) demote(content []digest.Digest, since uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range content {
		r.policy.Demote(d, since)
	}
}

// pin has content stay, now or when it comes.
func (r *recency) pin(content []digest.Digest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pinned == nil {
		r.pinned = make(map[digest.Digest]bool)
	}
	for _, d := range content {
		r.pinned[d] = true
		r.pinLocked(d)
	}
}

// setPinned has that content stay, and no other. The map is recency's from now on.
func (r *recency) setPinned(content map[digest.Digest]bool, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	was := r.pinned
	r.pinned = content
	for d := range was {
		if !content[d] {
			r.policy.Pin(d, false)
			r.usedLocked(d, at)
		}
	}
	for d := range content {
		if !was[d] {
			r.pinLocked(d)
		}
	}
}

func (r *recency) pinLocked(d digest.Digest) {
	if r.pinned[d] && r.policy.Has(d) {
		r.policy.Pin(d, true)
		r.usedLocked(d, time.Time{})
	}
}

// usedLocked has a use taken down. What is pinned is used for ever: who removes content before it is known what is pinned removes
// what was used longest ago.
func (r *recency) usedLocked(d digest.Digest, at time.Time) {
	if r.pinned[d] {
		at = forever
	}
	if len(r.uses) < maxUses {
		r.uses = append(r.uses, use{d, at})
	}
}

// forever is later than any use, and a time that file systems can write.
var forever = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)

// isPinned reports whether content is to stay.
func (r *recency) isPinned(d digest.Digest) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.pinned[d]
}

// pinnedNow is how much content is to stay.
func (r *recency) pinnedNow() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.policy.Pinned()
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
