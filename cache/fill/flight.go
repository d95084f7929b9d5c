package fill

import (
	"context"
	"sync"

	"github.com/opencontainers/go-digest"
)

// flight is one transfer and the state that its readers follow.
type flight struct {
	digest digest.Digest
	src    Source
	expect int64

	mu sync.Mutex
	// guards following
	file     File  // nil until the source has answered
	size     int64 // of the whole content; -1 until the source has answered
	landed   int64 // the bytes [0, landed) are in the file
	verified bool  // they are all there and the digest matched
	ended    bool  // the worker is gone
	err      error // why it failed, once ended
	refs     int   // the worker and each reader; the file is closed with the last
	attached int   // readers now
	readers  int   // readers ever
	changed  chan struct{}
}

func newFlight(d digest.Digest, expect int64, src Source) *flight {
	return &flight{digest: d, src: src, expect: expect, size: -1, refs: 1, changed: make(chan struct{})}
}

// refer counts a reader that is going to be made by reader. It is called under the lock of the flights, so that a flight
// that can be found can't end its last reference at the same time.
func (f *flight) refer() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refs++
	f.attached++
	f.readers++
}

// reader waits until the source has answered and makes the reader that refer counted. After an error it is uncounted.
func (f *flight) reader(ctx context.Context) (*Reader, error) {
	err := f.await(ctx, func() bool { return f.file != nil && (f.size > 0 || f.verified) })
	if err != nil {
		f.leave()
		return nil, err
	}
	return &Reader{ctx: ctx, f: f, size: f.sizeNow()}, nil
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
	close(f.changed)
	f.changed = make(chan struct{})
}

// end tells the readers that nothing more will come, and returns how many there have been.
func (f *flight) end(err error) (readers int) {
	f.update(func() {
		f.ended, f.err = true, err
		readers = f.readers
	})
	f.unref()
	return readers
}

func (f *flight) leave() {
	f.mu.Lock()
	f.attached--
	f.mu.Unlock()
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

// readable is how far a reader may read at the moment: the last byte is held back until the digest has matched.
func (f *flight) readableLocked() int64 {
	if f.landed == f.size && !f.verified {
		return f.size - 1
	}
	return f.landed
}

func (f *flight) sizeNow() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.size
}

func (f *flight) readersNow() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.attached
}
