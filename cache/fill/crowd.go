package fill

import (
	"errors"
	"time"
)

const (
	// lookEvery is how often the rate is looked at: long enough for a mean over many reads, short enough that a blob of
	// a hundred megabytes has its connections while it still matters.
	lookEvery = 250 * time.Millisecond

	// trialLooks is how many looks further workers have to show that they are worth it: a connection over a long line
	// takes a second or two until it runs at its full speed.
	trialLooks = 12

	// restLooks is how many looks pass after the first trial that brought nothing, before the next: half a minute. After
	// each further one it is twice as many.
	restLooks = 120

	// worthLooks is how long, in looks at the present rate, the rest must take for more workers to be worth a trial.
	worthLooks = 6
)

// crowd decides how many workers fetch a whole side by side. One is the rule. More are added while they raise the rate at
// which content lands, as they do where a connection is limited and the line is not; those that did not are given back.
type crowd struct {
	want  int      // how many there are to be
	rates [2]int64 // what landed in the latest two looks
	base  int64    // what landed in a look before those on trial were added
	trial int      // how many were added last, and have to show what they bring
	looks int      // left of the trial, or of the rest after it
	seen  int      // looks since the trial began
	vain  int      // trials that brought nothing
}

// look takes in what has landed since the last look, when there were so many workers and so much was missing.
func (c *crowd) look(landed, missing int64, workers int) {
	c.rates = [2]int64{landed, c.rates[0]}
	c.looks--
	c.seen++
	mean := (c.rates[0] + c.rates[1]) / 2
	switch {
	case c.trial == 0:
	case c.seen >= 2 && mean*int64(2*(c.want-c.trial)) >= c.base*int64(2*c.want-c.trial): // half of what they could bring at best
		c.trial, c.looks = 0, 0
	case c.looks > 0:
		return
	default:
		c.giveBack(c.want - c.trial)
	}
	if c.looks > 0 || c.rates[1] == 0 || missing < mean*worthLooks || workers < c.want {
		return
	}
	if more := min(workers, maxWorkers-workers); more > 0 {
		c.base = max(c.rates[0], c.rates[1])
		c.want, c.trial, c.looks, c.seen = workers+more, more, trialLooks, 0
	}
}

// giveBack makes it so many workers, and lets it rest.
func (c *crowd) giveBack(want int) {
	if c.trial > 0 {
		c.vain++
	}
	c.want, c.trial, c.looks = max(1, want), 0, restLooks<<min(max(0, c.vain-1), 10)
}

// The segments that workers side by side fetch one after the other, the lowest first, so that readers from the start
// never wait for long. They shrink towards the end, so that all workers end at about the same time.
const (
	minSegment = 2 << 20
	maxSegment = 32 << 20
)

// segmentLocked is how much of a gap one worker takes.
func (f *flight) segmentLocked() int64 {
	if f.crowd.want <= 1 {
		return f.size
	}
	missing := f.size - f.have.total()
	return max(minSegment, min(maxSegment, missing/int64(2*f.crowd.want)))
}

// tune looks at the rate until the workers are to end.
func (f *flight) tune() {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var before, long int64 // what had landed at the last look, and at the last that was for laggards
	for looks := 1; ; looks++ {
		select {
		case <-tick.C:
		case <-f.ctx.Done():
			return
		}
		f.mu.Lock()
		total := f.have.total()
		if before > 0 && f.whole && !f.windowed && !f.stopping && f.wantedLocked() {
			f.crowd.look(total-before, f.size-total, len(f.workers))
			f.growLocked()
		}
		if looks%laggardLooks == 0 {
			f.cutLaggardsLocked(total - long)
			long = total
		}
		before = total
		f.mu.Unlock()
	}
}

const (
	// laggardLooks is how many looks a worker has to show that it keeps up: five seconds, more than it takes to begin.
	laggardLooks = 20

	// laggardShare is how much slower than the others on average it may be. Connections over one line differ, but hardly by
	// that much unless one of them is stuck: readers from the start may be waiting for just what it was to bring.
	laggardShare = 8
)

// errLaggard says that a stream brought next to nothing while others did.
var errLaggard = errors.New("fill: a connection was much slower than those beside it")

// cutLaggardsLocked breaks off the streams of workers that have brought next to nothing since they were last looked at, while
// so much has landed.
func (f *flight) cutLaggardsLocked(landed int64) {
	share := landed / int64(max(1, len(f.workers)))
	for w := range f.workers {
		if w.marked && w.cut != nil && len(f.workers) > 1 && (w.pos-w.mark)*laggardShare < share {
			w.cut(errLaggard)
		}
		w.marked, w.mark = true, w.pos
	}
}

// growLocked starts as many workers as the crowd wants, and makes room for them in what the others have before them.
func (f *flight) growLocked() {
	if len(f.workers) >= f.crowd.want {
		return
	}
	segment := f.segmentLocked()
	for w := range f.workers {
		w.stop = min(w.stop, w.pos+segment)
	}
	for len(f.workers) < f.crowd.want {
		job, ok := f.jobLocked(0)
		if !ok {
			return
		}
		w := f.newWorkerLocked(job)
		w.rank = len(f.workers)
		f.launchLocked(w, nil)
	}
}

// refusedLocked takes down that a worker failed that was there for more speed.
func (f *flight) refusedLocked(err error) {
	f.crowd.giveBack(len(f.workers))
	if f.opts.Throttled(err) { // who is asked too much is asked by one alone
		f.crowd.giveBack(1)
	}
	for w := range f.workers {
		switch {
		case f.crowd.want > 1:
		case w.rank > 0:
			w.stop = w.pos
		case len(f.workers) == 1: // all that follows is its own again: it need not break off what it is at
			w.stop = f.have.gap(w.pos, f.size).to
		}
	}
}
