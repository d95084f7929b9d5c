package fill

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
)

const (
	// chunk is how much a worker reads at the most before it shows it to readers: large enough that the cost of a
	// system call and of a wake-up is spread over many bytes, small enough to stay in the processor's cache.
	chunk = 256 << 10

	// tries is how often in a row a source may break off without having brought at least progress bytes. With the
	// waits between them that is about ten seconds: an upstream that restarts is back by then, and clients, which
	// notice only a pause, have more patience than that.
	tries    = 6
	progress = 64 << 10

	// longestPause is how long a source is left alone at most that asks for it by its error, each time: the tries are then over
	// in three minutes. A body that stands still for so long is not given up by container engines, and one that breaks off is a
	// pull that failed.
	longestPause = 30 * time.Second
)

func (f *flight) newWorkerLocked(job span) *worker {
	return &worker{pos: job.from, stop: job.to, seen: job.from, kept: time.Now(), src: f.sources[0], cut: func(error) {}}
}

// buffers are those of workers that have ended.
var buffers = sync.Pool{New: func() any { return new([chunk]byte) }}

// launchLocked starts w, which goes on with body if that is not nil.
func (f *flight) launchLocked(w *worker, body io.ReadCloser) {
	f.workers[w] = true
	f.running.Go(func() { f.work(w, body) })
}

// work lands what w is to land, and then whatever else is missing if the whole is wanted.
func (f *flight) work(w *worker, body io.ReadCloser) {
	buf := buffers.Get().(*[chunk]byte)
	defer buffers.Put(buf)
	for w != nil {
		err := f.land(w, body, buf[:])
		f.hashRest()
		body = nil
		f.update(func() { w = f.nextLocked(w, err) })
	}
}

// land brings the bytes of w into the file, going on from the last good byte when the source breaks off. It closes body.
func (f *flight) land(w *worker, body io.ReadCloser, buf []byte) error {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval = 200 * time.Millisecond
	pause.Multiplier = 2
	failures, mark := 0, w.pos
	for body != nil || f.left(w) > 0 {
		err := f.stream(w, body, buf)
		body = nil
		switch {
		case err == nil:
			continue
		case f.ctx.Err() != nil:
			return context.Cause(f.ctx)
		case errors.Is(err, ErrStorage):
			return err
		}
		if w.pos-mark >= progress {
			failures, mark = 0, w.pos
			pause.Reset()
		}
		failures++
		final := f.opts.Final(err)
		switch f.after(w, err, final || failures > tries) {
		case stop:
			return nil
		case leave:
			return err
		case giveUp:
			if !final {
				err = fmt.Errorf("gave up at byte %d of %d: %w", w.pos, f.size, err)
			}
			return err
		case askAnother:
			failures, mark = 0, w.pos
			pause.Reset()
		}
		if err := sleep(f.ctx, max(pause.NextBackOff(), min(f.opts.Pause(err), longestPause))); err != nil {
			return err
		}
	}
	return nil
}

// What a worker does after its source had an error.
const (
	askAgain   = iota
	askAnother // another reader's source
	giveUp
	leave // it to the others
	stop  // nobody wants any more
)

// after decides what w does after an error of its source, which done says has been asked often enough.
func (f *flight) after(w *worker, err error, done bool) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case !f.wantedLocked():
		return stop
	case len(f.workers) > 1 && (w.beside > 0 || w.ending):
		return leave
	case !done:
		if len(f.workers) > 1 && f.opts.Throttled(err) {
			f.strainedLocked(1, err) // with the others gone it is answered again
		}
		return askAgain
	}
	// Nobody asks a source again that was asked in vain. Another worker may have taken it out before.
	if i := slices.Index(f.sources, w.src); i >= 0 {
		if len(f.sources) == 1 {
			return giveUp
		}
		f.sources = slices.Delete(f.sources, i, i+1)
	}
	w.src = f.sources[0]
	return askAnother
}

// stream lands the bytes of w from one answer of the source: from body, or from a new one if that is nil.
func (f *flight) stream(w *worker, body io.ReadCloser, buf []byte) (err error) {
	if body == nil {
		if body, err = f.resume(w); body == nil {
			return err
		}
	}
	defer body.Close()
	for {
		left := f.left(w)
		if left == 0 {
			return nil
		}
		asked := time.Now()
		n, err := body.Read(buf[:min(int64(len(buf)), left)])
		waited := time.Since(asked)
		if n > 0 {
			if _, err := f.file.WriteAt(buf[:n], w.pos); err != nil {
				return fmt.Errorf("%w: %w", ErrStorage, err)
			}
			from := w.pos
			f.update(func() { f.landedLocked(w, int64(n), waited) })
			runtime.Gosched() // readers first: on a busy machine they would wait until this goroutine's time is up
			f.hash(buf[:n], from)
			f.save()
		}
		switch {
		case err == io.EOF && w.pos < w.until && f.left(w) > 0:
			return io.ErrUnexpectedEOF
		case err == io.EOF: // at the end of what was asked for; a source may give more, and that isn't asked for again
			return nil
		case err != nil:
			return err
		}
	}
}

// left is how much w has still to land: others may shorten that. Only w's own goroutine moves its position.
func (f *flight) left(w *worker) int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return max(0, w.stop-w.pos)
}

// resume asks the source for what w has to land next; body is nil if that is nothing, or after an error.
func (f *flight) resume(w *worker) (body io.ReadCloser, err error) {
	ctx, cut := context.WithCancelCause(f.ctx)
	req, ok := f.request(w, cut)
	if !ok {
		cut(nil)
		return nil, nil
	}
	asked := time.Now()
	s, err := w.src.Open(ctx, req)
	took := time.Since(asked)
	if err == nil && s.Size >= 0 && s.Size != f.size { // which of the two is wrong, nobody knows
		s.Body.Close()
		err = fmt.Errorf("the source stated %d bytes before and %d now", f.size, s.Size)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		cut(nil)
		f.validator = "" // it may be at fault
		return nil, err
	}
	f.answeredLocked(w.src, s)
	if f.crowd.origin == "" { // nobody had been asked before, for what was wanted then was parked
		f.beginCrowdLocked(s.Origin, took)
	}
	return severable{s.Body, cut}, nil
}

// severable is the body of a stream whose context ends with it.
type severable struct {
	io.ReadCloser
	cut context.CancelCauseFunc
}

func (b severable) Close() error {
	defer b.cut(nil)
	return b.ReadCloser.Close()
}

// answeredLocked takes down who answered.
func (f *flight) answeredLocked(src Source, s Stream) {
	f.asked = f.asked || src == f.src
	f.stated = f.stated || s.Size >= 0
	f.validator = s.Validator
	f.origins[origin{src, s.Origin}] = true
}

// request is what w has to ask for next, for a stream that cut breaks off; ok is false if that is nothing.
func (f *flight) request(w *worker, cut context.CancelCauseFunc) (req Request, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.wantedLocked() {
		w.stop = w.pos
	}
	left := w.stop - w.pos
	if left <= 0 {
		return req, false
	}
	if len(f.workers) == 1 {
		w.beside = 0
	}
	req = Request{Offset: w.pos, Beside: w.beside, Waiting: f.awaited, Validator: f.validator}
	if f.windowed {
		w.window = max(window, min(2*w.window, maxWindow))
		left = min(left, w.window)
	}
	w.until = w.pos + left
	if req.Length = left; w.until == f.size {
		req.Length = -1
	}
	w.cut = cut
	return req, true
}

// awaited reports whether a reader is attached.
func (f *flight) awaited() bool { return f.readersNow() > 0 }

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
