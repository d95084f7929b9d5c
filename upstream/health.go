package upstream

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"time"

	"go.uber.org/zap"
)

const (
	// downAt is the weight of faults in a row at which an endpoint is down. A 5xx weighs one, because a single one may be
	// about a single request; no answer, or half of one, is about the endpoint and weighs all three.
	downAt = 3

	// An endpoint that is down is probed after firstProbe, and then at doubling pauses of lastProbe at most: who restarts a
	// mirror sees it used again within half a minute, and one that is gone for good costs two small requests a minute.
	firstProbe = 2 * time.Second
	lastProbe  = 30 * time.Second
)

// hear notes what became of a request to an endpoint, or to where that has led it. It is not told of token requests, since a
// token server is no part of the endpoint that names it: a probe could not tell when it is back.
func (r *Registry) hear(ctx context.Context, e *endpoint, resp *http.Response, err error) {
	if err != nil {
		r.broke(ctx, e, err)
		return
	}
	switch status := resp.StatusCode; {
	case status == http.StatusTooManyRequests:
		e.spare(parseRetryAfter(resp.Header.Get("Retry-After"), time.Now()))
	case status == http.StatusNotImplemented: // speaks of the method and not of the day
	case status >= http.StatusInternalServerError:
		r.fault(e, 1, errors.New(resp.Status))
	default:
		r.revive(e)
	}
}

// broke notes that an endpoint gave no answer, or broke off in one, unless the fault is ours or not one of the network: the
// caller has left (then ctx has another cause than our own time-outs), or the answer was a redirect to nowhere.
func (r *Registry) broke(ctx context.Context, e *endpoint, err error) {
	cause := context.Cause(ctx)
	timedOut := errors.Is(cause, errSlow) || errors.Is(cause, ErrStalled)
	if _, answered := errors.AsType[misled](err); answered || cause != nil && !timedOut {
		return
	}
	r.fault(e, downAt, err)
}

// fault counts a fault. The one that brings the endpoint down starts its probe.
//
// There is one probe of an endpoint at most: only a fall starts one, and between two falls there was a recovery, which
// cancels the earlier under the same lock that the later is made under.
func (r *Registry) fault(e *endpoint, weight int, cause error) {
	e.mu.Lock()
	falls := e.faults < downAt && e.faults+weight >= downAt
	e.faults = min(e.faults+weight, downAt)
	if !falls {
		e.mu.Unlock()
		return
	}
	ctx, cancel := context.WithCancel(r.life)
	e.endProbe = cancel
	e.mu.Unlock()
	r.log.Warn("endpoint is down", zap.String("registry", r.name), zap.String("endpoint", e.name),
		zap.String("error", printable(bare(cause).Error(), maxCause)))
	if r.enter() {
		go func() {
			defer r.work.Done()
			r.probe(ctx, e)
		}()
	}
}

// revive notes an answer that only an endpoint in working order gives.
func (r *Registry) revive(e *endpoint) {
	e.mu.Lock()
	rises := e.faults == downAt
	e.faults = 0
	if rises {
		e.endProbe()
	}
	e.mu.Unlock()
	if rises {
		r.log.Info("endpoint is back", zap.String("registry", r.name), zap.String("endpoint", e.name))
	}
}

// probe asks an endpoint whether it is back until it is, or ctx ends. It asks as nobody, so that the answer costs neither
// side a token; a challenge is an answer too. The jitter keeps many mirrors of one registry from asking in step.
func (r *Registry) probe(ctx context.Context, e *endpoint) {
	q := question{kind: kindProbe, method: http.MethodGet}
	for pause := firstProbe; ; pause = min(2*pause, lastProbe) {
		select {
		case <-time.After(pause - rand.N(pause/4)):
		case <-ctx.Done():
			return
		}
		if r.serves(ctx, e, q) {
			r.revive(e)
			return
		}
	}
}

// serves asks q of an endpoint's /v2/, and reports whether that was answered by more than an excuse.
func (r *Registry) serves(ctx context.Context, e *endpoint, q question) bool {
	ctx, cancel := context.WithTimeout(ctx, smallTimeout)
	defer cancel()
	resp, err := r.send(ctx, q, e.url.JoinPath("v2/"), e.origin, "")
	if err != nil {
		return false
	}
	resp.Body.Close() // unread: it may be slow to end, and its status has said all
	return resp.StatusCode < http.StatusInternalServerError && resp.StatusCode != http.StatusTooManyRequests
}
