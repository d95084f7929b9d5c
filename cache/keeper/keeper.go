// Package keeper keeps content on disk: it makes room for what comes, gives up what is worth least, and notices what went bad.
//
// The life of content that is kept:
//
//   - Create and Put make room for it, evicting other content if need be; when it has got its name it is known, and may go.
//   - Blob opens it. Content that was changed behind our back, or put there by somebody else, is read through first. What is damaged
//     is removed, and so fetched again, which counts as healed.
//   - Behind the requests, what is above the lower mark is evicted, uses are taken down, and all content is read through
//     again and again (scrubbed), gently.
//   - Nothing is evicted that anybody has open, for that would free nothing, nor what is pinned.
//
// A disk that fails is no failure of a pull: what can't be kept is passed on by whoever asked. Health tells of it until the
// disk takes content again.
package keeper

import (
	"context"
	"errors"
	"io/fs"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
	"go.uber.org/zap"
	"golang.org/x/sync/singleflight"

	"github.com/entrepot/entrepot/cache/disk"
)

// Options say what is kept where, and for how long it is believed.
type Options struct {
	Dir     string
	MaxSize int64 // bytes on disk at most; 0: as much as MinFree leaves
	MinFree int64 // bytes of the file system to leave free

	ScrubRate   int64         // bytes a second at which content is read through; 0: so that it takes a week; -1: it is not
	VerifyAfter time.Duration // content that was verified longer ago is verified while it is served; 0: never

	// Removed is told of content that is no longer kept, before its file goes; may be nil.
	Removed func(digest.Digest)
	// Names returns the content that a manifest is made of, and nothing for what is none; may be nil.
	Names func(content []byte) []digest.Digest
	// Listed reports whether content was kept when that was last written down, see TakeChanges; may be nil.
	Listed func(digest.Digest) bool
	// Healed is told of content that was damaged, and is kept again; may be nil.
	Healed func(Damage)

	Log *zap.Logger
	Now func() time.Time
}

// Keeper keeps content. Its methods may be called concurrently.
type Keeper struct {
	opts    Options
	log     *zap.Logger
	disk    *disk.Store
	recency *recency
	wounds  wounds
	changes changes
	health  health

	reading   singleflight.Group // of content that is being verified before it is served
	unstamped unstamped
	ctx       context.Context // ends when Close is called
	stop      context.CancelFunc
	work      sync.WaitGroup // of what goes on for calls that may have returned

	rechecks chan digest.Digest // what was read unverified, and is to be verified soon

	evicted, evictedBytes   atomic.Uint64
	scrubbed, scrubbedBytes atomic.Uint64
	oldest                  atomic.Pointer[time.Time] // verification, at the last look at all there is
}

// Open opens a data directory, which no other process may have open; it waits a little for one that is about to end.
// Close closes it.
func Open(ctx context.Context, opts Options) (*Keeper, error) {
	k := &Keeper{opts: opts, log: opts.Log, recency: newRecency(), rechecks: make(chan digest.Digest, 64)}
	k.ctx, k.stop = context.WithCancel(context.Background())
	var err error
	// Recency learns of content from who made its name, and not from who kept it: of two that keep the same, one finds the name,
	// and may be so late to say so that the content was evicted meanwhile. It would be evicted, and uncounted, once more.
	k.disk, err = disk.Open(ctx, disk.Options{Dir: opts.Dir, MaxSize: opts.MaxSize, MinFree: opts.MinFree,
		Made: k.made, Mended: k.Mended, Spoiled: func(d digest.Digest) { k.wounds.note(d, DamagedContent) }})
	if err != nil {
		return nil, err
	}
	if k.disk.ReadOnly() {
		k.Trouble(syscall.EROFS)
	}
	for range k.disk.Leftovers() {
		k.Healed(DamagedLeftover)
	}
	return k, nil
}

// MakeRoom removes content until there is room for the index to be opened, or nothing is left. It is called before Run, if the
// index lies in the data directory.
func (k *Keeper) MakeRoom(ctx context.Context) {
	if !k.disk.Roomy() {
		removed := 0
		k.disk.Prune(ctx, func(d digest.Digest) {
			removed++
			k.changes.note(d, false)
		})
		k.log.Warn("the disk is full: content was removed, for the index to be opened", zap.Int("removed", removed))
	}
}

// Run does what is done behind the requests, until ctx ends: what was kept before is counted and becomes known, room is made
// ahead of need, content is scrubbed. It is called once.
func (k *Keeper) Run(ctx context.Context) {
	var all sync.WaitGroup
	all.Go(func() { k.Census(ctx) })
	all.Go(func() { k.scrub(ctx) })
	all.Go(func() { k.verifyRechecks(ctx) })
	k.tend(ctx)
	all.Wait()
}

// Close closes the data directory. No other method may be running, nor called afterwards.
func (k *Keeper) Close() error {
	k.stop()
	k.work.Wait()
	k.takeDownUses()
	return k.disk.Close()
}

// Census learns what was kept when the directory was opened. What it has not come to can be served, but not evicted. It is part of
// Run.
func (k *Keeper) Census(ctx context.Context) {
	begun, nothing := time.Now(), k.disk.Counted()
	err := k.disk.Scan(ctx, k.recency.adopt)
	if ctx.Err() != nil {
		return
	}
	k.recency.settle()
	if k.recency.len() > manyKept {
		debug.FreeOSMemory() // what the census took for a million of them is not needed again
	}
	switch {
	case err != nil:
		k.log.Error("not all of what is kept can be read: what can't goes on taking up room", zap.Error(err))
	case !nothing:
		k.log.Info("counted what is kept", zap.Int64("bytes", k.disk.Used()), zap.Duration("duration", time.Since(begun)))
	}
}

// manyKept is how much content makes a census worth tidying up after: a collection of all garbage takes some milliseconds.
const manyKept = 100_000

const (
	// tick is how often the keeper looks at what nobody tells it of: whether others have filled the file system, whether a disk
	// that failed works again.
	tick = time.Second

	// maxPause is how long the keeper rests at most when nothing can be evicted although something should be.
	maxPause = 5 * time.Minute

	// usesEvery is how often uses are taken down, and period for how long a content's first use stands for all: a kill
	// makes uses of the last minute forgotten, and one blob costs a write every ten minutes at most, however often it is asked for.
	usesEvery = time.Minute
	period    = 10 * time.Minute
)

// tend looks after the disk.
func (k *Keeper) tend(ctx context.Context) {
	every := time.NewTicker(tick)
	defer every.Stop()
	usesTaken, periodBegan := k.opts.Now(), k.opts.Now()
	relieveAt, pause := k.opts.Now(), tick
	k.disk.Restock()
	for {
		select {
		case <-k.disk.Pressed():
		case <-every.C:
			k.disk.Restock()
			k.examine()
		case <-ctx.Done():
			return
		}
		now := k.opts.Now()
		switch {
		case now.Before(relieveAt):
		case k.relieve(ctx):
			pause = tick
		default:
			relieveAt, pause = now.Add(pause), min(2*pause, maxPause)
		}
		if now.Sub(usesTaken) >= usesEvery {
			k.takeDownUses()
			usesTaken = now
		}
		if now.Sub(periodBegan) >= period {
			k.recency.turn()
			periodBegan = now
		}
	}
}

// takeDownUses writes when content was used lately.
func (k *Keeper) takeDownUses() {
	for _, u := range k.recency.takeUses() {
		// What is gone needs none, and what can't be written is an order that a restart forgets.
		_ = k.disk.Note(u.digest, u.at)
	}
}

// Has reports whether complete content is there.
func (k *Keeper) Has(d digest.Digest) bool { return k.disk.Has(d) }

// Knows reports whether content is known to be there: what was there at Open becomes so during the census. It asks no disk.
func (k *Keeper) Knows(d digest.Digest) bool { return k.recency.has(d) }

// Used says that content was used just now.
func (k *Keeper) Used(d digest.Digest) { k.recency.touch(d, k.opts.Now()) }

// Fits reports whether there could be room for content of that size.
func (k *Keeper) Fits(size int64) bool { return k.disk.Fits(size) }

// Pin has content stay, whether it is kept already or not.
func (k *Keeper) Pin(content []digest.Digest) { k.recency.pin(content) }

// Repin has that content stay, and no other. The map is the keeper's from now on.
func (k *Keeper) Repin(content map[digest.Digest]bool) { k.recency.setPinned(content, k.opts.Now()) }

// Pinned reports whether content is to stay.
func (k *Keeper) Pinned(d digest.Digest) bool { return k.recency.isPinned(d) }

// Counted reports whether all that was kept at Open is known.
func (k *Keeper) Counted() bool { return k.disk.Counted() }

// Roomy, Claim and Occupy are the index's share of the disk, see package disk.
func (k *Keeper) Roomy() bool        { return k.disk.Roomy() }
func (k *Keeper) Claim(n int64) bool { return k.disk.Claim(n) }
func (k *Keeper) Occupy(n int64)     { k.disk.Occupy(n) }

// RoomyAt is Roomy for an index that lies elsewhere.
func RoomyAt(dir string) bool { return disk.RoomyAt(dir) }

// Stats are momentary figures, and sums since Open.
type Stats struct {
	Bytes   int64  // of content, kept and reserved
	Total   int64  // of all that counts against the limit: content, what is beside it, and the index if it lies there
	Free    int64  // bytes of the file system
	Parked  int64  // bytes of Bytes
	Content int    // how many are kept
	Pinned  int    // how many are to stay
	Trouble string // why not all can be kept; empty if it can

	Evicted, EvictedBytes   uint64
	Scrubbed, ScrubbedBytes uint64
	Damaged                 uint64
	Oldest                  time.Time // verification of all that is kept; zero: not known
}

// Stats returns the figures of this moment.
func (k *Keeper) Stats() Stats {
	free, _ := k.disk.Free()
	s := Stats{
		Bytes: k.disk.Used(), Total: k.disk.Total(), Free: free, Parked: k.disk.ParkedBytes(),
		Content: k.recency.len(), Pinned: k.recency.pinnedNow(), Trouble: k.health.now(),
		Evicted: k.evicted.Load(), EvictedBytes: k.evictedBytes.Load(),
		Scrubbed: k.scrubbed.Load(), ScrubbedBytes: k.scrubbedBytes.Load(),
		Damaged: k.wounds.count.Load(),
	}
	if oldest := k.oldest.Load(); oldest != nil {
		s.Oldest = *oldest
	}
	return s
}

// Capacity is the size in bytes of the file system that holds, or will hold, a data directory.
func Capacity(dir string) (int64, error) { return disk.Capacity(dir) }

// missing reports whether an error says that there is no such file.
func missing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
