package upstream

import (
	"context"
	"errors"
	"math"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"
)

// patience is how long a call waits for a rate limit by default, from its start on. Clients give up 30 s after they have asked, and
// what is asked at the last moment wants its time too.
const patience = 20 * time.Second

// errLimited is the cause of an Error of status 429 when upstream was not asked, because it said before that it would refuse.
var errLimited = errors.New("not asked for now, because of the rate limit")

type dispensable struct{}

// Dispensable marks what can be done without: it leaves the reserve of a rate limit alone, and fails at once, with an Error
// that is Throttled, where it would have to wait.
func Dispensable(ctx context.Context) context.Context {
	return context.WithValue(ctx, dispensable{}, true)
}

func isDispensable(ctx context.Context) bool { return ctx.Value(dispensable{}) != nil }

// QuotaStatus is how far one account at an endpoint may go, for metrics.
type QuotaStatus struct {
	Endpoint, Login           string // its name in EndpointStatus; a user's name, or anonymous: unique at the endpoint
	Limit, Remaining, Reserve int64  // of counted requests in a window; all 0: the endpoint has not said
	Window                    time.Duration
	ThrottledFor              time.Duration // until something is asked again after a 429
	Throttled                 int64         // 429s ever
	Waits                     int64         // calls that waited, or failed because they would have had to for too long
	Waited                    time.Duration // for how long, in all, those that have done so
}

// quotas are the budgets of all accounts of an endpoint, and who waits for them.
//
// No wake-up is lost: who must wait takes the channel under the lock that it has looked under, and each settle closes it
// under that lock, after the change. Who wakes looks again, so that one who was overtaken waits on. What a hold lets pass, one
// trial, is taken under the same lock, and given back by settle, which follows each admission whatever becomes of the request.
type quotas struct {
	mu sync.Mutex
	// guards following
	changed chan struct{}
	latest  *account // of the logins, that was asked as last
}

// admitted is a request that may be made now, as one account.
type admitted struct {
	account *account
	ticket  ticket
}

// wants is how much of a budget q takes. GETs of manifests are what registries count.
func (q question) wants(ctx context.Context) want {
	w := want{traffic: q.traffic(), counted: q.kind == kindManifest && q.method == http.MethodGet, dispensable: isDispensable(ctx)}
	if !q.until.IsZero() {
		w.patience = max(time.Until(q.until), 0)
	}
	return w
}

// admit returns one of e's accounts as which q may be asked now. It waits for that while q has patience, unless it is sure to
// wait in vain: the error then is an *Error that is Throttled. Admission is followed by settle. waited is whether the call has
// waited before.
func (r *Registry) admit(ctx context.Context, e *endpoint, accounts []*account, q question, waited *bool) (admitted, error) {
	for {
		w, began := q.wants(ctx), time.Now()
		got, wait, changed, ok := e.quotas.try(began, accounts, w, r.reserve)
		if ok {
			wait = got.ticket.began.Sub(began)
		}
		if ok && wait <= 0 {
			return got, nil
		}
		if !*waited && !q.until.IsZero() {
			e.quotas.waits(got.account)
			*waited = true
		}
		if !ok && wait > w.patience {
			return admitted{}, &Error{Registry: r.name, Op: q.op, Status: http.StatusTooManyRequests,
				RetryAfter: min(max(wait, time.Second), maxRetryAfter), Err: errLimited}
		}
		err := await(ctx, wait, changed)
		e.quotas.waited(got.account, time.Since(began))
		if ok && err == nil && !e.quotas.shut(got) {
			return got, nil
		}
		if ok && err != nil {
			e.quotas.leave(got)
		}
		if ok {
			r.settle(e, got, nil, errLimited)
		}
		if err != nil {
			return admitted{}, err
		}
	}
}

// await waits for so long, or until changed is closed, or ctx ends, the cause of which is the error.
func await(ctx context.Context, d time.Duration, changed <-chan struct{}) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-changed:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// underWay is how long what has to wait for another's answer waits at most before it looks again: another account may
// have become free.
const underWay = time.Second

// try is one attempt to admit. Where it fails, got has the account that is free first, wait is the time until then, and changed is
// closed when that may have changed.
func (qs *quotas) try(now time.Time, accounts []*account, w want, reserve func(int64) int64) (got admitted, wait time.Duration, changed <-chan struct{}, ok bool) {
	qs.mu.Lock()
	defer qs.mu.Unlock()
	var a *account
	some := slices.ContainsFunc(accounts, func(c *account) bool { return c.budget.left(now) > 0 })
	for _, c := range accounts {
		cWait, cOK := c.budget.look(now, w, reserve(c.budget.limit))
		if w.counted && some && c.budget.left(now) == 0 {
			// It would only find out that there is nothing left, and another has something.
			cWait, cOK = c.budget.reopens(now), false
		}
		if !cOK && cWait <= 0 {
			cWait = underWay
		}
		switch {
		case a == nil, cOK && !ok, !cOK && !ok && cWait < wait, cOK && ok && qs.betterLocked(now, c, a, reserve):
			a, wait, ok = c, cWait, cOK
		}
	}
	if !ok {
		return admitted{account: a}, wait, qs.changed, false
	}
	a.used = true
	if a.number > 0 {
		qs.latest = a
	}
	return admitted{a, a.budget.take(now, w)}, 0, nil, true
}

// betterLocked reports whether c is to be asked as rather than a, both being free: one whose login is in no trouble; of two such, the
// latest as long as it has more than its reserve, since each account needs tokens of its own; else the one with more to spare.
func (qs *quotas) betterLocked(now time.Time, c, a *account, reserve func(int64) int64) bool {
	if c.trouble.is() != a.trouble.is() {
		return a.trouble.is()
	}
	spare := func(x *account) int64 {
		n := x.budget.left(now) - x.budget.flying - reserve(x.budget.limit)
		if x == qs.latest && n > 0 {
			return math.MaxInt64
		}
		return n
	}
	return spare(c) > spare(a)
}

// shut reports whether what has waited for the pace must wait on for something else.
func (qs *quotas) shut(got admitted) bool {
	qs.mu.Lock()
	defer qs.mu.Unlock()
	return got.account.budget.shut(got.ticket)
}

// leave gives up the place of who has left while it waited for the pace. It is followed by settle.
func (qs *quotas) leave(got admitted) {
	qs.mu.Lock()
	defer qs.mu.Unlock()
	if b := &got.account.budget; b.paced[got.ticket.traffic] {
		b.pace.giveBack()
	}
}

func (qs *quotas) waits(a *account) {
	qs.mu.Lock()
	defer qs.mu.Unlock()
	a.waits++
}

func (qs *quotas) waited(a *account, d time.Duration) {
	qs.mu.Lock()
	defer qs.mu.Unlock()
	a.waited += d
}

// charge takes down that a request which was admitted takes one more.
func (qs *quotas) charge(a *account, t traffic) {
	qs.mu.Lock()
	defer qs.mu.Unlock()
	a.budget.charge(t)
}

// settle learns from what became of a request that was admitted, and reports whether that was a 429 of the endpoint, or of its token
// server. That of a host that it redirected to says nothing of the account.
func (r *Registry) settle(e *endpoint, got admitted, resp *http.Response, err error) (throttled bool) {
	now, l := time.Now(), limits{}
	if known, ok := errors.AsType[*Error](err); ok && known.Throttled() {
		l = limits{came: true, throttled: true, retryAfter: known.RetryAfter}
	} else if err == nil {
		l.came = true
		if originOf(resp.Request.URL) == e.origin {
			l = limitsOf(resp, now)
		}
	}
	qs, a := &e.quotas, got.account
	qs.mu.Lock()
	news := a.budget.settle(now, got.ticket, l)
	if l.throttled {
		a.throttled++
	}
	held := a.budget.holds(now)
	close(qs.changed)
	qs.changed = make(chan struct{})
	qs.mu.Unlock()
	if news && (a.number > 0 || a == e.nobody) { // else it is a client's own limit
		r.log.Warn("registry limits the rate of requests", zap.String("registry", r.name), zap.String("endpoint", e.name),
			zap.String("login", a.name()), zap.Duration("for", held))
	}
	return l.throttled
}

// Quotas tells how far the registry may be asked, as each account that has been.
func (r *Registry) Quotas() (all []QuotaStatus) {
	for _, e := range r.endpoints {
		all = append(all, e.quotas.status(time.Now(), e, r.reserve)...)
	}
	return all
}

func (qs *quotas) status(now time.Time, e *endpoint, reserve func(int64) int64) (all []QuotaStatus) {
	qs.mu.Lock()
	defer qs.mu.Unlock()
	named := make(map[string]int)
	for _, a := range append([]*account{e.nobody}, e.logins...) {
		name := a.name()
		if name == "" || !a.used {
			continue
		}
		if named[name]++; named[name] > 1 {
			name += " (" + strconv.Itoa(named[name]) + ")"
		}
		s := QuotaStatus{Endpoint: e.name, Login: name, ThrottledFor: a.budget.holds(now),
			Throttled: a.throttled, Waits: a.waits, Waited: a.waited}
		if b := &a.budget; b.limit > 0 {
			s.Limit, s.Remaining, s.Reserve, s.Window = b.limit, b.left(now), reserve(b.limit), b.window
		}
		all = append(all, s)
	}
	return all
}

// tenth is the reserve by default: a limit of a hundred keeps ten pulls for who has to wait otherwise.
func tenth(limit int64) int64 { return limit / 10 }
