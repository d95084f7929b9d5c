package fill

import (
	"context"
	"hash"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// flight is the filling of one content, and the state that its readers follow.
type flight struct {
	opts   Options
	all    *Fills
	digest digest.Digest
	src    Source // of the reader that began it
	expect int64
	first  Part // what that reader is going to read
	single bool // one worker is to fetch the whole: wrong bytes came when several did

	hashing sync.Mutex // never taken with mu held; mu is taken with it held
	// guards following
	hasher hash.Hash // of the bytes [0, hashed)
	hashed int64

	saving sync.Mutex // held while the state is written; mu and hashing are taken with it held
	// guards following
	saved int64 // how many bytes had landed when it last was; with mu held too

	mu sync.Mutex
	// guards following
	file       File  // nil until the source has answered
	size       int64 // of the whole content; -1 until the source has answered
	have       spans // what has landed
	workers    map[*worker]bool
	running    sync.WaitGroup  // of the workers; Add only while not stopping
	asked      bool            // the source has answered; if not, all that was wanted was parked
	sources    []Source        // that the workers may ask: the first, and those of readers that came later
	origins    map[origin]bool // who has sent something of it
	resumed    bool            // what was parked was taken up
	stated     bool            // a source has stated the size; if not, it is the one that was expected
	validator  string          // of the latest stream
	crowd      crowd
	waited     time.Duration // by workers for their source, since the crowd last looked
	whole      bool          // all of it is to be fetched
	openFrom   int64         // from where on a reader has asked for all that follows; it may take less
	windowed   bool          // nobody reads on to the end for sure: it is asked for in windows
	stopping   bool          // no more workers are started
	failure    error         // of a worker
	landedThen int64         // how much had landed when a worker last gave up; -1: none has
	verified   bool          // all has landed and the digest matched
	ended      bool          // no more will come
	err        error         // why, once ended
	refs       int           // the flight itself and each reader; the file is closed with the last
	attached   int           // readers now
	abandoned  bool          // it goes on although no reader is attached, and is counted as such
	surplus    bool          // there are too many of those: it is parked
	readers    int           // readers ever
	changed    chan struct{}

	ctx  context.Context // of the workers
	stop context.CancelCauseFunc
}

// origin is one that a source has named.
type origin struct {
	src  Source
	name string
}

func newFlight(all *Fills, d digest.Digest, expect int64, src Source, first Part) *flight {
	return &flight{opts: all.opts, all: all, digest: d, expect: expect, src: src, first: first, hasher: d.Algorithm().Hash(),
		size: -1, openFrom: math.MaxInt64, landedThen: -1, windowed: first.Ranged && !all.opts.Whole, workers: make(map[*worker]bool), sources: []Source{src}, origins: make(map[origin]bool),
		crowd: newCrowd(), refs: 1, changed: make(chan struct{})}
}

// refer counts a reader that is going to be made by reader. It is called under the lock of the flights, so that a flight
// that can be found can't lose its last reference at the same time.
func (f *flight) refer() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refs++
	f.attached++
	f.readers++
	f.countLocked()
}

// maxSources is how many sources a flight remembers: those of a crowd of readers are hardly ever more than a few.
const maxSources = 4

// offer takes down the source of a reader that came later: the workers turn to it when those before it have been asked in
// vain.
func (f *flight) offer(src Source) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.sources) < maxSources && !slices.Contains(f.sources, src) {
		f.sources = append(f.sources, src)
	}
}

// maxAbandoned is how many flights may go on although no reader is left: the layers of a few pulls that were given up.
const maxAbandoned = 16

// countLocked counts the flight if it goes on for the whole without readers, and uncounts it if not. It is called whenever
// one of that changes.
func (f *flight) countLocked() {
	abandoned := f.attached == 0 && f.whole && !f.ended
	switch {
	case abandoned && !f.abandoned:
		f.surplus = f.all.abandoned.Add(1) > maxAbandoned
	case !abandoned && f.abandoned:
		f.all.abandoned.Add(-1)
		f.surplus = false
	}
	f.abandoned = abandoned
}

// reader waits until the source has answered and makes the reader that refer counted. After an error it is uncounted.
func (f *flight) reader(ctx context.Context, part Part) (*Reader, error) {
	err := f.await(ctx, func() bool {
		ending := f.stopping && !f.completeLocked() // the reader comes too late: it gets what the flight ends with
		return f.file != nil && (f.size > 0 || f.verified) && !ending
	})
	if err != nil {
		f.leave()
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	want := part.of(f.size)
	if want == (span{0, f.size}) {
		f.wholeLocked()
		f.windowed = f.windowed && part.Ranged
	}
	toTheEnd := part.From >= 0 && part.To == math.MaxInt64
	if toTheEnd {
		f.openFrom = min(f.openFrom, want.from)
	}
	return &Reader{ctx: ctx, f: f, size: f.size, want: want, toTheEnd: toTheEnd}, nil
}

// await returns nil once ready, which is called with the lock held, says so, and an error when that can't come any more.
func (f *flight) await(ctx context.Context, ready func() bool) error {
	for {
		f.mu.Lock()
		ok, ended, err, changed := ready(), f.ended, f.err, f.changed
		f.mu.Unlock()
		switch {
		case ok:
			return nil
		case ended:
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// update changes the state and wakes who waits for a change.
func (f *flight) update(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
	f.wakeLocked()
}

func (f *flight) wakeLocked() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// end tells the readers that nothing more will come, and returns how many there have been.
func (f *flight) end(err error) (readers int) {
	f.update(func() {
		f.ended, f.err = true, err
		readers = f.readers
		f.countLocked()
	})
	f.unref()
	return readers
}

func (f *flight) leave() {
	f.update(func() {
		f.attached--
		f.countLocked()
		switch {
		case !f.wantedLocked():
			for w := range f.workers {
				w.cut(errParked) // a source that keeps silent is not waited for
			}
		case f.whole:
			f.wholeLocked() // its workers may have stopped while it was one too many
		}
	})
	f.unref()
}

func (f *flight) unref() {
	f.mu.Lock()
	f.refs--
	last := f.refs == 0
	f.mu.Unlock()
	if last && f.file != nil { // nobody else is left to write it
		f.file.Close()
	}
}

// readableLocked is up to where a reader at off may read at the moment. From one that reads to the end, the last byte is
// held back until the digest has matched. Of content of which only parts are wanted, nobody can tell; and who asks for a
// part, such as the table at the end of an archive, does not wait for the whole.
func (f *flight) readableLocked(off int64, toTheEnd bool) int64 {
	end := f.have.end(off)
	if end == f.size && toTheEnd && f.whole && !f.verified {
		return f.size - 1
	}
	return end
}

func (f *flight) sizeNow() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.size
}

func (f *flight) landedNow() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.have.total()
}

func (f *flight) readersNow() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.attached
}
