package upstream

import (
	"cmp"
	"context"
	"errors"
	"math"
	"net/http"
	"slices"
	"time"
)

const (
	// connectionsPerBlob is how many connections bring one blob by default. Two or three fill most lines that one does not,
	// and browsers have taught servers to expect six.
	connectionsPerBlob = 6

	// connectionsPerEndpoint is how many blob streams of one endpoint leave room for a further one by default: four large
	// blobs at full width. What somebody can't do without is not bounded by it.
	connectionsPerEndpoint = 24
)

// candidate is an endpoint that may be asked, and how it fares at that moment: an order needs figures that stand still.
type candidate struct {
	*endpoint
	now EndpointStatus
}

// candidates returns who may be asked q, best first: any endpoint for what is named by digest, which is the same everywhere;
// for all else the trusted ones; or the first alone.
func (r *Registry) candidates(q question) []candidate {
	var all []candidate
	for _, e := range r.endpoints {
		if q.first && e.first || !q.first && (q.byDigest || e.trusted) {
			all = append(all, candidate{e, e.statusFor(q.traffic())})
		}
	}
	slices.SortStableFunc(all, func(a, b candidate) int { return r.compare(q, a.now, b.now) })
	return all
}

// compare orders endpoints for q: blobs from liars last, even after what is down, since they cost a whole transfer; then
// who is down for the like of it, after who is up; then by speed, if that is wanted. Equals stay in the order of the options.
func (r *Registry) compare(q question, a, b EndpointStatus) int {
	order := 0
	if q.traffic() == blobs {
		order = cmp.Compare(doubt(a), doubt(b))
	}
	order = cmp.Or(order, cmp.Compare(down(a), down(b)))
	if q.byDigest && r.bySpeed {
		order = cmp.Or(order, cmp.Compare(promise(b), promise(a)))
	}
	return order
}

// doubt is how often an endpoint has lied, if that is still held against it; then it is 1 at least.
func doubt(s EndpointStatus) int64 {
	if s.Aside {
		return s.Lies
	}
	return 0
}

// down makes an order of being down.
func down(s EndpointStatus) int {
	if s.Up {
		return 0
	}
	return 1
}

// promise is the speed to expect of an endpoint. The best of those not measured lately, so that each gets measured.
func promise(s EndpointStatus) float64 { return cmp.Or(s.Speed, math.Inf(1)) }

// spares returns the endpoints that may bring more of a blob beside so many connections that do already, best first: none of
// them is in trouble. By speed that is the least busy one, because endpoints that share the work bring more than the
// fastest alone.
func (r *Registry) spares(q question, beside int) []candidate {
	if beside >= r.perBlob {
		return nil
	}
	fit := slices.DeleteFunc(r.candidates(q), func(c candidate) bool { return !c.now.Up || c.now.Aside })
	if r.bySpeed {
		slices.SortStableFunc(fit, func(a, b candidate) int { return cmp.Compare(a.now.Connections, b.now.Connections) })
	}
	return fit
}

// inTurn asks one candidate after the other until one settles q. One that lacks the thing, or can't say, leaves the question
// to the next. If none settles it, the weightiest failure is the result, and the earliest of equals. Its errors are of type
// *Error.
//
// A rate limit is waited for where there is nobody else to ask, or nobody else had it: then at the endpoint whose limit is the
// result, for as long as is left of patience since the call began.
func (r *Registry) inTurn(ctx context.Context, q question, ask func(*endpoint, question) error) error {
	began, all := time.Now(), r.candidates(q)
	if len(all) == 1 && !isDispensable(ctx) {
		q.until = began.Add(r.patience)
	}
	var worst *Error
	var from *endpoint
	heaviest := -1
	for _, c := range all {
		err := ask(c.endpoint, q)
		if err == nil {
			return nil
		}
		latest := r.failed(q, err)
		if latest.Answered() && settles(q, c.endpoint, latest) {
			return latest
		}
		if w := weight(c.endpoint, latest); w > heaviest {
			worst, from, heaviest = latest, c.endpoint, w
		}
		if ctx.Err() != nil {
			break
		}
	}
	if worst.Throttled() && len(all) > 1 && !isDispensable(ctx) && ctx.Err() == nil {
		q.until = began.Add(r.patience)
		switch err := ask(from, q); {
		case err == nil:
			return nil
		case !errors.Is(err, errLimited): // else it was not asked again
			return r.failed(q, err)
		}
	}
	return worst
}

// weight is how much a failure says about what was asked for. First comes whose it is: what an endpoint that is not
// trusted says, or does not say, changes nothing about the word of one that is. Then an outage outweighs an absence, since
// what is missing here may be there behind the endpoint that can't say; and one with a reason outweighs mere silence.
func weight(e *endpoint, failure *Error) int {
	weight := 0
	if e.trusted {
		weight += 4
	}
	if !failure.Answered() {
		weight += 2
		if failure.Status != 0 {
			weight++
		}
	}
	return weight
}

// settles reports whether an endpoint's refusal of q ends the search. Where only trusted endpoints are asked, each speaks
// for all. Of what is named by digest an absence says little; but who may have it is for the trusted to say, and not for
// the others to overrule. Those that were asked before would have been as free to give it.
func settles(q question, e *endpoint, refusal *Error) bool {
	return !q.byDigest || e.trusted && refusal.Status != http.StatusNotFound
}
