package keeper

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

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

// Blob opens content for reading; ok is false if there is none that is fit to be read. Content that has changed since it was verified is
// verified first, once however many ask for it: it may have been touched, or put there by somebody else, and be right all the same.
// The caller closes it.
func (k *Keeper) Blob(ctx context.Context, d digest.Digest) (f *disk.Content, ok bool) {
	f, err := k.disk.Blob(d)
	if err == nil && f.Verified.IsZero() {
		f.Close()
		if err = k.verify(ctx, d); err == nil {
			f, err = k.disk.Blob(d)
		}
	}
	switch {
	case err == nil:
		k.Used(d)
		return f, true
	case missing(err):
		k.lost(d)
	case errors.Is(err, errContent):
		k.Drop(d, DamagedContent)
	case ownFault(err):
		k.log.Warn("kept content can't be read now", zap.Stringer("digest", d), zap.Error(err))
	case ctx.Err() == nil && !errors.Is(err, context.Canceled):
		k.log.Warn("kept content can't be read", zap.Stringer("digest", d), zap.Error(err))
		k.Drop(d, DamagedUnreadable)
	}
	return nil, false
}

// ownFault reports whether an error is the process's and not the content's: it has too many files open, or no memory.
func ownFault(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOMEM)
}

// errContent says that kept content is not what its digest stands for.
var errContent = errors.New("kept content does not match its digest")

// verify reads content through, and takes down that it is right.
func (k *Keeper) verify(ctx context.Context, d digest.Digest) error {
	done := k.reading.DoChan(string(d), func() (any, error) {
		f, err := k.disk.Blob(d)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		at, v := k.opts.Now(), d.Verifier()
		if _, err := io.Copy(v, f); err != nil {
			return nil, err
		}
		if !v.Verified() {
			return nil, errContent
		}
		return nil, k.stamp(f, at)
	})
	select {
	case r := <-done:
		return r.Err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// stamp takes down that content was verified. Where that can't be written it is not known later, which is no trouble.
func (k *Keeper) stamp(f *disk.Content, at time.Time) error {
	if err := k.disk.Stamp(f, at); err != nil {
		k.log.Debug("not taken down as verified", zap.Error(err))
	}
	return nil
}

// lost takes down that the file of content is gone, if it was known: it was not evicted then, but removed behind our back. Content
// that was removed before the start is known by the list of what was kept.
func (k *Keeper) lost(d digest.Digest) {
	is, ok := k.recency.take(d)
	if !ok {
		if k.opts.Listed != nil && k.opts.Listed(d) && !k.changes.went(d) {
			k.wounds.note(d, DamagedMissing)
		}
		return
	}
	if k.disk.Has(d) { // it came back, between the look at the disk and that at recency
		k.recency.add(d, is.Size)
		return
	}
	if k.remove(d, is.Size, DamagedMissing) != nil {
		k.recency.add(d, is.Size)
	}
}

// Drop removes content that turned out to be unfit to be served: it will be fetched again.
func (k *Keeper) Drop(d digest.Digest, damage Damage) {
	is, ok := k.recency.take(d)
	if !ok { // the census has not come to it, or somebody else is at it
		is.Size, ok = k.disk.Meet(d)
	}
	if !ok && k.disk.Has(d) {
		return
	}
	err := k.remove(d, is.Size, damage) // if it was no file it is not counted, and has no size
	if err != nil && ok {
		k.recency.add(d, is.Size) // it is still there, and counted: who reads it next tries again, and it may be evicted
	}
}

func (k *Keeper) remove(d digest.Digest, size int64, damage Damage) error {
	k.removed(d)
	k.wounds.note(d, damage)
	k.changes.note(d, false)
	k.log.Error("kept content is damaged: it was removed, to be fetched again", zap.Stringer("digest", d), zap.String("damage", string(damage)))
	err := k.disk.Remove(d, size)
	if err != nil {
		k.log.Error("not removed", zap.Stringer("digest", d), zap.Error(err))
		k.Trouble(err)
	}
	return err
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

func (w *wounds) note(d digest.Digest, damage Damage) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.open == nil {
		w.open = make(map[digest.Digest]Damage)
	}
	if _, ok := w.open[d]; ok {
		return
	}
	w.count.Add(1)
	if len(w.open) < maxWounds {
		w.open[d] = damage
	}
}

// heal forgets and returns what had become of content; ok is false if it had not been damaged.
func (w *wounds) heal(d digest.Digest) (damage Damage, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	damage, ok = w.open[d]
	delete(w.open, d)
	return damage, ok
}
