package fill

import (
	"errors"
	"time"
)

const (
	// A fill is looked at when it is an eighth older than at the last look, within these bounds: often at first, so that
	// a blob of twenty megabytes has its connections while it still matters; later for means over many round trips. So little
	// that the grain of single reads shows is looked at as seldom as can be.
	firstLook = 40 * time.Millisecond
	lastLook  = 250 * time.Millisecond
	grain     = 2 * chunk

	// trialFor is how long further workers have to show that they are worth it: a connection over a long line takes a
	// second or two until it runs at its full speed.
	trialFor = 3 * time.Second

	// restFor is how long it takes from the first trial that brought nothing to the next. After each further one it is twice
	// as long.
	restFor = 30 * time.Second

	// worthFor is how long the rest must take at the present rate for more workers to be worth a trial, and worthOn if the
	// last trial paid. Nor are they if it takes only few times what it took the source to answer.
	worthFor     = 750 * time.Millisecond
	worthOn      = 200 * time.Millisecond
	worthAnswers = 4

	// waitShare is for what part of their time workers have to wait for the source for more of them to be worth a trial: a
	// source that waits for them would only wait for more. A look that is late by more than lateBy tells that all wait for
	// processors, whatever else it sees.
	waitShare = 0.8
	lateBy    = 4 * time.Millisecond

	// steady is the ratio of two looks in a row above which a worker is still getting faster by itself.
	steady = 1.25

	// laggardFor is how long a worker has to show that it keeps up: more than it takes to begin.
	laggardFor = 3 * time.Second

	// laggardShare is how much slower than the others on average it may be. Connections over one line differ, but hardly by
	// that much unless one of them is stuck: readers from the start may be waiting for just what it was to bring.
	laggardShare = 8

	// fading is how long it takes until most of what was usual is forgotten.
	fading = 7 * time.Second
)

// The segments that workers side by side fetch one after the other, the lowest first, so that readers from the start
// never wait for long. They shrink towards the end, so that all workers end at about the same time.
const (
	minSegment = 1 << 20
	maxSegment = 32 << 20
)

// errSlow breaks off a stream that brings next to nothing while those beside it do.
var errSlow = errors.New("fill: a connection was much slower than those beside it")

// crowd decides how many workers fetch a whole side by side. One is the rule. More are added while they raise the rate at
// which content lands, as they do where a connection is limited and the line is not; those that did not are given back.
// Rates are in bytes a second.
type crowd struct {
	habit
	rates   [2]float64    // in the latest two looks
	base    float64       // before those on trial were added
	trial   int           // how many were added last, and have to show what they bring
	began   time.Time     // the trial
	seen    int           // looks since then
	worth   time.Duration // how long the rest must take
	answers time.Duration // how long the source took to answer
	usual   float64       // what one of several brought, lately
	origin  string        // that it is about
}

func newCrowd() crowd { return crowd{habit: habit{want: 1}, worth: worthFor} }

// look takes in what has landed since the last look, for what part of that time the workers waited for the source, how much is
// missing and how many workers there are.
func (c *crowd) look(now time.Time, took time.Duration, landed int64, waited float64, missing int64, workers int) {
	c.rates = [2]float64{float64(landed) / took.Seconds(), c.rates[0]}
	c.seen++
	switch {
	case c.trial == 0:
	case c.seen >= 2 && c.pays():
		c.trial, c.vain, c.at, c.worth = 0, 0, now, worthOn
	case now.Sub(c.began) >= trialFor:
		c.backTo(now, c.want-c.trial)
	}
	more := min(workers, maxWorkers-workers)
	ready := c.trial == 0 && !now.Before(c.rest) && workers >= c.want && c.rates[1] > 0 && c.rates[0] <= steady*c.rates[1]
	ready = ready && waited >= waitShare
	worth := max(c.worth, worthAnswers*c.answers)
	if ready && more > 0 && float64(missing) >= c.mean()*worth.Seconds() {
		c.base = max(c.rates[0], c.rates[1])
		c.want, c.trial, c.began, c.seen = workers+more, more, now, 0
	}
}

func (c *crowd) mean() float64 { return (c.rates[0] + c.rates[1]) / 2 }

// learn takes down what each of so many workers brings: what they do on average, or did a moment ago. When most have brought
// theirs and left, those that remain may be the ones that are stuck.
func (c *crowd) learn(took time.Duration, workers int) {
	if workers > 1 {
		c.usual = max(c.usual*(1-took.Seconds()/fading.Seconds()), c.mean()/float64(workers))
	}
}

// pays reports whether those on trial bring at least half of what they could bring at best.
func (c *crowd) pays() bool {
	best := float64(c.want) / float64(c.want-c.trial)
	return c.mean() >= c.base*(1+best)/2
}

// backTo ends a trial: there are to be so many workers, if not fewer already, and no trial for a while.
func (c *crowd) backTo(now time.Time, want int) {
	if c.trial > 0 {
		c.vain++
	}
	c.want, c.trial, c.at = max(1, min(c.want, want)), 0, now
	c.rest = now.Add(restFor << min(max(0, c.vain-1), 10))
}

// settled is what there is to be learnt from the crowd at the moment, if anything: not from a trial under way.
func (c *crowd) settled() (h habit, ok bool) {
	h = c.habit
	h.want -= c.trial
	return h, !h.at.IsZero()
}

// beginCrowdLocked lets the crowd begin with what is known of the origin that has answered, after so long.
func (f *flight) beginCrowdLocked(origin string, answered time.Duration) {
	f.crowd.answers, f.crowd.origin = answered, origin
	if f.size <= minSegment*maxWorkers {
		return
	}
	if h, ok := f.all.habits.recall(origin, time.Now()); ok {
		f.crowd.habit = h
		f.crowd.at = time.Time{} // it is not this crowd's own
		if h.want > 1 {
			f.crowd.worth = worthOn
		}
		if f.crowdedLocked() {
			f.growLocked()
		}
	}
}

// tune looks at the rate until the workers are to end.
func (f *flight) tune() {
	next := time.NewTimer(firstLook)
	defer next.Stop()
	began := time.Now()
	last, at, planned := f.landedNow(), began, began.Add(firstLook)
	for {
		select {
		case <-next.C:
		case <-f.ctx.Done():
			return
		}
		now := time.Now()
		age, took, late := now.Sub(began), now.Sub(at), now.Sub(planned) > lateBy
		f.mu.Lock()
		total := f.have.total()
		due := total-last >= grain || took >= lastLook
		if due && f.crowdedLocked() {
			f.lookLocked(now, took, total-last, late)
		}
		f.mu.Unlock()
		if due {
			last, at = total, now
		}
		pause := max(firstLook, min(lastLook, age/8))
		planned = time.Now().Add(pause)
		next.Reset(pause)
	}
}

// lookLocked takes in that so much has landed since the last look.
func (f *flight) lookLocked(now time.Time, took time.Duration, landed int64, late bool) {
	waited := f.waited.Seconds() / (took.Seconds() * float64(max(1, len(f.workers))))
	if f.waited = 0; late {
		waited = 0
	}
	f.crowd.look(now, took, landed, waited, f.size-f.have.total(), f.activeLocked())
	f.crowd.learn(took, len(f.workers))
	if h, ok := f.crowd.settled(); ok && f.crowd.origin != "" {
		f.all.habits.learn(f.crowd.origin, h)
	}
	for w := range f.workers {
		w.rate = (w.rate + float64(w.pos-w.seen)/took.Seconds()) / 2
		w.seen = w.pos
		if w.rate*laggardShare >= f.crowd.usual {
			w.kept = now
		}
		if now.Sub(w.kept) >= laggardFor {
			w.cut(errSlow)
			w.kept, f.crowd.usual = now, 0 // others may be no faster now
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
	f.crowd.backTo(time.Now(), workers)
	f.shrinkLocked()
}
