package upstream

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	// What a header states beyond these is not believed: no registry counts so many, nor for so long.
	maxLimit  = 1_000_000_000
	maxWindow = 31 * 24 * time.Hour

	// epochFrom is from where on a number of seconds is a date.
	epochFrom = 1_000_000_000
)

// limitsOf reads what an answer says of limits. It is foreign bytes: what makes no sense is as good as not there.
func limitsOf(resp *http.Response, now time.Time) limits {
	l := limits{came: true, throttled: resp.StatusCode == http.StatusTooManyRequests}
	if l.throttled {
		l.retryAfter = retryAfter(resp.Header, now)
	}
	remaining, window, ok := parseLimit(resp.Header.Get("RateLimit-Remaining"))
	if !ok {
		return l
	}
	limit, limitWindow, _ := parseLimit(resp.Header.Get("RateLimit-Limit"))
	l.stated, l.remaining, l.limit = true, remaining, max(limit, remaining, 1)
	for _, l.window = range []time.Duration{window, limitWindow, unstatedWindow} {
		if l.window > 0 {
			break
		}
	}
	return l
}

// parseLimit reads a number of requests, and the window that it is for, or 0: "76;w=21600". Of a list the first counts.
func parseLimit(header string) (n int64, window time.Duration, ok bool) {
	header, _, _ = strings.Cut(header, ",")
	number, params, _ := strings.Cut(header, ";")
	n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
	if err != nil || n < 0 || n > maxLimit {
		return 0, 0, false
	}
	for param := range strings.SplitSeq(params, ";") {
		name, value, _ := strings.Cut(param, "=")
		seconds, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
		if strings.TrimSpace(name) == "w" && err == nil && seconds > 0 && seconds <= int64(maxWindow/time.Second) {
			return n, time.Duration(seconds) * time.Second, true
		}
	}
	return n, 0, true
}

// retryAfter is when an answer wants to be asked for again, an hour at most; 0: it does not say, or at once. Docker Hub
// has a header of its own for it, which holds seconds, or the date as seconds of Unix time.
func retryAfter(h http.Header, now time.Time) time.Duration {
	if d, stated := parseRetryAfter(h.Get("Retry-After"), now); stated {
		return d
	}
	own := strings.TrimSpace(h.Get("X-Retry-After"))
	if seconds, err := strconv.ParseInt(own, 10, 64); err == nil && seconds >= epochFrom {
		return min(max(time.Unix(min(seconds, 1<<40), 0).Sub(now), 0), maxRetryAfter)
	}
	d, _ := parseRetryAfter(own, now)
	return d
}
