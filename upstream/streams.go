package upstream

import "time"

const (
	// throttledFor is how long a 429 counts that does not say so itself. Registries count their limits in minutes to hours,
	// and meanwhile nothing is lost but further connections for blobs that come anyway.
	throttledFor = 10 * time.Minute

	// rangelessFor is how long an endpoint that ignored a range is not asked for another that can be done without. What stands
	// in front of a registry is mended less often than once an hour, and one answer tells that it was.
	rangelessFor = time.Hour

	// A stream's speed tells of more than of round trips once it has brought so many bytes, or has been waited for so long:
	// without the second, an endpoint that trickles would never be seen to.
	telling     = 1 << 20
	tellingWait = 2 * time.Second

	// measuredFor is how long a measured speed counts: lines and their load change, and who was slow once deserves a second
	// look for the price of one blob.
	measuredFor = 10 * time.Minute

	// hopeless is the speed of a stream that failed. It is that of an endpoint only while there is no other.
	hopeless = 1.0
)

// join counts a blob stream that is about to be opened.
func (e *endpoint) join() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.streams++
}

// joinSparing is join for a stream from an offset on that can be done without: it counts none, and says so, if e throttles,
// would send all that precedes the offset too, or has limit streams already. Looking and counting under one lock keeps any
// number of callers within the limit.
func (e *endpoint) joinSparing(offset int64, limit int) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	if e.streams >= limit || now.Before(e.throttled) || offset > 0 && now.Before(e.rangeless) {
		return false
	}
	e.streams++
	return true
}

// leave ends a stream that join has counted, and learns from how fast it was; 0: it does not tell.
func (e *endpoint) leave(speed float64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.streams--
	known := e.speedLocked()
	switch {
	case speed == 0, speed == hopeless && known > hopeless:
		return
	case known > hopeless:
		speed = (known + speed) / 2
	}
	e.speed, e.lastMeasure = speed, time.Now()
}

// speedLocked is how fast streams of e were lately; 0: nobody knows.
func (e *endpoint) speedLocked() float64 {
	if time.Since(e.lastMeasure) > measuredFor {
		return 0
	}
	return e.speed
}

// spare notes that e throttles, for as long as a Retry-After header says. What it said before holds as well.
func (e *endpoint) spare(retryAfter string) {
	now := time.Now()
	d, stated := parseRetryAfter(retryAfter, now)
	if !stated {
		d = throttledFor
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if until := now.Add(d); until.After(e.throttled) {
		e.throttled = until
	}
}

// keepsRanges notes whether e has kept to a range.
func (e *endpoint) keepsRanges(kept bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.rangeless = time.Time{}
	if !kept {
		e.rangeless = time.Now().Add(rangelessFor)
	}
}
