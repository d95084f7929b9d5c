package keeper

import (
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	"go.uber.org/zap"

	"github.com/entrepot/entrepot/cache/disk"
)

// Damage is what became of something that was kept.
type Damage string

// The kinds of damage.
const (
	DamagedContent    Damage = "content"    // other bytes than were kept
	DamagedMissing    Damage = "missing"    // its file is gone
	DamagedUnreadable Damage = "unreadable" // its file can't be read, or is none
	DamagedIndex      Damage = "index"      // the index was lost
	DamagedLeftover   Damage = "leftover"   // what lay among unfinished content was nobody's
)

// Damages are all of them.
var Damages = []Damage{DamagedContent, DamagedMissing, DamagedUnreadable, DamagedIndex, DamagedLeftover}

// lost takes down that the file of content is gone, if it was known: it was not evicted then, but removed behind our back. Content
// that was removed before the start is known by the list of what was kept.
func (k *Keeper) lost(d digest.Digest) {
	is, ok := k.recency.take(d)
	if !ok {
		// In this order: what is not among the changes any more is written down by now.
		if k.opts.Listed != nil && !k.changes.went(d) && k.opts.Listed(d) {
			if k.wounds.note(d, DamagedMissing) {
				k.log.Error("kept content is gone: somebody has removed its file", zap.Stringer("digest", d))
			}
		}
		return
	}
	if !k.disk.Lost(d, is.Size) { // it came back, between the look at the disk and that at recency
		k.recency.add(d, is.Size)
		return
	}
	k.gone(d, DamagedMissing)
}

// Unreadable removes content that can't be read, if it is the content and not the disk: one that fails for a moment would lose
// all that is asked for meanwhile.
func (k *Keeper) Unreadable(d digest.Digest, f *disk.Content, cause error) {
	if err := k.disk.Probe(); err != nil {
		k.Trouble(err)
		k.Trouble(cause)
		return
	}
	k.log.Warn("kept content can't be read", zap.Stringer("digest", d), zap.Error(cause))
	k.Drop(d, f, DamagedUnreadable)
}

// Drop removes content that turned out to be unfit to be served: it will be fetched again. f is the file that is unfit, or nil if none
// could be opened: what has the name by now may be another one, and right.
//
// Nobody else removes the content between take and the end, for recency gives it to one only; and as long as its name is there, nobody
// gives that to another file. So what is found out in between holds.
func (k *Keeper) Drop(d digest.Digest, f *disk.Content, damage Damage) {
	is, ok := k.recency.take(d)
	if !ok { // the census has not come to it, or somebody else is at it
		is.Size, ok = k.disk.Meet(d)
	}
	if !ok && (k.disk.Has(d) || !k.disk.Exists(d)) {
		return
	}
	if !k.still(d, f) {
		if ok {
			k.recency.add(d, is.Size)
		}
		return
	}
	k.gone(d, damage)
	if err := k.disk.Remove(d, is.Size); err != nil { // if it was no file it is not counted, and has no size
		if !k.Trouble(err) {
			k.log.Error("not removed", zap.Stringer("digest", d), zap.Error(err))
		}
		if ok {
			k.recency.add(d, is.Size) // it is still there, and counted: who reads it next tries again, and it may be evicted
		}
	}
}

// still reports whether the content's name is still that of the file, or if that is nil, still of something that can't be opened.
func (k *Keeper) still(d digest.Digest, f *disk.Content) bool {
	now, err := k.disk.Blob(d)
	if err != nil {
		return !ownFault(err)
	}
	defer now.Close()
	return f != nil && now.Same(f)
}

// gone says that content is going to be removed for damage.
func (k *Keeper) gone(d digest.Digest, damage Damage) {
	k.removed(d)
	k.wounds.note(d, damage)
	k.changes.note(d, false)
	k.log.Error("kept content is damaged, and removed, to be fetched again", zap.Stringer("digest", d), zap.String("damage", string(damage)))
}

// made is told of content that has got its name.
func (k *Keeper) made(d digest.Digest, size int64) {
	k.recency.add(d, size)
	k.changes.note(d, true)
	if damage, ok := k.wounds.heal(d); ok {
		k.Healed(damage)
	}
}

// Mended counts something that could not be read, and can be again.
func (k *Keeper) Mended() {
	k.wounds.count.Add(1)
	k.Healed(DamagedUnreadable)
}

// Healed counts something that was damaged and is right again.
func (k *Keeper) Healed(damage Damage) {
	if k.opts.Healed != nil {
		k.opts.Healed(damage)
	}
}

// maxWounds is how much damaged content is remembered until it is fetched again. What is beyond that heals uncounted.
const maxWounds = 10_000

// wounds are what was damaged and is not here again. The zero value is none.
type wounds struct {
	count atomic.Uint64 // of all that ever were

	mu sync.Mutex
	// guards following
	open map[digest.Digest]Damage
}

func (w *wounds) note(d digest.Digest, damage Damage) (isNew bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.open == nil {
		w.open = make(map[digest.Digest]Damage)
	}
	if _, ok := w.open[d]; ok {
		return false
	}
	w.count.Add(1)
	if len(w.open) < maxWounds {
		w.open[d] = damage
	}
	return true
}

// heal forgets and returns what had become of content; ok is false if it had not been damaged.
func (w *wounds) heal(d digest.Digest) (damage Damage, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	damage, ok = w.open[d]
	delete(w.open, d)
	return damage, ok
}
