package upstream

import (
	"math"
	"time"
)

const (
	// After a 429 requests are spaced: half as many a second as were answered in one before it, though not fewer than
	// firstPace, and half as many again after each further 429, down to slowest. The rate doubles every doublesIn without another
	// one, since a limit that was met is no more than a guess at the limit that is; beyond fastest there is none.
	firstPace = 5.0
	slowest   = 0.5
	doublesIn = time.Minute
	fastest   = 1000.0
)

// pace spaces requests by a token bucket that holds a second's worth. The zero value spaces none.
type pace struct {
	rate  float64 // a second, at since; 0: as they come
	since time.Time

	bucket float64 // less than nothing, when more was taken than there was
	filled time.Time

	second        time.Time // in which answers are counted
	count, before int       // in it, and in the one before
}

// at is the rate of a moment.
func (p *pace) at(now time.Time) float64 {
	return p.rate * math.Exp2(float64(now.Sub(p.since))/float64(doublesIn))
}

// wait is how long the next request has to wait.
func (p *pace) wait(now time.Time) time.Duration {
	if p.rate == 0 {
		return 0
	}
	rate := p.at(now)
	if rate > fastest {
		p.rate = 0
		return 0
	}
	p.bucket = min(p.bucket+rate*now.Sub(p.filled).Seconds(), max(rate, 1))
	p.filled = now
	if p.bucket >= 1 {
		return 0
	}
	return max(time.Duration((1-p.bucket)/rate*float64(time.Second)), time.Millisecond)
}

func (p *pace) take() { p.bucket-- }

// giveBack undoes a take that was waited for in vain. Those who wait behind it keep their times, so it fills no more than a debt.
func (p *pace) giveBack() { p.bucket = max(p.bucket, min(p.bucket+1, 0)) }

// slow takes down that there were too many.
func (p *pace) slow(now time.Time) {
	p.turn(now)
	rate := max(float64(max(p.count, p.before))/2, firstPace)
	if p.rate > 0 {
		rate = max(p.at(now)/2, slowest)
	}
	p.rate, p.since = rate, now
	p.bucket, p.filled = 0, now
}

// answered counts an answer that was no 429.
func (p *pace) answered(now time.Time) {
	p.turn(now)
	p.count++
}

func (p *pace) turn(now time.Time) {
	second := now.Truncate(time.Second)
	switch second.Sub(p.second) {
	case 0:
	case time.Second:
		p.count, p.before = 0, p.count
	default:
		p.count, p.before = 0, 0
	}
	p.second = second
}
