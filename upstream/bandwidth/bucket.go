package bandwidth

import (
	"time"

	"golang.org/x/time/rate"
)

// bucket holds the bytes that may pass. It is for who holds the line's mutex; the zero value is of the rate 0, which is none.
//
// The limiter below is never waited for: it wakes nobody when its rate changes, and serves call by call. It is asked what it
// has, and a reservation that is not waited for takes what it has not got: that is owed. One of a negative number puts back.
type bucket struct {
	rate   int64 // bytes a second
	tokens *rate.Limiter
}

// room is the most that the bucket holds: whatever the rate, a portion fits.
func (b *bucket) room() int { return max(int(bytesIn(burst, b.rate)), minPortion) }

// level is how many bytes there are; negative: owed.
func (b *bucket) level(now time.Time) float64 { return b.tokens.TokensAt(now) }

// take takes n bytes out, as far as may be owed.
func (b *bucket) take(now time.Time, n int) {
	n = min(n, int(max(b.level(now)+bytesIn(debt, b.rate), 0)))
	for room := b.room(); n > 0; n -= room {
		b.tokens.ReserveN(now, min(n, room))
	}
}

// put puts n bytes back, as far as there is room.
func (b *bucket) put(now time.Time, n int) { b.tokens.ReserveN(now, -min(n, b.room())) }

// set changes the rate from now on. What is in the bucket, or owed, is so within the bounds of the new rate; what comes after
// none begins with a full one.
func (b *bucket) set(now time.Time, bytesPerSecond int64) {
	was := b.rate
	b.rate = bytesPerSecond
	switch {
	case bytesPerSecond == 0:
		b.tokens = nil
		return
	case was == 0:
		b.tokens = rate.NewLimiter(rate.Limit(bytesPerSecond), b.room())
		return
	}
	b.tokens.SetLimitAt(now, rate.Limit(bytesPerSecond))
	b.tokens.SetBurstAt(now, b.room())
	for tooMuch := -int(b.level(now) + bytesIn(debt, b.rate)); tooMuch > 0; tooMuch -= b.room() {
		b.put(now, tooMuch)
	}
}

// until is how long it takes until n bytes are there, and at least a nanosecond.
func (b *bucket) until(now time.Time, n int) time.Duration {
	missing := (float64(n) - b.level(now)) / float64(b.rate) // seconds
	return max(time.Duration(missing*float64(time.Second))+1, 1)
}
