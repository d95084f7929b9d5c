package fill

import "context"

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

	// maxWorkers is how many transfers a blob has at once at the most: twice the connections that containerd opens for one.
	maxWorkers = 8
)

// worker is a transfer: it lands the bytes [pos, stop).
type worker struct {
	pos, stop int64
	until     int64 // where the answer that it streams from ends; with pos it is changed by the worker's own goroutine alone
	window    int64 // how much it asked for last, if it asks for windows

	src    Source                  // that it asks
	cut    context.CancelCauseFunc // breaks off its stream; nil before the first
	marked bool                    // it was looked at before
	mark   int64                   // where it was then
	rank   int                     // how many others there were when it was added for more speed; 0: it was not, and there have to be some like it
}

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
			w.stop = want.from
			f.startLocked(span{want.from, stop})
			return
		}
		if w.pos > want.from {
			gap.to = min(gap.to, w.pos)
		}
	}
	if len(f.workers) < maxWorkers {
		f.startLocked(span{want.from, max(want.from+1, min(want.to, gap.to))})
	}
}

// wholeLocked makes the fill fetch all of the content.
func (f *flight) wholeLocked() {
	f.whole = true
	if f.file != nil && len(f.workers) == 0 && !f.stopping {
		if job, ok := f.jobLocked(0); ok {
			f.startLocked(job)
		}
	}
}

// jobLocked is what is missing and nobody fetches, at off or after it or, failing that, before it.
func (f *flight) jobLocked(off int64) (job span, ok bool) {
	if f.crowd.want > 1 {
		off = 0 // what readers from the start want first
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

// landedLocked takes down what a worker has landed, and where it has to stop now.
func (f *flight) landedLocked(w *worker, n int64) {
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
	if !f.whole && f.have.total() >= f.size/2 {
		f.wholeLocked()
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
