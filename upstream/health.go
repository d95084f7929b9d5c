package upstream

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"go.uber.org/zap"
)

// traffic is a sort of request that fares by itself: behind one endpoint, blobs come from other machines than all that is
// small, tokens from whom it names, and each may be out of order while the others are well.
type traffic int

const (
	small traffic = iota
	blobs
	realms
)

var traffics = [...]traffic{small, blobs, realms}

func (t traffic) String() string { return [...]string{"all but blobs", "blobs", "tokens"}[t] }

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
//
// One that is down is asked after all that are up. If it is down because it is not there, its door is shut besides, and it is
// not asked at all until a probe, or what was under way, has had an answer. A 500 is the word of somebody who is there, about
// this request for all that is known; and content that breaks off tells of a connection.
type health struct {
	door           door
	faults, absent int   // in a row, by weight: all, and those of who is not there
	why            error // of the latest absence
	fell, rose     time.Time
	pause          time.Duration      // the latest before a probe
	endProbe       context.CancelFunc // while it is down
	hurry          context.CancelFunc // ends what its probe is at, so that it asks now; nil: there was none yet
	along          bool               // it fell along with small traffic, and is back with that: it has no probe of its own
}

func (h *health) down() bool { return h.faults == downAt }

// fault is what went wrong with a request to an endpoint.
type fault struct {
	q      question
	since  time.Time // when the request began
	weight int
	absent bool // as if nobody was there
	cause  error
}

// isGateway reports whether a status is the word of one who stands before a server that is not there.
func isGateway(status int) bool {
	switch status {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// isAnswer reports whether somebody was there to answer a request.
func isAnswer(resp *http.Response, err error) bool {
	if err != nil {
		_, answered := errors.AsType[misled](err)
		return answered
	}
	return !isGateway(resp.StatusCode)
}

// hear notes what an endpoint, or where that has led it, or the token server that it names, made of q since it was sent.
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
		r.fault(e, fault{q: q, since: since, weight: 1, absent: isGateway(status), cause: errors.New(resp.Status)}, q.traffic())
	case q.traffic() == realms, q.traffic() == small && (status != http.StatusOK || q.method == http.MethodHead):
		r.revive(e, q.traffic(), since)
	}
}

// silence notes that q brought no answer. Of the endpoint's own origin that is about all that is asked of it; of a host that it
// redirects to, about what is found there, and of a token server about tokens.
func (r *Registry) silence(ctx context.Context, e *endpoint, q question, since time.Time, err error) {
	if isAnswer(nil, err) || !wasAsked(err) || !isFault(ctx, since) {
		return
	}
	concerned := []traffic{q.traffic()}
	if _, q.elsewhere = errors.AsType[abroad](err); !q.elsewhere && q.traffic() != realms {
		concerned = []traffic{small, blobs}
	}
	r.fault(e, fault{q: q, since: since, weight: downAt, absent: true, cause: err}, concerned...)
}

// broke notes that the content which answers q broke off, or stopped. It reports whether that is the endpoint's fault.
func (r *Registry) broke(ctx context.Context, e *endpoint, q question, since time.Time, err error) bool {
	faulty := isFault(ctx, since)
	if faulty {
		r.fault(e, fault{q: q, since: since, weight: downAt, cause: err}, q.traffic())
	}
	return faulty
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

// fault counts a fault of an endpoint with some traffic. The one that brings it down starts its probe, for what was asked for
// then; silence shuts its door, and so does what a gateway says of it, once its probe is told the like.
//
// There is one probe of an endpoint's traffic at most: only a fall starts one, and between two falls there was a recovery,
// which cancels the earlier under the same lock that the later is made under. And there is one as long as the door is shut:
// what shuts it has brought the endpoint down, and what opens it is the recovery. Blobs of which none was asked for, when the
// silence that met something small brought both down, would be probed for as that is: they rise along with it. It is down when
// they fall so, under one lock, and does not rise without them.
func (r *Registry) fault(e *endpoint, f fault, of ...traffic) {
	for _, fallen := range e.failed(r.life, f, of) {
		r.log.Warn("endpoint is down", zap.String("registry", r.name), zap.String("endpoint", e.name), zap.Stringer("for", fallen.traffic),
			zap.String("error", printable(bare(f.cause).Error(), maxCause)))
		if !fallen.along && r.enter() {
			go func() {
				defer r.work.Done()
				r.probe(fallen.probe, e, fallen.traffic, f.q)
			}()
		}
	}
}

// fall is what becomes of an endpoint's traffic that a fault brings down.
type fall struct {
	traffic traffic
	along   bool
	probe   context.Context // while it is down
}

func (e *endpoint) failed(life context.Context, f fault, of []traffic) (falls []fall) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, t := range of {
		if h := &e.health[t]; h.failed(f) {
			h.along = t == blobs && f.q.traffic() == small
			ctx, cancel := context.WithCancel(life)
			h.endProbe = cancel
			falls = append(falls, fall{t, h.along, ctx})
		}
	}
	return falls
}

// failed counts a fault, and reports whether it is a fall.
func (h *health) failed(f fault) (falls bool) {
	falls = !h.down() && h.faults+f.weight >= downAt
	h.faults = min(h.faults+f.weight, downAt)
	if !f.absent {
		h.absent = 0
	} else if h.absent, h.why = min(h.absent+f.weight, downAt), bare(f.cause); f.weight == downAt {
		h.door.shutFor(h.why, f.since)
	}
	if falls {
		h.fell = time.Now()
		if h.fell.Sub(h.rose) >= steady {
			h.pause = 0
		}
	}
	return falls
}

// revive notes that an endpoint did well with some traffic, in what was begun at since. What was begun before it fell says
// nothing of the time after: the last stream that a dying disk feeds to its end must not bring it back.
func (r *Registry) revive(e *endpoint, t traffic, since time.Time) {
	for _, risen := range e.well(t, since) {
		r.log.Info("endpoint is back", zap.String("registry", r.name), zap.String("endpoint", e.name), zap.Stringer("for", risen))
	}
}

func (e *endpoint) well(t traffic, since time.Time) (risen []traffic) {
	e.mu.Lock()
	defer e.mu.Unlock()
	h := &e.health[t]
	if since.Before(h.fell) {
		return nil
	}
	if h.rise() {
		risen = append(risen, t)
		if more := &e.health[blobs]; t == small && more.down() && more.along {
			more.rise()
			risen = append(risen, blobs)
		}
		e.hurryLocked()
	}
	return risen
}

// missed notes that a probe begun at since failed. What a gateway has said of others may have been about what they asked for; now
// it is known to be about the endpoint, and shuts its door.
func (e *endpoint) missed(t traffic, since time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if h := &e.health[t]; h.down() && h.absent == downAt {
		h.door.shutFor(h.why, since)
	}
}

// greeted notes that an endpoint is there, which is down nevertheless for some traffic: it is asked, though after all others.
func (e *endpoint) greeted(t traffic) {
	e.mu.Lock()
	defer e.mu.Unlock()
	h := &e.health[t]
	h.absent = 0
	h.door.open()
}

// gone reports whether an endpoint is taken not to be there at all.
func (e *endpoint) gone(t traffic) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.health[t].absent == downAt
}

// rise notes that all is well, and reports whether it was not.
func (h *health) rise() (rises bool) {
	rises = h.down()
	h.faults, h.absent = 0, 0
	if rises {
		h.rose = time.Now()
		h.endProbe()
		h.door.open()
	}
	return rises
}

// hurryLocked has an endpoint that is back for some traffic probed for all other at once: who pulls an image wants both.
func (e *endpoint) hurryLocked() {
	for t := range e.health {
		if h := &e.health[t]; h.down() && h.hurry != nil {
			h.hurry()
		}
	}
}

// named notes whose tokens an endpoint wants. How another token server fared says nothing of this one.
func (r *Registry) named(e *endpoint, realm origin) {
	e.mu.Lock()
	moved := e.realm != "" && e.realm != realm
	e.realm = realm
	e.mu.Unlock()
	if moved {
		r.revive(e, realms, time.Now())
	}
}

// Down reports whether nobody can be asked what a tag names: the registry is offline, or each endpoint that may say so is known not
// to be there. Then what would have to be asked fails at once.
func (r *Registry) Down() bool {
	return r.shut(small, func(e *endpoint) bool { return e.trusted })
}

// BlobsDown reports whether nobody can be asked for blobs.
func (r *Registry) BlobsDown() bool {
	return r.shut(blobs, func(*endpoint) bool { return true })
}

// shut reports whether none of the endpoints that count can be asked for some traffic.
func (r *Registry) shut(t traffic, counts func(*endpoint) bool) bool {
	return r.offline.Load() || !slices.ContainsFunc(r.endpoints, func(e *endpoint) bool { return counts(e) && e.health[t].door.isShut() == nil })
}

// SetOffline says whether nobody is to be asked for anything: all that would go on the wire then fails with ErrOffline. What is on
// it already is not disturbed.
func (r *Registry) SetOffline(offline bool) { r.offline.Store(offline) }
