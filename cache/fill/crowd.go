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

	// laggardLooks is how many looks a worker has to show that it keeps up: three seconds, more than it takes to begin.
	laggardLooks = 12

	// laggardShare is how much slower than the others on average it may be. Connections over one line differ, but hardly by
	// that much unless one of them is stuck: readers from the start may be waiting for just what it was to bring.
	laggardShare = 8

	// fading is how fast what was usual is forgotten: by half in five seconds.
	fading = 32
)

// The segments that workers side by side fetch one after the other, the lowest first, so that readers from the start
// never wait for long. They shrink towards the end, so that all workers end at about the same time.
const (
	minSegment = 2 << 20
	maxSegment = 32 << 20
)

// errSlow breaks off a stream that brings next to nothing while those beside it do.
var errSlow = errors.New("fill: a connection was much slower than those beside it")

// crowd decides how many workers fetch a whole side by side. One is the rule. More are added while they raise the rate at
// which content lands, as they do where a connection is limited and the line is not; those that did not are given back.
type crowd struct {
	want  int      // how many there are to be
	rates [2]int64 // what landed in the latest two looks
	base  int64    // what landed in a look before those on trial were added
	trial int      // how many were added last, and have to show what they bring
	seen  int      // looks since then
	rest  int      // looks until the next trial
	vain  int      // trials that brought nothing
	usual int64    // what one of several landed in a look, lately
}

// look takes in what has landed since the last look, when there were so many workers and so much was missing.
func (c *crowd) look(landed, missing int64, workers int) {
	c.rates = [2]int64{landed, c.rates[0]}
	c.rest--
	c.seen++
	switch {
	case c.trial == 0:
	case c.seen >= 2 && c.pays():
		c.trial = 0
	case c.seen >= trialLooks:
		c.backTo(c.want - c.trial)
	}
	more := min(workers, maxWorkers-workers)
	ready := c.trial == 0 && c.rest <= 0 && c.rates[1] > 0 && workers >= c.want
	if ready && more > 0 && missing >= c.mean()*worthLooks {
		c.base = max(c.rates[0], c.rates[1])
		c.want, c.trial, c.seen = workers+more, more, 0
	}
}

func (c *crowd) mean() int64 { return (c.rates[0] + c.rates[1]) / 2 }

// learn takes down what each of so many workers lands in a look: what they do on average, or did a moment ago. When most have
// brought theirs and left, those that remain may be the ones that are stuck.
func (c *crowd) learn(workers int) {
	if workers > 1 {
		c.usual = max(c.usual-c.usual/fading, c.mean()/int64(workers))
	}
}

// pays reports whether those on trial bring at least half of what they could bring at best.
func (c *crowd) pays() bool {
	best := float64(c.want) / float64(c.want-c.trial)
	return float64(c.mean()) >= float64(c.base)*(1+best)/2
}

// backTo ends a trial: there are to be so many workers, if not fewer already, and no trial for a while.
func (c *crowd) backTo(want int) {
	if c.trial > 0 {
		c.vain++
	}
	c.want, c.trial = max(1, min(c.want, want)), 0
	c.rest = restLooks << min(max(0, c.vain-1), 10)
}

// tune looks at the rate until the workers are to end.
func (f *flight) tune() {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var last int64
	for {
		select {
		case <-tick.C:
		case <-f.ctx.Done():
			return
		}
		f.mu.Lock()
		total := f.have.total()
		if last > 0 && f.crowdedLocked() {
			f.lookLocked(total - last)
		}
		last = total
		f.mu.Unlock()
	}
}

// lookLocked takes in that so much has landed since the last look.
func (f *flight) lookLocked(landed int64) {
	f.crowd.look(landed, f.size-f.have.total(), f.activeLocked())
	f.crowd.learn(len(f.workers))
	share := f.crowd.usual
	for w := range f.workers {
		w.rate = (w.rate + w.pos - w.seen) / 2
		w.seen = w.pos
		if w.slow++; w.rate*laggardShare >= share {
			w.slow = 0
		}
		if w.slow >= laggardLooks {
			w.cut(errSlow)
			w.slow, f.crowd.usual = 0, 0 // others may be no faster now
		}
	}
	f.shrinkLocked()
	f.growLocked()
}

// crowdedLocked reports whether it is for the crowd to say how many workers there are, and not for readers of parts.
func (f *flight) crowdedLocked() bool {
	return f.whole && !f.windowed && !f.single && !f.stopping && f.wantedLocked()
}

// segmentLocked is how much of a gap one worker takes.
func (f *flight) segmentLocked() int64 {
	if f.crowd.want <= 1 {
		return f.size
	}
	missing := f.size - f.have.total()
	return max(minSegment, min(maxSegment, missing/int64(2*f.crowd.want)))
}

// growLocked starts as many workers as the crowd wants, and makes room for them in what the others have before them.
func (f *flight) growLocked() {
	active := f.activeLocked()
	if active >= f.crowd.want {
		return
	}
	segment := f.segmentLocked()
	for w := range f.workers {
		w.shorten(w.pos + segment)
	}
	for ; active < f.crowd.want; active++ {
		job, ok := f.jobLocked(0)
		if !ok || len(f.workers) >= maxWorkers {
			return
		}
		w := f.newWorkerLocked(job)
		w.beside = len(f.workers)
		f.launchLocked(w, nil)
	}
}

// shrinkLocked has workers end that are more than the crowd wants: what they had before them is for the others. Those that are
// much slower than the rest go first, else those that came last. One that is stuck is not waited for.
func (f *flight) shrinkLocked() {
	share := f.crowd.usual
	for active := f.activeLocked(); active > f.crowd.want; active-- {
		var first *worker
		slow := func(w *worker) bool { return w.rate*2 < share }
		for w := range f.workers {
			switch {
			case w.ending, w.called:
			case first == nil, slow(w) && !slow(first), slow(w) == slow(first) && w.beside > first.beside:
				first = w
			}
		}
		first.ending = true
		first.shorten(first.pos)
		if first.rate*laggardShare < share {
			first.cut(errSlow)
		}
	}
}

// strainedLocked takes down that a source had an error for one of several workers: there are fewer from now on. Who is asked
// too much is asked by one alone.
func (f *flight) strainedLocked(workers int, err error) {
	if !f.crowdedLocked() {
		return
	}
	if f.opts.Throttled(err) {
		workers = 1
	}
	f.crowd.backTo(workers)
	f.shrinkLocked()
}
