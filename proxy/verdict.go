package proxy

import (
	"errors"
	"strconv"
	"time"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/upstream"
)

// localStatus is the Cache-Status of what the mirror answers by itself.
const localStatus = `entrepot; detail=local`

// errorStatus is the Cache-Status of an error. fwd-status is what upstream said, and left out when it said nothing (RFC
// 9211, 2.3): what the client gets instead is in the answer itself.
func (c *call) errorStatus(err error) string {
	switch {
	case c.hasVerdict: // the content was at hand, and the error is about what was asked of it
		return cacheStatus(c.verdict)
	case !c.asked:
		return localStatus
	case errors.Is(err, cache.ErrRemembered): // nobody else was asked
		return "entrepot; hit; detail=negative"
	}
	if up, ok := errors.AsType[*upstream.Error](err); ok && up.Status != 0 {
		return "entrepot; fwd=miss; fwd-status=" + strconv.Itoa(up.Status)
	}
	return "entrepot; fwd=miss"
}

// cacheStatus says how an answer came about: RFC 9211. An answer that is stale is a hit of negative ttl.
func cacheStatus(v cache.Verdict) string {
	if v == (cache.Verdict{Outcome: cache.Hit}) {
		return "entrepot; hit" // nearly always
	}
	s := append(make([]byte, 0, 64), "entrepot"...)
	switch v.Outcome {
	case cache.Hit, cache.Stale:
		s = append(s, "; hit"...)
	case cache.Revalidated:
		s = append(s, "; fwd=stale; fwd-status=200"...)
	case cache.Miss:
		s = append(s, "; fwd=miss"...)
	case cache.Collapsed:
		s = append(s, "; fwd=miss; collapsed"...)
	}
	if v.Stored {
		s = append(s, "; stored"...)
	}
	if v.Mutable {
		s = strconv.AppendInt(append(s, "; ttl="...), seconds(v.TTL), 10)
	}
	if v.Outcome == cache.Stale {
		s = append(s, "; detail=stale"...)
	}
	return string(s)
}

// seconds rounds down: what is overdue by half a second has a ttl of -1.
func seconds(d time.Duration) int64 {
	s := int64(d / time.Second)
	if d < 0 && d%time.Second != 0 {
		s--
	}
	return s
}

// answered takes down the verdict, and tells the client.
func (c *call) answered(v cache.Verdict) {
	c.verdict, c.hasVerdict = v, true
	c.set("Cache-Status", cacheStatus(v))
	if v.Mutable && v.Outcome != cache.Miss && v.Outcome != cache.Collapsed {
		c.set("Age", strconv.FormatInt(int64(v.Age/time.Second), 10))
	}
	if v.Outcome == cache.Stale {
		why := "could not be asked"
		if up, ok := errors.AsType[*upstream.Error](v.Cause); ok && up.Answered() {
			why = "does not have it any more"
		}
		c.set("Warning", `299 - "stale: upstream `+why+`"`)
	}
}
