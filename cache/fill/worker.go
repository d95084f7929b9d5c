package fill

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
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
)

// startLocked starts a worker for a job.
func (f *flight) startLocked(job span) { f.launchLocked(f.newWorkerLocked(job), nil) }

func (f *flight) newWorkerLocked(job span) *worker {
	return &worker{pos: job.from, stop: job.to, src: f.sources[0]}
}

// launchLocked starts w, which goes on with body if that is not nil.
func (f *flight) launchLocked(w *worker, body io.ReadCloser) {
	f.workers[w] = true
	f.running.Go(func() { f.work(w, body) })
}

// work lands what w is to land, and then whatever else is missing if the whole is wanted.
func (f *flight) work(w *worker, body io.ReadCloser) {
	buf := make([]byte, chunk)
	for w != nil {
		err := f.land(w, body, buf)
		f.hashRest()
		body = nil
		f.update(func() { w = f.nextLocked(w, err) })
	}
}

// nextLocked takes down how w ended and returns what its goroutine is to do next, if anything.
func (f *flight) nextLocked(w *worker, err error) *worker {
	delete(f.workers, w)
	alone := len(f.workers) == 0
	switch {
	case f.stopping:
		return nil
	case err == nil:
	case w.rank > 0 && !errors.Is(err, ErrStorage):
		f.refusedLocked(err)
		if !alone {
			return nil // the others, or whoever waits for it, take over what it leaves
		}
	default:
		f.failure, f.stopping = err, true // in one moment: no reader starts another in vain
		return nil
	}
	if !f.whole || !f.wantedLocked() || w.rank > 0 && !alone && len(f.workers) >= f.crowd.want {
		return nil
	}
	job, more := f.jobLocked(w.pos)
	if !more {
		return nil
	}
	next := f.newWorkerLocked(job)
	if !alone {
		next.rank = w.rank
	}
	f.workers[next] = true
	return next
}

// land brings the bytes of w into the file, going on from the last good byte when the source breaks off. It closes body.
func (f *flight) land(w *worker, body io.ReadCloser, buf []byte) error {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval = 200 * time.Millisecond
	pause.Multiplier = 2
	failures, mark := 0, w.pos
	for f.left(w) > 0 || body != nil {
		err := f.stream(w, body, buf)
		body = nil
		if err == nil {
			continue
		}
		if errors.Is(err, ErrStorage) || f.ctx.Err() != nil || w.rank > 0 || !f.another(w, err) {
			return f.cause(err)
		}
		if w.pos-mark >= progress {
			failures, mark = 0, w.pos
			pause.Reset()
		}
		if failures++; failures > tries {
			return fmt.Errorf("gave up at byte %d of %d: %w", w.pos, f.size, err)
		}
		if err := sleep(f.ctx, pause.NextBackOff()); err != nil {
			return err
		}
	}
	return nil
}

// another makes w ask the next source after one failed, and nobody ask one again that has given its final answer; ok is
// false if that was the last.
func (f *flight) another(w *worker, err error) (ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := slices.Index(f.sources, w.src) // -1 if another worker has taken it out
	if i >= 0 && f.opts.Final(err) {
		if len(f.sources) == 1 {
			return false
		}
		f.sources = slices.Delete(f.sources, i, i+1)
		i--
	}
	w.src = f.sources[(i+1)%len(f.sources)]
	return true
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
		n, err := body.Read(buf[:min(int64(len(buf)), left)])
		if n > 0 {
			if _, err := f.file.WriteAt(buf[:n], w.pos); err != nil {
				return fmt.Errorf("%w: %w", ErrStorage, err)
			}
			from := w.pos
			f.update(func() { f.landedLocked(w, int64(n)) })
			f.hash(buf[:n], from)
			f.save()
		}
		switch {
		case err == io.EOF && w.pos < w.until && f.left(w) > 0:
			return io.ErrUnexpectedEOF
		case err == io.EOF: // A source that gives more than it was asked for has none: what it gives is not asked for again.
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
	s, err := w.src.Open(ctx, req)
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
	f.validator = s.Validator
	f.origins[s.Origin] = src
}

// request is what w has to ask for next, for a stream that cut breaks off; ok is false if that is nothing.
func (f *flight) request(w *worker, cut context.CancelCauseFunc) (req Request, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	left := w.stop - w.pos
	if left <= 0 {
		return req, false
	}
	req = Request{Offset: w.pos, Beside: w.rank, Waiting: f.awaited, Validator: f.validator}
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

// cause prefers the reason for which the workers were stopped to what a transfer said when it was cut off.
func (f *flight) cause(err error) error {
	if f.ctx.Err() != nil {
		return context.Cause(f.ctx)
	}
	return err
}

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
