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
	// WaitN refuses at once what exceeds the burst, so the burst is never below a chunk, however slow the line.
	most := max(float64(bytesPerSecond)*burst.Seconds(), chunk)
	return &Limiter{rate: rate.NewLimiter(rate.Limit(bytesPerSecond), int(min(most, math.MaxInt32)))}
}

// Reader returns r at the limiter's pace, or r itself when there is no limit. A Read that waits for its turn ends when ctx
// does, with the cause of that; the bytes that had been read already are returned with it.
func (l *Limiter) Reader(ctx context.Context, r io.Reader) io.Reader {
	if l == nil {
		return r
	}
	return &reader{ctx: ctx, limit: l.rate, from: r}
}

type reader struct {
	ctx   context.Context
	limit *rate.Limiter
	from  io.Reader
}

// Read pays after reading, when it is known how much there was to pay for.
func (r *reader) Read(p []byte) (int, error) {
	n, err := r.from.Read(p[:min(len(p), chunk)])
	if n > 0 && r.limit.WaitN(undated{r.ctx}, n) != nil {
		return n, context.Cause(r.ctx)
	}
	return n, err
}

// undated is a context that ends when its parent does but tells nobody when that will be. WaitN looks at the deadline and
// gives up at once if its turn comes later; the bytes are here already, so waiting as long as allowed is the better bargain.
type undated struct{ context.Context }

func (undated) Deadline() (time.Time, bool) { return time.Time{}, false }
