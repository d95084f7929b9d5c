// Package bandwidth shares lines: how many bytes a second pass, and whose they are.
//
// A Line is one rate. Who sends or receives takes the bytes from it before they go, or as soon as they are here, and waits
// until the line has them. They are taken on behalf of a flow (a blob that is fetched, a client that is sent to), and it is
// flows that share the line in equal parts: whatever they take at a time, by however many connections, since whenever.
//
// Lines nest: bytes are taken from one after the other, the narrowest first ([Lines]). What waits for its own line is not in
// the queue of the next, so it neither holds others up there nor keeps bytes from them; and while it waits in the next, its
// own line gathers what it will need, up to a burst. So the whole line is used as long as anybody can use it, and a flow that
// its own line holds back loses nothing of that.
//
// The invariants:
//
//   - In any stretch of time no more passes than the rate allows and a burst, unless more than half of it is small things
//     that wait for nobody (Spend). Those who wait pay for these.
//   - Who waits waits on no goroutine but its own. One timer a line wakes whoever's turn it is; no rate is polled.
//   - A rate that is set is obeyed at once, by those who wait too.
//   - What was granted to who leaves goes back to the line.
package bandwidth

import (
	"context"
	"time"
)

const (
	// burst is how much of the line may be used up at once after a pause. A second's worth would let a whole layer through
	// unshaped; a tenth keeps the line busy across the scheduler's hiccups.
	burst = 100 * time.Millisecond

	// debt is how much of what was spent is paid for, at most, and by half of what comes: however much passes that is small,
	// what is large keeps moving, and is itself again soon after.
	debt = time.Second

	// glance is how long who waits does so before it looks whether it is still limited. Somebody may have begun to wait for its
	// bytes, and a second is what people take for a hiccup.
	glance = time.Second
)

// What is best taken at a time, in bytes. Two milliseconds' worth makes five hundred grants a second at any rate, each of
// which may be a process that wakes up from its sleep. It is no less because a timer is late by a millisecond: of what has
// gathered by then each flow should be able to take no more than its turn. Less than minPortion is not worth a system call.
// More than maxPortion is not worth waiting for if the rate has just become a slow one; it is what goes at a time where
// there is no limit, and what Go asks of one sendfile.
const (
	portion    = 2 * time.Millisecond
	minPortion = 4 << 10
	maxPortion = 4 << 20
)

// bytesIn is how many bytes a rate makes in so much time.
func bytesIn(d time.Duration, bytesPerSecond int64) float64 {
	return d.Seconds() * float64(bytesPerSecond)
}

// portionOf is what is best taken at a time from a line of that rate.
func portionOf(bytesPerSecond int64) int {
	if bytesPerSecond <= 0 {
		return maxPortion
	}
	return int(min(max(bytesIn(portion, bytesPerSecond), minPortion), maxPortion))
}

// Follow sets a rate by a plan until ctx ends, or for ever where the plan says so: at each time the plan tells the rate, and
// until when that holds (zero: for ever). It asks the plan at least once a minute, since clocks are set and machines sleep.
func Follow(ctx context.Context, l interface{ SetRate(bytesPerSecond int64) }, plan func(time.Time) (bytesPerSecond int64, until time.Time)) {
	for {
		rate, until := plan(time.Now())
		l.SetRate(rate)
		if until.IsZero() {
			return
		}
		select {
		case <-time.After(min(max(time.Until(until), time.Millisecond), time.Minute)):
		case <-ctx.Done():
			return
		}
	}
}
