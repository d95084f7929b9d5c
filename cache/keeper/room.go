package keeper

import (
	"context"
	"errors"
	"io"

	"github.com/opencontainers/go-digest"
	"go.uber.org/zap"

	"github.com/entrepot/entrepot/cache/disk"
)

// Landing is content that is landing. When it needs more room, that is made.
type Landing struct {
	*disk.Partial
	k    *Keeper
	size int64
}

// WriteAt writes, and makes room for that.
func (l *Landing) WriteAt(b []byte, off int64) (n int, err error) {
	err = l.k.withRoom(int64(len(b)), func() (err error) {
		n, err = l.Partial.WriteAt(b, off)
		return err
	})
	return n, err
}

// Reserve makes room for all of the content.
func (l *Landing) Reserve() error { return l.k.withRoom(l.size, l.Partial.Reserve) }

// Create makes a file for content of that size that is going to land, and room for what is going to be written first.
func (k *Keeper) Create(d digest.Digest, size, first int64) (*Landing, error) {
	l := &Landing{k: k, size: size}
	err := k.withRoom(first, func() (err error) {
		l.Partial, err = k.disk.Create(d, size, first)
		return err
	})
	if err != nil {
		return nil, err
	}
	return l, nil
}

// Parked opens what is left of an earlier transfer of the content, see disk.Store.Parked.
func (k *Keeper) Parked(d digest.Digest) (l *Landing, state []byte, intact, ok bool) {
	p, state, intact, ok := k.disk.Parked(d)
	if !ok {
		return nil, nil, false, false
	}
	return &Landing{p, k, p.Size()}, state, intact, true
}

// Put keeps small content that was verified, unless it is kept already.
func (k *Keeper) Put(d digest.Digest, content []byte) error {
	if k.disk.Has(d) {
		return nil
	}
	return k.withRoom(int64(len(content)), func() error { return k.disk.Put(d, content) })
}

// withRoom retries op, which needs room for size bytes, giving other content up until there is room for it or nothing left.
//
// What is evicted may free nothing, where a snapshot of the file system has it too. So eviction for one thing ends at a few
// times its size.
func (k *Keeper) withRoom(size int64, op func() error) error {
	for evicted := int64(0); ; {
		err := op()
		if err == nil {
			return nil
		}
		if !errors.Is(err, disk.ErrFull) || evicted > 4*size+64<<20 {
			k.Trouble(err)
			return err
		}
		freed, ok := k.giveUp()
		if !ok {
			return err
		}
		evicted += freed
	}
}

// parkedShare is what part of all content may be parked before that is given up first: an eighth. What is parked spares a transfer
// to who comes back for it, but most of it nobody does, and nothing else would ever remove it.
const parkedShare = 8

// giveUp removes what is unfinished and parked, or what is to be evicted, and returns how many bytes were evicted; ok is false if
// nothing can be removed.
func (k *Keeper) giveUp() (evicted int64, ok bool) {
	if k.disk.ParkedBytes() > k.disk.Used()/parkedShare && k.disk.DropOldestParked() {
		return 0, true
	}
	if evicted, ok = k.evict(); ok {
		return evicted, true
	}
	return 0, k.disk.DropOldestParked()
}

// relieve evicts until all is below the lower mark, so that who comes next need not wait for it; ok is false if that can't be done. What
// was to be evicted is evicted once: where that frees nothing, for a snapshot of the file system has it too or somebody takes what gets
// free, all would go.
func (k *Keeper) relieve(ctx context.Context) (ok bool) {
	for left := k.disk.Excess(); k.disk.Excess() > 0 && ctx.Err() == nil; {
		freed, ok := k.giveUp()
		if !ok || left <= 0 {
			return false
		}
		left -= freed
	}
	return true
}

// mostInUse is how many victims are passed over because somebody has them open, before eviction gives up: as many clients as
// read old content at once.
const mostInUse = 1000

// evict removes what is to go first, and returns its size; ok is false if nothing can be removed.
//
// The order matters to who holds content in memory: it is told after the content has left recency, and before its file goes.
func (k *Keeper) evict() (freed int64, ok bool) {
	if trouble := k.health.now(); trouble != "" && trouble != full { // nothing can be removed either, and to try would lose the order
		return 0, false
	}
	for range mostInUse {
		victim, ok := k.recency.takeVictim()
		if !ok {
			return 0, false
		}
		names := k.namesOf(victim.Digest, victim.Size)
		k.removed(victim.Digest)
		k.changes.note(victim.Digest, false) // before its file goes, for who finds it gone
		err := k.disk.Evict(victim.Digest, victim.Size)
		if err != nil { // it stays, as if it had just been used
			k.changes.note(victim.Digest, true)
			k.recency.add(victim.Digest, victim.Size)
		}
		switch {
		case errors.Is(err, disk.ErrInUse):
			continue
		case err != nil:
			if !k.Trouble(err) {
				k.log.Warn("not evicted", zap.Stringer("digest", victim.Digest), zap.Error(err))
			}
			return 0, false
		}
		k.recency.demote(names, victim.Used)
		k.evicted.Add(1)
		k.evictedBytes.Add(uint64(victim.Size))
		k.log.Debug("evicted", zap.Stringer("digest", victim.Digest))
		return victim.Size, true
	}
	return 0, false
}

// Evict removes what is to go first; ok is false if nothing can be removed.
func (k *Keeper) Evict() (ok bool) {
	_, ok = k.evict()
	return ok
}

func (k *Keeper) removed(d digest.Digest) {
	if k.opts.Removed != nil {
		k.opts.Removed(d)
	}
}

// maxNaming is how large content may be that is looked into for what it names when it is evicted, in bytes: manifests of real images
// have 1 to 30 KiB.
const maxNaming = 256 << 10

// namesOf is what content is made of, if it is a manifest: with it goes what only it needed.
func (k *Keeper) namesOf(d digest.Digest, size int64) []digest.Digest {
	if k.opts.Names == nil || size > maxNaming {
		return nil
	}
	f, err := k.disk.Blob(d)
	if err != nil {
		return nil
	}
	defer f.Close()
	body, err := io.ReadAll(io.LimitReader(f, maxNaming))
	if err != nil {
		return nil
	}
	return k.opts.Names(body)
}
