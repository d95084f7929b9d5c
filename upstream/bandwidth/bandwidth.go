// Package bandwidth limits how fast bytes are read, as a wrapper around an io.Reader.
//
// One Limiter is shared by every reader that draws on the same line. x/time/rate serves its waiters in order and call by
// call, so whoever asks for more per call gets more of the line; every reader here therefore asks for the same small
// chunk, and a stream's share does not depend on its buffer.
package bandwidth

import (
	"context"
	"io"
	"math"
	"time"

	"golang.org/x/time/rate"
)

const (
	// chunk is the most that one Read takes: io.Copy's own buffer size, so that the limit costs no extra system call, and
	// small enough that hundreds of streams still take turns within a second on a slow line.
	chunk = 32 << 10

	// burst is how much of the line may be used up at once after a pause. A second's worth would let a whole layer through
	// unshaped; a tenth keeps the line busy across the scheduler's hiccups.
	burst = 100 * time.Millisecond

	// glance is how long a reader waits for its turn before it looks whether it is still limited. Somebody may have begun to
	// wait for its bytes, and a second is what people take for a hiccup.
	glance = time.Second
)

// Limiter is one line's worth of bandwidth, shared by all its readers. The nil Limiter is an unlimited line.
type Limiter struct {
	rate *rate.Limiter
}

// New returns a limiter of so many bytes a second. Zero and less mean no limit, which is the nil Limiter.
func New(bytesPerSecond int64) *Limiter {
	if bytesPerSecond <= 0 {
		return nil
	}
	// What exceeds the burst never gets a turn, so the burst is never below a chunk, however slow the line.
	most := max(float64(bytesPerSecond)*burst.Seconds(), chunk)
	return &Limiter{rate: rate.NewLimiter(rate.Limit(bytesPerSecond), int(min(most, math.MaxInt32)))}
}

// Reader returns r at the limiter's pace, or r itself when there is no limit. A Read that waits for its turn ends when ctx
// does, with the cause of that; the bytes that had been read already are returned with it.
func (l *Limiter) Reader(ctx context.Context, r io.Reader) io.Reader {
	return l.ReaderWhile(ctx, r, func() bool { return true })
}

// ReaderWhile is Reader for as long as limited reports true, and r's own pace otherwise. That is asked for every chunk and,
// while a Read waits for its turn, once a second: it never waits longer than that for a limit that is off.
func (l *Limiter) ReaderWhile(ctx context.Context, r io.Reader, limited func() bool) io.Reader {
	if l == nil {
		return r
	}
	return &reader{ctx: ctx, limit: l.rate, from: r, limited: limited}
}

type reader struct {
	ctx     context.Context
	limit   *rate.Limiter
	from    io.Reader
	limited func() bool
}

// Read pays after reading, when it is known how much there was to pay for.
func (r *reader) Read(p []byte) (int, error) {
	n, err := r.from.Read(p[:min(len(p), chunk)])
	if n > 0 && r.limited() {
		if cause := r.pay(n); cause != nil {
			return n, cause
		}
	}
	return n, err
}

// pay waits for the turn of n bytes. It holds a place in the line all the while, which WaitN with a time-out would lose at
// each look at limited; nor does it give up ahead of a deadline, as WaitN does when its turn comes later: the bytes are
// here already, so waiting as long as allowed is the better bargain. Who leaves gives the place back.
func (r *reader) pay(n int) error {
	turn := r.limit.ReserveN(time.Now(), n)
	for wait := turn.Delay(); wait > 0; wait = turn.Delay() {
		select {
		case <-time.After(min(wait, glance)):
		case <-r.ctx.Done():
			turn.Cancel()
			return context.Cause(r.ctx)
		}
		if !r.limited() {
			turn.Cancel()
			return nil
		}
	}
	return nil
}
