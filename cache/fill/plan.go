package fill

import (
	"context"
	"errors"
	"time"
)

// Where workers go. All of this is called with the flight's lock held.

const (
	// reach is how far ahead of a worker a reader waits for it. Further ahead, a transfer of its own is there sooner: this
	// much takes a second at 30 Mbit/s, and a new request some hundred milliseconds.
	reach = 4 << 20

	// window is what is asked for at once on behalf of readers that have not said how much they want, or that say more than
	// they take: who asks for ranges often closes the connection after one chunk. It doubles, up to maxWindow, as they go
	// on: few requests for who reads on, little fetched in vain for who does not.
	window    = 1 << 20
	maxWindow = 16 << 20

	// unasked is what part of a blob is fetched without anybody's asking, so that it becomes whole: a twentieth.
	unasked = 20

	// maxWorkers is how many transfers a blob has at once at the most: twice the connections that containerd opens for one.
	maxWorkers = 8
)

// worker is a transfer: it lands the bytes [pos, stop). Nobody else lands any of them before it has left the flight's workers.
type worker struct {
	pos, stop int64
	until     int64                   // where the answer that it streams from ends; with pos it is changed by the worker's own goroutine alone
	window    int64                   // how much it asked for last, if it asks for windows
	src       Source                  // that it asks
	cut       context.CancelCauseFunc // breaks off its stream
	beside    int                     // how many there were already when it was added for more speed; 0: it is there for another reason
	called    bool                    // by a reader that waits for what others would bring too late: no crowd sends it away
	ending    bool                    // it is one too many, and leaves at its stop

	// For the crowd's looks:
	seen int64     // its position at the last
	rate float64   // bytes a second, smoothed
	kept time.Time // when that was last no less than it should be
}

// shorten makes the worker stop at a position, or soon: its goroutine may be in the middle of landing a chunk, and what it
// lands is nobody else's.
func (w *worker) shorten(stop int64) { w.stop = min(w.stop, max(stop, w.pos+chunk)) }

// soonAt reports whether the worker is going to land the byte at off before a transfer of its own would: it is near, or
// it is on its way already and would be fetched twice.
func (w *worker) soonAt(off int64) bool {
	return off-w.pos <= reach || off < w.until && w.until-w.pos <= maxWindow
}

// wantLocked sees to it that somebody fetches the byte at want.from, if nothing is there yet, and goes on towards want.to.
func (f *flight) wantLocked(want span) {
	gap := f.have.gap(want.from, f.size)
	if gap.from != want.from || gap.from == gap.to || f.stopping {
		return
	}
	for w := range f.workers {
		if w.pos <= want.from && want.from < w.stop {
			if w.soonAt(want.from) || len(f.workers) >= maxWorkers {
				return
			}
			stop := w.stop
			w.shorten(want.from) // it is further than a chunk away
			f.callLocked(span{want.from, stop})
			return
		}
		if w.pos > want.from {
			gap.to = min(gap.to, w.pos)
		}
	}
	if len(f.workers) < maxWorkers {
		f.callLocked(span{want.from, max(want.from+1, min(want.to, gap.to))})
	}
}

// callLocked starts a worker for a reader that waits.
func (f *flight) callLocked(job span) {
	w := f.newWorkerLocked(job)
	w.called = len(f.workers) > 0
	f.launchLocked(w, nil)
}

// wholeLocked makes the fill fetch all of the content.
func (f *flight) wholeLocked() {
	f.whole = true
	f.countLocked()
	if f.file != nil && len(f.workers) == 0 && !f.stopping {
		if job, ok := f.jobLocked(0); ok {
			f.launchLocked(f.newWorkerLocked(job), nil)
		}
	}
}

// jobLocked is what is missing and nobody fetches, at off or after it or, failing that, before it. Of several workers side by
// side each takes a segment of what comes first.
func (f *flight) jobLocked(off int64) (job span, ok bool) {
	if f.crowd.want > 1 {
		off = 0
	}
	for _, from := range []int64{off, 0} {
		for {
			gap := f.have.gap(from, f.size)
			if gap.from == gap.to {
				break
			}
			gap.to = min(gap.to, gap.from+f.segmentLocked())
			taken := false
			for w := range f.workers {
				if w.pos <= gap.from && gap.from < w.stop {
					from, taken = w.stop, true
				} else if w.pos > gap.from {
					gap.to = min(gap.to, w.pos)
				}
			}
			if !taken {
				return gap, true
			}
		}
	}
	return span{}, false
}

// landedLocked takes down what a worker has landed after waiting for it, and where it has to stop now.
func (f *flight) landedLocked(w *worker, n int64, waited time.Duration) {
	f.waited += waited
	f.have.add(w.pos, w.pos+n)
	w.pos += n
	// What others have landed ahead is not fetched again.
	if gap := f.have.gap(w.pos, w.stop); gap.from == w.pos {
		w.stop = gap.to
	} else {
		w.stop = w.pos
	}
	if !f.wantedLocked() {
		w.stop = w.pos
	}
	if !f.whole && f.nearlyLocked() {
		f.wholeLocked()
	}
}

// nearlyLocked reports whether the rest is to be fetched too, although only parts are read: what nobody asked for is next to
// nothing, or all of it was asked for, by readers that take as much as they like, and half has been taken.
func (f *flight) nearlyLocked() bool {
	missing := f.size - f.have.total()
	return missing <= f.size/unasked || missing <= f.size/2 && f.openFrom <= f.have.end(0)
}

// nextLocked takes down how w ended and returns what its goroutine is to do next, if anything.
func (f *flight) nextLocked(w *worker, err error) *worker {
	delete(f.workers, w)
	switch {
	case f.stopping:
		return nil
	case err != nil && !f.survivesLocked(w, err):
		f.failure, f.stopping = err, true // in one moment: no reader starts another in vain
		return nil
	case err != nil:
		f.strainedLocked(f.activeLocked(), err)
		if len(f.workers) > 0 {
			f.widenLocked()
			return nil // it would only meet the same again, and at once
		}
	}
	if !f.whole || !f.wantedLocked() {
		return nil
	}
	job, more := f.jobLocked(w.pos)
	others := f.activeLocked()
	if !more || others >= f.crowd.want || w.ending && others > 0 {
		f.widenLocked()
		return nil
	}
	next := f.newWorkerLocked(job)
	next.rate, next.kept = w.rate, w.kept
	if others > 0 {
		next.beside = w.beside
	}
	f.workers[next] = true
	return next
}

// survivesLocked reports whether the flight goes on after an error of w's: what one leaves that was there for speed, or that
// had others beside it, is for them, or for whoever waits for it. A last word that was got on behalf of all is the flight's.
func (f *flight) survivesLocked(w *worker, err error) bool {
	switch {
	case errors.Is(err, ErrStorage):
		return false
	case w.beside > 0, w.ending: // though the others may have left just now
		return true
	}
	return len(f.workers) > 0 && !f.opts.Final(err) && !f.vainLocked()
}

// vainLocked takes down that a worker has given up, and reports whether one did before and next to nothing has landed since:
// then the others are not getting on either. Readers at several places would else call one worker after the other for ever.
func (f *flight) vainLocked() bool {
	before, landed := f.landedThen, f.have.total()
	f.landedThen = landed
	return before >= 0 && landed-before < progress
}

// activeLocked is how many workers the crowd has.
func (f *flight) activeLocked() (n int) {
	for w := range f.workers {
		if !w.ending && !w.called {
			n++
		}
	}
	return n
}

// widenLocked gives a worker that is left alone all that follows: it need not break off an answer that goes on.
func (f *flight) widenLocked() {
	if len(f.workers) != 1 || f.crowd.want > 1 || !f.crowdedLocked() {
		return
	}
	for w := range f.workers {
		if gap := f.have.gap(w.pos, f.size); !w.ending && gap.from == w.pos && w.pos < w.stop {
			w.stop, w.beside, w.called = gap.to, 0, false
		}
	}
}

// completeLocked reports whether all of the content has landed.
func (f *flight) completeLocked() bool { return f.have.total() == f.size }

// wantedLocked reports whether more is to be fetched although no reader waits for it.
func (f *flight) wantedLocked() bool {
	return f.attached > 0 || f.whole && !f.opts.Park && !f.surplus
}

// idleLocked reports whether nothing is left to do for anybody.
func (f *flight) idleLocked() bool { return len(f.workers) == 0 && !f.wantedLocked() }
