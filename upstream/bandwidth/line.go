package bandwidth

import (
	"container/heap"
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Flow names who shares a line: whatever has the same name has one share.
type Flow string

// Line is a rate that flows share in equal parts. The nil Line is unlimited for ever. Its methods may be called from many
// goroutines.
//
// Who waits for bytes is in the queue of its flow, and the flow in the line's order. The order is that of start-time fair
// queueing: each flow has counted what was granted to it, the one with the least is served next, a portion at most at a
// time, and who comes begins where the last who was served was. So nobody pays for having been alone; and a flow that takes
// little at a time keeps up with one that takes much, for it is the first in the order until it has had as much.
//
// Who comes back within the time of a burst goes on where it was, at most a burst behind: what is there at once after a pause is
// had by who is quick, and the others make up for it. Who stays away for longer begins as if it were new, so nobody saves up
// what it did not ask for.
type Line struct {
	rate atomic.Int64 // bytes a second; 0: unlimited. Written under the mutex, read without by who then needs nothing else

	waited atomic.Int64 // nanoseconds, of all who have waited

	mu sync.Mutex
	// guards following
	bucket  bucket
	flows   map[Flow]*flow // all that are in the order, and those that may be ahead of who comes now
	order   order          // the flows that somebody waits in
	reached int64          // the count that a new flow begins with
	waiting int            // how many wait in all flows
	sweepAt int            // how many flows there are when those that are not ahead any more are forgotten
	timer   *time.Timer    // serves the first in the order when the bucket has enough for it; nil: never needed
}

// flow is what a line knows of a flow.
type flow struct {
	count   int64     // bytes granted, and where it began
	granted time.Time // for the last time
	waiters []*waiter
	place   int // in the order, if there are waiters
}

// waiter is one who takes bytes and waits for them.
type waiter struct {
	flow          *flow
	need, granted int           // bytes: still, and so far
	ready         chan struct{} // closed when it need not wait any longer
}

// NewLine returns a line of so many bytes a second; zero and less: unlimited.
func NewLine(bytesPerSecond int64) *Line {
	l := &Line{flows: make(map[Flow]*flow)}
	l.SetRate(bytesPerSecond)
	if l.bucket.rate > 0 { // nothing has passed yet
		l.bucket.put(time.Now(), l.bucket.room())
	}
	return l
}

// Rate is how many bytes a second pass; 0: unlimited.
func (l *Line) Rate() int64 {
	if l == nil {
		return 0
	}
	return l.rate.Load()
}

// SetRate changes the rate; zero and less: unlimited. All obey it at once. Who waits for more than a portion at the new rate
// waits for a portion only: what was a moment's worth might be minutes' now.
func (l *Line) SetRate(bytesPerSecond int64) {
	bytesPerSecond = max(bytesPerSecond, 0)
	l.mu.Lock()
	defer l.mu.Unlock()
	if bytesPerSecond == l.rate.Load() {
		return
	}
	slower := l.rate.Load() == 0 || bytesPerSecond < l.rate.Load()
	now := time.Now()
	l.rate.Store(bytesPerSecond)
	l.bucket.set(now, bytesPerSecond)
	if bytesPerSecond == 0 {
		l.releaseLocked()
		return
	}
	if slower {
		for _, f := range l.order {
			for _, w := range f.waiters {
				w.need = min(w.need, portionOf(bytesPerSecond))
			}
		}
	}
	l.serveLocked(now)
}

// releaseLocked lets all go who wait.
func (l *Line) releaseLocked() {
	for _, f := range l.order {
		for _, w := range f.waiters {
			close(w.ready)
		}
		f.waiters = nil
	}
	l.order, l.waiting = nil, 0
}

// Portion is how many bytes are best taken at a time. Who takes less has its share only as far as timers are exact, who takes
// more waits longer at a stretch.
func (l *Line) Portion() int { return portionOf(l.Rate()) }

// Take takes n bytes on behalf of a flow, and waits until the line has them. It fails with the cause of ctx when that ends
// first: then nothing was taken.
func (l *Line) Take(ctx context.Context, of Flow, n int) error { return l.TakeWhile(ctx, of, n, nil) }

// TakeWhile is Take for as long as limited reports true; then it takes nothing and succeeds. That is asked at first and, while
// it waits, once a second. It keeps its place in the queue meanwhile.
func (l *Line) TakeWhile(ctx context.Context, of Flow, n int, limited func() bool) error {
	if n <= 0 || l.Rate() == 0 || limited != nil && !limited() {
		return nil
	}
	if w := l.join(of, n); w != nil {
		return l.await(ctx, w, limited)
	}
	return nil
}

// Spend takes n bytes without waiting for them: those who wait, and those who come, wait for longer. It is for what is so
// small that it should never wait, and for what has passed already.
func (l *Line) Spend(n int) {
	if n <= 0 || l.Rate() == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.bucket.rate > 0 { // still
		l.bucket.owe(time.Now(), n)
	}
}

// giveBack undoes a Take.
func (l *Line) giveBack(n int) {
	if l.Rate() == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if l.bucket.rate > 0 { // still
		l.bucket.put(now, n)
		l.serveLocked(now)
	}
}

// Stats are a line's figures.
type Stats struct {
	Rate    int64         // bytes a second; 0: unlimited
	Waiting int           // how many wait for bytes
	Waited  time.Duration // how long all together who do not wait any longer have
}

// Stats returns the line's figures of this moment.
func (l *Line) Stats() Stats {
	if l == nil {
		return Stats{}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return Stats{l.rate.Load(), l.waiting, time.Duration(l.waited.Load())}
}

// idle reports whether a new line of the same rate would be the same.
func (l *Line) idle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.bucket.rate == 0 {
		return true
	}
	l.bucket.fill(time.Now())
	return l.waiting == 0 && l.bucket.owed == 0 && l.bucket.level(time.Now()) >= float64(l.bucket.room())
}

// join takes n bytes, or returns who waits for them.
func (l *Line) join(of Flow, n int) *waiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.bucket.rate == 0 { // since just now
		return nil
	}
	now := time.Now()
	f := l.flowLocked(now, of)
	if l.waiting == 0 {
		l.bucket.fill(now)
		if l.bucket.level(now) >= float64(n) {
			l.reached = max(l.reached, f.count-int64(l.bucket.room())) // it may be ahead of others who are about to come back
			l.grantLocked(now, f, n)
			return nil
		}
	}
	w := &waiter{flow: f, need: n, ready: make(chan struct{})}
	f.waiters = append(f.waiters, w)
	l.waiting++
	if len(f.waiters) == 1 {
		heap.Push(&l.order, f)
	}
	l.serveLocked(now)
	return w
}

// flowLocked returns the flow of that name, with the count that it goes on with.
func (l *Line) flowLocked(now time.Time, name Flow) *flow {
	f := l.flows[name]
	if f == nil {
		if len(l.flows) >= l.sweepAt {
			l.sweepLocked(now)
		}
		f = &flow{}
		l.flows[name] = f
	}
	switch {
	case f.awayLocked(now):
		f.count = max(f.count, l.reached)
	case len(f.waiters) == 0: // it may have asked for little, again and again: that is not saved up either
		f.count = max(f.count, l.reached-int64(l.bucket.room()))
	}
	return f
}

// awayLocked reports whether nothing was asked for in a flow for longer than a burst.
func (f *flow) awayLocked(now time.Time) bool {
	return len(f.waiters) == 0 && now.Sub(f.granted) > burst
}

// sweepLocked forgets the flows that would begin where a new one does. If nobody waits, who is away may as well. Each sweep
// lets as many come as it has left, so that all of them cost little more than the coming.
func (l *Line) sweepLocked(now time.Time) {
	for name, f := range l.flows {
		if f.awayLocked(now) && (l.waiting == 0 || f.count <= l.reached) {
			delete(l.flows, name)
		}
	}
	l.sweepAt = 2*len(l.flows) + 64
}

// grantLocked gives a flow n bytes, which the bucket has.
func (l *Line) grantLocked(now time.Time, f *flow, n int) {
	l.bucket.take(now, n)
	f.count += int64(n)
	f.granted = now
}

// serveLocked grants what the bucket has, and sees to it that the next is served in time.
func (l *Line) serveLocked(now time.Time) {
	if l.waiting == 0 {
		return
	}
	l.bucket.fill(now)
	for l.waiting > 0 {
		f := l.order[0]
		w := f.waiters[0]
		n := min(w.need, portionOf(l.bucket.rate))
		if l.bucket.level(now) < float64(n) {
			l.wakeLocked(l.bucket.until(now, n))
			return
		}
		l.reached = max(l.reached, f.count)
		l.grantLocked(now, f, n)
		w.granted += n
		if w.need -= n; w.need > 0 {
			heap.Fix(&l.order, 0)
			continue
		}
		close(w.ready)
		l.dropLocked(f, 0)
	}
}

// dropLocked takes a flow's i-th waiter out of its queue, and puts the flow where it belongs now.
func (l *Line) dropLocked(f *flow, i int) {
	f.waiters = append(f.waiters[:i], f.waiters[i+1:]...)
	l.waiting--
	if len(f.waiters) == 0 {
		heap.Remove(&l.order, f.place)
	} else {
		heap.Fix(&l.order, f.place)
	}
}

// wakeLocked has the line serve after d.
func (l *Line) wakeLocked(d time.Duration) {
	if l.timer != nil {
		l.timer.Reset(d) // if it has fired and is waiting for the mutex, the line is served once too often
		return
	}
	l.timer = time.AfterFunc(d, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.bucket.rate > 0 {
			l.serveLocked(time.Now())
		}
	})
}

// await waits until a waiter has all that it came for, or need not or will not wait any longer.
func (l *Line) await(ctx context.Context, w *waiter, limited func() bool) error {
	select {
	case <-w.ready: // at once
		return nil
	default:
	}
	start := time.Now()
	defer func() { l.waited.Add(int64(time.Since(start))) }()
	var look <-chan time.Time
	if limited != nil {
		ticker := time.NewTicker(glance)
		defer ticker.Stop()
		look = ticker.C
	}
	for {
		select {
		case <-w.ready:
			return nil
		case <-look:
			if !limited() {
				l.leave(w)
				return nil
			}
		case <-ctx.Done():
			if l.leave(w) {
				return context.Cause(ctx)
			}
			return nil
		}
	}
}

// leave takes a waiter out of the line and gives back what it was granted, unless that was all; it reports whether it did.
// Whichever comes first under the mutex, the last grant or this, decides.
func (l *Line) leave(w *waiter) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range w.flow.waiters {
		if w.flow.waiters[i] != w {
			continue
		}
		now := time.Now()
		l.bucket.put(now, w.granted)
		w.flow.count -= int64(w.granted)
		l.dropLocked(w.flow, i)
		l.serveLocked(now)
		return true
	}
	return false
}

// order has the flow that is served next first.
type order []*flow

func (o order) Len() int           { return len(o) }
func (o order) Less(i, j int) bool { return o[i].count < o[j].count }

func (o order) Swap(i, j int) {
	o[i], o[j] = o[j], o[i]
	o[i].place, o[j].place = i, j
}

func (o *order) Push(f any) {
	f.(*flow).place = len(*o)
	*o = append(*o, f.(*flow))
}

func (o *order) Pop() any {
	last := len(*o) - 1
	f := (*o)[last]
	(*o)[last] = nil
	*o = (*o)[:last]
	return f
}
