package bandwidth

import (
	"time"

	"golang.org/x/time/rate"
)

// bucket holds the bytes that may pass. It is for who holds the line's mutex; the zero value is of the rate 0, which is none.
//
// The limiter below is never waited for: it wakes nobody when its rate changes, and serves call by call. It is asked what it
// has; a reservation that is not waited for takes that, and one of a negative number puts back. What has passed beside the
// limiter is owed, and paid by half of what comes: as long as anything is, the limiter's rate is half of the bucket's.
type bucket struct {
	rate   int64 // bytes a second
	tokens *rate.Limiter
	owed   float64   // bytes that had passed and were not there
	at     time.Time // when so much was owed
}

// room is the most that the bucket holds: whatever the rate, a portion fits.
func (b *bucket) room() int { return max(int(bytesIn(burst, b.rate)), minPortion) }

// level is how many bytes there are.
func (b *bucket) level(now time.Time) float64 { return b.tokens.TokensAt(now) }

// fill pays for what is owed. It comes before the bucket is looked at.
func (b *bucket) fill(now time.Time) {
	if b.owed == 0 {
		return
	}
	if end := b.at.Add(time.Duration(2 * b.owed / float64(b.rate) * float64(time.Second))); !now.Before(end) {
		b.owed = 0
		b.tokens.SetLimitAt(end, rate.Limit(b.rate))
		return
	}
	b.owed -= bytesIn(now.Sub(b.at), b.rate) / 2
	b.at = now
}

// take takes n bytes, which are there.
func (b *bucket) take(now time.Time, n int) { b.tokens.ReserveN(now, n) }

// put puts n bytes back, as far as there is room.
func (b *bucket) put(now time.Time, n int) { b.tokens.ReserveN(now, -min(n, b.room())) }

// owe takes n bytes, whether they are there or not. What is there stays there, for somebody who waits until it is enough.
func (b *bucket) owe(now time.Time, n int) {
	b.fill(now)
	b.owed, b.at = min(b.owed+float64(n), bytesIn(debt, b.rate)), now
	b.tokens.SetLimitAt(now, b.limit())
}

// limit is what of the rate is not for what is owed.
func (b *bucket) limit() rate.Limit {
	if b.owed > 0 {
		return rate.Limit(b.rate) / 2
	}
	return rate.Limit(b.rate)
}

// set changes the rate from now on. What is there, and what is owed, stays within the bounds of the new rate; after none, nothing
// is there.
func (b *bucket) set(now time.Time, bytesPerSecond int64) {
	was := b.rate
	if was > 0 {
		b.fill(now)
	}
	b.rate = bytesPerSecond
	switch {
	case bytesPerSecond == 0:
		b.tokens, b.owed = nil, 0
	case was == 0:
		b.tokens = rate.NewLimiter(b.limit(), b.room())
		b.take(now, b.room())
	default:
		b.tokens.SetBurstAt(now, b.room()) // at the old rate until now
		b.owe(now, 0)
	}
}

// until is how long it takes until n bytes are there, and at least a nanosecond.
func (b *bucket) until(now time.Time, n int) time.Duration {
	missing := float64(n) - b.level(now)
	missing += min(b.owed, missing) // half of what comes is for what is owed, until that is paid
	return max(time.Duration(missing/float64(b.rate)*float64(time.Second))+1, 1)
}
