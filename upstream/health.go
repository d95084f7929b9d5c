package upstream

import (
	"context"
	"errors"
	"net/http"
	"time"

	"go.uber.org/zap"
)

// traffic is a sort of request that fares by itself: behind one endpoint, blobs come from other machines than all that is
// small, and either may be out of order while the other is well.
type traffic int

const (
	small traffic = iota
	blobs
)

var traffics = [...]traffic{small, blobs}

func (t traffic) String() string { return [...]string{"all but blobs", "blobs"}[t] }

const (
	// downAt is the weight of faults in a row at which an endpoint is down. A 5xx weighs one, because a single one may be
	// about a single request; no answer, or half of one, is about the endpoint and weighs all three.
	downAt = 3

	// steady is how long an endpoint must have been up for its next fall to be news. One that falls sooner has not
	// recovered, whatever the probe says.
	steady = time.Minute

	// fairShare is how much of smallTimeout an endpoint must have had for it to be at fault when that runs out: the rest may
	// have gone to a token server, which is no part of it.
	fairShare = smallTimeout / 2
)

// health is how an endpoint fares with one sort of traffic.
type health struct {
	faults     int // in a row, by weight
	fell, rose time.Time
	pause      time.Duration      // the latest before a probe
	endProbe   context.CancelFunc // while it is down
}

func (h *health) down() bool { return h.faults == downAt }

// hear notes what an endpoint, or where that has led it, made of q since it was sent. It is not told of token requests, since
// a token server is no part of the endpoint that names it: a probe could not tell when it is back.
//
// An answer that promises content is no success yet: that is told by the end of the content.
func (r *Registry) hear(ctx context.Context, e *endpoint, q question, since time.Time, resp *http.Response, err error) {
	if err != nil {
		r.silence(ctx, e, q, since, err)
		return
	}
	switch status := resp.StatusCode; {
	case status == http.StatusTooManyRequests:
		if q.traffic() == blobs {
			e.spare(resp.Header.Get("Retry-After"))
		}
	case status == http.StatusNotImplemented: // speaks of the method and not of the day
	case status >= http.StatusInternalServerError:
		r.fault(e, q.traffic(), 1, errors.New(resp.Status), q.blob)
	case q.traffic() == small && (status != http.StatusOK || q.method == http.MethodHead):
		r.revive(e, small, since)
	}
}

// silence notes that q brought no answer. Of the endpoint's own origin that is about all traffic; of a host that it
// redirects to, about what is found there.
func (r *Registry) silence(ctx context.Context, e *endpoint, q question, since time.Time, err error) {
	if _, answered := errors.AsType[misled](err); answered || !isFault(ctx, since) {
		return
	}
	_, elsewhere := errors.AsType[abroad](err)
	for _, t := range traffics {
		if t == q.traffic() || !elsewhere {
			r.fault(e, t, downAt, err, q.blob)
		}
	}
}

// broke notes that the content which answers q broke off, or stopped. It reports whether that is the endpoint's fault.
func (r *Registry) broke(ctx context.Context, e *endpoint, q question, since time.Time, err error) bool {
	fault := isFault(ctx, since)
	if fault {
		r.fault(e, q.traffic(), downAt, err, q.blob)
	}
	return fault
}

// isFault reports whether what failed under ctx, begun at since, is to be blamed on who was asked: not if the caller has
// left, for then ctx has another cause than our own time-outs, nor if others used up the time.
func isFault(ctx context.Context, since time.Time) bool {
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, errSlow):
		return time.Since(since) >= fairShare
	case errors.Is(cause, ErrStalled):
		return true
	default:
		return cause == nil
	}
}

// fault counts a fault of an endpoint with some traffic. The one that brings it down starts its probe, for the blob that
// was asked for if that is known.
//
// There is one probe of an endpoint's traffic at most: only a fall starts one, and between two falls there was a recovery,
// which cancels the earlier under the same lock that the later is made under.
func (r *Registry) fault(e *endpoint, t traffic, weight int, cause error, sample blobName) {
	e.mu.Lock()
	h := &e.health[t]
	falls := !h.down() && h.faults+weight >= downAt
	h.faults = min(h.faults+weight, downAt)
	if !falls {
		e.mu.Unlock()
		return
	}
	h.fell = time.Now()
	if h.fell.Sub(h.rose) >= steady {
		h.pause = 0
	}
	ctx, cancel := context.WithCancel(r.life)
	h.endProbe = cancel
	e.mu.Unlock()
	r.log.Warn("endpoint is down", zap.String("registry", r.name), zap.String("endpoint", e.name), zap.Stringer("for", t),
		zap.String("error", printable(bare(cause).Error(), maxCause)))
	if r.enter() {
		go func() {
			defer r.work.Done()
			r.probe(ctx, e, t, sample)
		}()
	}
}

// revive notes that an endpoint did well with some traffic, in what was begun at since. What was begun before it fell says
// nothing of the time after: the last stream that a dying disk feeds to its end must not bring it back.
func (r *Registry) revive(e *endpoint, t traffic, since time.Time) {
	e.mu.Lock()
	h := &e.health[t]
	if since.Before(h.fell) {
		e.mu.Unlock()
		return
	}
	rises := h.down()
	h.faults = 0
	if rises {
		h.rose = time.Now()
		h.endProbe()
	}
	e.mu.Unlock()
	if rises {
		r.log.Info("endpoint is back", zap.String("registry", r.name), zap.String("endpoint", e.name), zap.Stringer("for", t))
	}
}
