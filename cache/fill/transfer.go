package fill

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/opencontainers/go-digest"
)

// transfer carries the content into a committed file, or returns why it could not: errParked when nobody wants more of it.
func (f *flight) transfer(ctx context.Context) error {
	if f.opts.Kept(f.digest) {
		return ErrKept
	}
	f.ctx, f.stop = context.WithCancelCause(ctx)
	defer f.stop(nil)
	if err := f.begin(); err != nil {
		return err
	}
	err := f.await(ctx, func() bool {
		switch {
		case f.completeLocked(), f.failure != nil, f.idleLocked():
			f.stopping = true // in the same moment: no worker starts any more
		}
		return f.stopping
	})
	f.update(func() { f.stopping = true })
	f.stop(err)
	f.running.Wait()
	// The workers are gone, and nobody else changes what follows.
	switch {
	case f.completeLocked():
		return f.finish()
	case f.failure != nil:
		err = f.failure
	case err == nil:
		err = errParked
	}
	f.park(err)
	return err
}

// begin takes up what was parked, asks the source for the first byte that is missing of what the first reader wants, and
// opens the file.
func (f *flight) begin() error {
	file, parked, have, size := f.takeUp()
	known := max(size, f.expect)
	if file == nil && known >= 0 && !f.opts.Fits(known) {
		return fmt.Errorf("%w: no room for %d bytes", ErrStorage, known)
	}
	want := f.wantFirst(known)
	at := have.gap(want.from, max(known, want.to)).from
	if size >= 0 && at >= want.to { // nothing of that is missing
		f.update(func() {
			f.openLocked(file, size, have)
			if f.whole {
				f.wholeLocked()
			}
		})
		return nil
	}
	length := f.lengthFirst(known, at, min(want.to, have.gap(at, known).to))
	ctx, cut := context.WithCancelCause(f.ctx)
	answer, err := f.src.Open(ctx, Request{Offset: at, Length: length, Waiting: f.awaited, Validator: f.validator})
	if err != nil {
		cut(nil)
		if file != nil { // it stays for who comes next
			err = errors.Join(err, file.Park(parked), file.Close())
		}
		return f.cause(err)
	}
	answer.Body = severable{answer.Body, cut}
	if answer.Size < 0 {
		answer.Size = known
	}
	if file == nil || answer.Size != size {
		if file, err = f.create(file, at, answer.Size); err != nil {
			answer.Body.Close()
			return err
		}
		have = nil
	}
	f.update(func() {
		f.answeredLocked(f.src, answer)
		f.openLocked(file, answer.Size, have)
		f.followLocked(answer, cut, at, length, want, known)
	})
	return nil
}

// lengthFirst is how much to ask for at first, at a position of content of a size that is known or -1, if the next
// that is here already, or that the first reader does not want, begins at to. -1 is all that follows.
func (f *flight) lengthFirst(known, at, to int64) int64 {
	if known <= window {
		return -1
	}
	length := int64(-1)
	if to < known {
		length = to - at
	}
	if f.first.Ranged && (length < 0 || length > window) && known-at > window {
		length = window
	}
	return length
}

// followLocked starts the worker that goes on with the source's first answer: length bytes from at on, for a reader that wants
// want of content that was known to be of some size, or -1.
func (f *flight) followLocked(answer Stream, cut context.CancelCauseFunc, at, length int64, want span, known int64) {
	w := f.newWorkerLocked(f.have.gap(at, f.size))
	w.cut = cut
	to := want.to
	if known < 0 {
		to = f.first.of(f.size).to
	}
	if !f.whole && to > at {
		w.stop = min(w.stop, to)
	}
	w.until = f.size
	if length >= 0 {
		w.until, w.window = min(f.size, at+length), length
	}
	f.launchLocked(w, answer.Body)
	if f.size > minSegment*maxWorkers {
		f.running.Go(f.tune)
	}
}

// wantFirst is what the first reader wants of content of a size that is known, or -1. What is small is wanted whole.
func (f *flight) wantFirst(known int64) span {
	if known < 0 {
		return span{0, math.MaxInt64}
	}
	if known <= window {
		return span{0, known}
	}
	want := f.first.of(known)
	if want.from == want.to { // beyond the end, for all that is known: a byte tells what the size really is
		return span{0, 1}
	}
	return want
}

// create makes a new file for content of that size, instead of a parked one that is of another size: it lies, or the
// source does.
func (f *flight) create(parked File, at, size int64) (File, error) {
	if parked != nil {
		parked.Discard()
		parked.Close()
		f.hasher, f.hashed, f.saved = f.digest.Algorithm().Hash(), 0, 0
		clear(f.origins)
	}
	if size < at {
		return nil, fmt.Errorf("fill: %s: the source states no size, or one that ends before byte %d", f.digest, at)
	}
	file, err := f.opts.Create(f.digest, size)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStorage, err)
	}
	return file, nil
}

// openLocked makes the file known, with what is in it.
func (f *flight) openLocked(file File, size int64, have spans) {
	f.file, f.size, f.have = file, size, have
	f.whole = f.opts.Whole || size <= window || f.first.of(size) == span{0, size} // what is small is not worth taking apart
}

// finish verifies and commits the content.
func (f *flight) finish() error {
	f.hashing.Lock()
	err := f.catchUp(f.size)
	sum := digest.NewDigest(f.digest.Algorithm(), f.hasher)
	f.hashing.Unlock()
	if err != nil {
		f.file.Discard()
		return fmt.Errorf("%w: %w", ErrStorage, err)
	}
	if sum != f.digest {
		for origin, src := range f.origins {
			src.Distrust(origin) // which of several it was shows when they send all of it
		}
		f.file.Discard()
		return fmt.Errorf("%w: %s: got %s", ErrDigest, f.digest, sum)
	}
	// Readers may have the last byte now: what is left to do can fail, but not make it wrong.
	f.update(func() { f.verified = true })
	if err := f.file.Commit(); err != nil {
		return fmt.Errorf("%w: %w", ErrStorage, err)
	}
	return nil
}

// hash follows the contiguous prefix of what has landed: buf has just landed at from. If somebody else is hashing, it is
// left to them, or to whoever comes next.
func (f *flight) hash(buf []byte, from int64) {
	if !f.hashing.TryLock() {
		return
	}
	defer f.hashing.Unlock()
	if f.hashed < from {
		f.mu.Lock()
		end := f.have.end(f.hashed)
		f.mu.Unlock()
		if end <= from || from-f.hashed > 8*chunk || f.catchUp(from) != nil {
			return // it isn't contiguous, or would hold this transfer up
		}
	}
	if to := from + int64(len(buf)); f.hashed >= from && f.hashed < to {
		f.hasher.Write(buf[f.hashed-from:])
		f.hashed = to
	}
}

// hashRest hashes what others have landed after what this worker has, which they leave to whoever comes first.
func (f *flight) hashRest() {
	f.hashing.Lock()
	defer f.hashing.Unlock()
	for {
		f.mu.Lock()
		end := min(f.have.end(f.hashed), f.hashed+4*chunk)
		f.mu.Unlock()
		if f.file == nil || end <= f.hashed || f.ctx.Err() != nil || f.catchUp(end) != nil {
			return
		}
	}
}

// catchUp hashes what has landed before to, reading it from the file. It is called with hashing held.
func (f *flight) catchUp(to int64) error {
	n, err := io.Copy(f.hasher, io.NewSectionReader(f.file, f.hashed, to-f.hashed))
	f.hashed += n
	if err == nil && f.hashed < to {
		err = io.ErrUnexpectedEOF
	}
	return err
}
