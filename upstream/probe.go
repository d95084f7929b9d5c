package upstream

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"time"
)

// An endpoint that is down is probed after firstProbe, and then at growing pauses of lastProbe at most, from the start of one
// to that of the next. A probe takes no longer than that either. So who is back is seen to be within 30 s: one probe that began
// too early has ended by then, and the next has begun. The first ones are soon, as its door may be shut to all meanwhile, and
// one that is gone for good costs four small requests a minute.
const (
	firstProbe = 250 * time.Millisecond
	lastProbe  = 15 * time.Second
)

// patient is from which probe on an endpoint that greets is taken to bring blobs again, though not the one that it failed at: that
// one may be rotten there for good, and with another endpoint at hand no request would ever find out about the rest. If
// they fail too, it is down again, and for longer.
const patient = 15

// probe asks an endpoint whether it is back for some traffic until it is, or ctx ends. The jitter keeps many mirrors of one
// registry from asking in step. Told to hurry, it neither waits nor goes on with what was asked before.
func (r *Registry) probe(ctx context.Context, e *endpoint, t traffic, sample question) {
	since, hurried := time.Now(), false
	for tries := 1; ; tries++ {
		if tries >= patient {
			sample.blob = blobName{}
		}
		if !hurried {
			pause := e.nextPause(t)
			next := since.Add(pause - rand.N(pause/4))
			e.health[t].door.probedAt(next)
			e.turn(ctx, t, func(ctx context.Context) { wait(ctx, time.Until(next)) })
		}
		if ctx.Err() != nil {
			return
		}
		since = time.Now()
		back := false
		hurried = e.turn(ctx, t, func(ctx context.Context) { back = r.isBack(ctx, e, t, sample) })
		if back {
			r.revive(e, t, since)
			return
		}
		if !hurried {
			e.missed(t, since)
		}
	}
}

// turn has a probe do something that ends when it is told to hurry, and reports whether it was.
func (e *endpoint) turn(ctx context.Context, t traffic, do func(context.Context)) (hurried bool) {
	turn, end := context.WithCancel(ctx)
	defer end()
	e.mu.Lock()
	e.health[t].hurry = end
	e.mu.Unlock()
	do(turn)
	return turn.Err() != nil
}

// wait returns after a time, or when ctx ends.
func wait(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// nextPause returns how long to wait before the next probe. It goes on where the probe before a short recovery has left
// off, so that who serves probes and fails all else is not called well, and asked first, every few seconds.
func (e *endpoint) nextPause(t traffic) time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	h := &e.health[t]
	h.pause = min(max(h.pause*3/2, firstProbe), lastProbe)
	return h.pause
}

// isBack asks for what the traffic is about. A fall for blobs that no blob was asked for in was one of all traffic.
func (r *Registry) isBack(ctx context.Context, e *endpoint, t traffic, sample question) bool {
	ctx, cancel := context.WithTimeoutCause(ctx, lastProbe, errSlow)
	defer cancel()
	switch {
	case t == blobs && sample.blob != blobName{}:
		// The sample may be rotten there for good. That is no reason to have nobody ask for any other.
		if !sample.elsewhere && e.gone(t) && r.greets(ctx, e, e.url.JoinPath("v2/")) {
			e.greeted(t)
		}
		return r.brings(ctx, e, sample.blob)
	case t == realms:
		return r.greets(ctx, e, sample.realm)
	}
	return r.greets(ctx, e, e.url.JoinPath("v2/"))
}

// greets reports whether who is asked at a URL answers by more than an excuse: an endpoint at /v2/, a token server where tokens
// are had. It asks as nobody, so that the answer of an endpoint costs neither side a token; a challenge is an answer too, and
// so is a 429, as asking on would only prolong that.
func (r *Registry) greets(ctx context.Context, e *endpoint, at *url.URL) bool {
	q := question{kind: kindProbe, method: http.MethodGet}
	resp, err := r.send(ctx, q, e.roads.to(q.traffic(), e.way(at, own)), at, originOf(at), "")
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
	if loginless(err) { // which is no fault of the blobs
		return r.greets(ctx, e, e.url.JoinPath("v2/"))
	}
	if err != nil {
		known, ok := errors.AsType[*Error](err)
		return ok && !known.hearsay && known.Status >= 400 && known.Status < http.StatusInternalServerError
	}
	defer resp.Body.Close()
	_, err = io.ReadFull(resp.Body, make([]byte, 1))
	return err == nil || x.size == 0
}
