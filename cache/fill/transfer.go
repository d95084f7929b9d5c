package fill

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"time"

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
	var err error
	for more := true; more; more = err == nil && f.lingers(ctx) {
		err = f.await(ctx, func() bool { return f.doneLocked() || f.idleLocked() })
	}
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

// doneLocked reports whether all has landed, or nothing more will. In the same moment no worker is started any more.
func (f *flight) doneLocked() bool {
	f.stopping = f.stopping || f.completeLocked() || f.failure != nil
	return f.stopping
}

// lingerFor is how long a flight that is idle waits for a reader before it is parked: who reads in ranges asks for the next
// when it has the last, and to park and take up again costs more than a range.
const lingerFor = 500 * time.Millisecond

// lingers waits for a reader, and reports whether one came. If not, no worker is started any more.
func (f *flight) lingers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, lingerFor)
	defer cancel()
	_ = f.await(ctx, func() bool { return f.doneLocked() || !f.idleLocked() })
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stopping = f.stopping || f.idleLocked()
	return !f.stopping
}

// opening is the first request of a flight.
type opening struct {
	size   int64 // of the content, as far as known; -1: it is not
	want   span  // what the first reader wants of content of that size
	at     int64 // the first byte of that which is missing
	length int64 // how much is asked for; -1: all that follows
}

// begin takes up what was parked, asks the source for the first byte that is missing of what the first reader wants, and
// opens the file.
func (f *flight) begin() error {
	file, parked, have, size := f.takeUp()
	o := f.opening(have, size)
	if file != nil && o.at >= o.want.to { // nothing of that is missing
		f.update(func() {
			f.openLocked(file, size, have)
			if f.whole {
				f.wholeLocked()
			}
		})
		return nil
	}
	if file == nil && o.size >= 0 && !f.opts.Fits(o.size) {
		return fmt.Errorf("%w: no room for %d bytes", ErrStorage, o.size)
	}
	ctx, cut := context.WithCancelCause(f.ctx)
	asked := time.Now()
	answer, err := f.src.Open(ctx, Request{Offset: o.at, Length: o.length, Waiting: f.awaited, Validator: f.validator})
	if err != nil {
		cut(nil)
		if file != nil { // it stays for who comes next
			err = errors.Join(err, file.Park(parked), file.Close())
		}
		if f.ctx.Err() != nil {
			err = context.Cause(f.ctx)
		}
		return err
	}
	took := time.Since(asked)
	answer.Body = severable{answer.Body, cut}
	stated := answer.Size
	if stated < 0 {
		stated = o.size
	}
	switch {
	case file == nil || stated != size:
		file, err = f.create(file, o, stated)
		have = nil
	case f.begunWhole(size):
		err = reserve(file, parked)
	}
	if err != nil {
		answer.Body.Close()
		return err
	}
	f.update(func() {
		f.answeredLocked(f.src, answer)
		f.openLocked(file, stated, have)
		f.followLocked(answer.Body, cut, o)
		f.beginCrowdLocked(answer.Origin, took)
		if !f.wantedLocked() { // all have left meanwhile: as in leave, a source that keeps silent is not waited for
			cut(errParked)
		}
	})
	return nil
}

// opening is what to ask for at first, of content of which parts may be here and whose size may be known by that.
func (f *flight) opening(have spans, size int64) opening {
	o := opening{size: size, length: -1}
	if size < 0 {
		o.size = f.expect
	}
	if o.size <= window { // or not known: what is small is wanted whole
		o.want = span{0, o.size}
		if o.size < 0 {
			o.want.to = math.MaxInt64
		}
		o.at = have.gap(0, o.want.to).from
		return o
	}
	o.want = f.first.of(o.size)
	if o.want.from == o.want.to { // beyond the end, for all that is known: a byte tells what the size really is
		o.want = span{0, 1}
	}
	gap := have.gap(o.want.from, o.size)
	o.at = gap.from
	if to := min(o.want.to, gap.to); to < o.size {
		o.length = to - o.at
	}
	if f.first.Ranged && (o.length < 0 || o.length > window) && o.size-o.at > window {
		o.length = window
	}
	return o
}

// followLocked starts the worker that goes on with the source's first answer.
func (f *flight) followLocked(body io.ReadCloser, cut context.CancelCauseFunc, o opening) {
	w := f.newWorkerLocked(f.have.gap(o.at, f.size))
	w.cut = cut
	to := o.want.to
	if o.size < 0 {
		to = f.first.of(f.size).to
	}
	if !f.whole && to > o.at {
		w.stop = min(w.stop, to)
	}
	w.until = f.size
	if o.length >= 0 {
		w.until, w.window = min(f.size, o.at+o.length), o.length
	}
	f.launchLocked(w, body)
}

// create makes a new file for content of that size, instead of a parked one that is of another size: it lies, or the
// source does. Room for all of it is to be had now, or it is not begun with, unless only a part is wanted.
func (f *flight) create(parked File, o opening, size int64) (File, error) {
	if parked != nil {
		parked.Discard()
		parked.Close()
		f.hasher, f.hashed, f.saved = f.digest.Algorithm().Hash(), 0, 0
		f.resumed = false
	}
	if size < o.at {
		return nil, fmt.Errorf("fill: %s: the source states no size, or one that ends before byte %d", f.digest, o.at)
	}
	first := size
	if !f.begunWhole(size) {
		if first = size - o.at; o.length >= 0 {
			first = min(first, o.length)
		}
	}
	file, err := f.opts.Create(f.digest, size, first)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStorage, err)
	}
	return file, nil
}

// reserve sees to it that there is room for all of what was parked. If not, it stays for who comes next.
func reserve(file File, parked []byte) error {
	if err := file.Reserve(); err != nil {
		return errors.Join(fmt.Errorf("%w: %w", ErrStorage, err), file.Park(parked), file.Close())
	}
	return nil
}

// openLocked makes the file known, with what is in it.
func (f *flight) openLocked(file File, size int64, have spans) {
	f.file, f.size, f.have = file, size, have
	f.whole = f.begunWhole(size)
	f.countLocked()
	if size > minSegment*maxWorkers {
		f.running.Go(f.tune)
	}
	if f.hashed < have.end(0) { // what was parked, and is to be hashed before the last byte is shown
		f.running.Go(f.hashRest)
	}
}

// begunWhole reports whether all of content of that size is fetched from the beginning. What is small is not worth taking apart.
func (f *flight) begunWhole(size int64) bool {
	return f.opts.Whole || size <= window || f.first.of(size) == span{0, size}
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
		f.blame()
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

// blame tells on who has sent content that does not match its digest, if that is beyond doubt. If several had a hand in
// it, the next flight for the content has one worker at a time, so that one alone brings it, right or wrong. Nobody is to
// blame if the size was what somebody claimed and no source has stated, or if what was parked may have changed where it lay.
func (f *flight) blame() {
	switch {
	case !f.stated, f.resumed:
	case len(f.origins) == 1:
		for o := range f.origins {
			o.src.Distrust(o.name)
		}
	default:
		f.all.doubt(f.digest, slices.Collect(maps.Keys(f.origins)))
	}
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

// hashRest hashes what others have landed after what this worker has, which they leave to whoever comes first. It lets go in
// between: the others stop to take the hasher down now and then.
func (f *flight) hashRest() {
	for f.hashSome() {
	}
}

func (f *flight) hashSome() (more bool) {
	f.hashing.Lock()
	defer f.hashing.Unlock()
	f.mu.Lock()
	end := min(f.have.end(f.hashed), f.hashed+4*chunk)
	f.mu.Unlock()
	return f.file != nil && end > f.hashed && f.ctx.Err() == nil && f.catchUp(end) == nil
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
