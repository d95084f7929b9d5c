package upstream

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"time"
)

// An endpoint that is down is probed after firstProbe, and then at doubling pauses of lastProbe at most: who restarts a
// mirror sees it used again within half a minute, and one that is gone for good costs a few small requests a minute.
const (
	firstProbe = 2 * time.Second
	lastProbe  = 30 * time.Second
)

// patient is from which probe on an endpoint that greets is taken to bring blobs again, though not the one that it failed at: that
// one may be rotten there for good, and with another endpoint at hand no request would ever find out about the rest. If
// they fail too, it is down again, and for longer.
const patient = 6

// probe asks an endpoint whether it is back for some traffic until it is, or ctx ends. The jitter keeps many mirrors of one
// registry from asking in step.
func (r *Registry) probe(ctx context.Context, e *endpoint, t traffic, sample blobName) {
	for tries := 1; ; tries++ {
		if tries >= patient {
			sample = blobName{}
		}
		pause := e.nextPause(t)
		select {
		case <-time.After(pause - rand.N(pause/4)):
		case <-ctx.Done():
			return
		}
		if since := time.Now(); r.isBack(ctx, e, t, sample) {
			r.revive(e, t, since)
			return
		}
	}
}

// nextPause returns how long to wait before the next probe. It goes on where the probe before a short recovery has left
// off, so that who serves probes and fails all else is not called well, and asked first, every few seconds.
func (e *endpoint) nextPause(t traffic) time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	h := &e.health[t]
	h.pause = min(max(2*h.pause, firstProbe), lastProbe)
	return h.pause
}

// isBack asks for what the traffic is about. A fall for blobs that no blob was asked for in was one of all traffic.
func (r *Registry) isBack(ctx context.Context, e *endpoint, t traffic, sample blobName) bool {
	ctx, cancel := context.WithTimeoutCause(ctx, smallTimeout, errSlow)
	defer cancel()
	if t == small || sample == (blobName{}) {
		return r.greets(ctx, e)
	}
	return r.brings(ctx, e, sample)
}

// greets reports whether an endpoint answers at /v2/ by more than an excuse. It asks as nobody, so that the answer costs
// neither side a token; a challenge is an answer too, and so is a 429, as asking on would only prolong that.
func (r *Registry) greets(ctx context.Context, e *endpoint) bool {
	q := question{kind: kindProbe, method: http.MethodGet}
	resp, err := r.send(ctx, q, e.url.JoinPath("v2/"), e.origin, "")
	if err != nil {
		return false
	}
	resp.Body.Close() // unread: it may be slow to end, and its status has said all
	return resp.StatusCode < http.StatusInternalServerError
}

// brings reports whether an endpoint brings the first byte of a blob, or says itself why that can't be had.
func (r *Registry) brings(ctx context.Context, e *endpoint, b blobName) bool {
	q := b.question(http.MethodGet)
	q.kind, q.length = kindProbe, 1
	resp, x, err := r.blobAnswer(ctx, e, q)
	if err != nil {
		known, ok := errors.AsType[*Error](err)
		return ok && !known.hearsay && known.Status >= 400 && known.Status < http.StatusInternalServerError
	}
	defer resp.Body.Close()
	_, err = io.ReadFull(resp.Body, make([]byte, 1))
	return err == nil || x.size == 0
}
