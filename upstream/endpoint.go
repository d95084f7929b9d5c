package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
)

const (
	// asideFor is how long an endpoint that has lied waits behind the others: its fault is more often a bad file or a broken
	// box on the way than malice, and ten minutes is what it takes somebody to see the log and mend it.
	asideFor = 10 * time.Minute

	// throttledFor is how long a 429 counts that does not say so itself. Registries count their limits in minutes to hours,
	// and meanwhile nothing is lost but further connections for blobs that come anyway.
	throttledFor = 10 * time.Minute

	// telling is how many bytes a stream must have brought for its speed to tell of more than of round trips.
	telling = 1 << 20
)

// Endpoint is one place that serves a registry.
type Endpoint struct {
	URL     *url.URL // a path goes before /v2/
	Trusted bool     // it resolves tags and lists; if no endpoint is trusted, the first is
}

// EndpointStatus is how an endpoint fares, for metrics.
type EndpointStatus struct {
	Name        string  // host[:port] and path of its URL, unique within the registry
	Up          bool    // whether it serves; if not, it is asked after those that do
	Aside       bool    // whether it is asked for blobs after all others, because it lied
	Lies        int64   // how often it lied, ever
	Connections int     // blob streams open now, or being opened
	Speed       float64 // bytes a second that a blob stream brought lately; 0: not measured
}

// endpoint is one place that serves a registry, and what it has been seen to do.
type endpoint struct {
	name    string
	url     *url.URL
	origin  origin
	mirror  bool // not the first: asked anonymously
	trusted bool

	mu sync.Mutex
	// guards following
	known     challenge          // its last usable challenge; zero before the first
	faults    int                // in a row, by weight; downAt: it is down
	endProbe  context.CancelFunc // of an endpoint that is down
	throttled time.Time          // until then it is to be spared
	aside     time.Time          // until then it is not believed
	lies      int64
	streams   int
	speed     float64
}

// newEndpoints returns the endpoints of a registry, the first of them trusted if none is.
func newEndpoints(given []Endpoint) ([]*endpoint, error) {
	if len(given) == 0 {
		return nil, errors.New("no endpoint")
	}
	var all []*endpoint
	names, trusted := make(map[string]bool), false
	for i, g := range given {
		e, err := newEndpoint(g.URL)
		if err != nil {
			return nil, err
		}
		if names[e.name] {
			return nil, fmt.Errorf("endpoint %s is given twice", e.name)
		}
		names[e.name], trusted = true, trusted || g.Trusted
		e.mirror, e.trusted = i > 0, g.Trusted
		all = append(all, e)
	}
	all[0].trusted = all[0].trusted || !trusted
	return all, nil
}

func newEndpoint(u *url.URL) (*endpoint, error) {
	switch {
	case u == nil:
		return nil, errors.New("endpoint is nil")
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("endpoint %s is not an http or https URL", u.Host)
	case u.Hostname() == "":
		return nil, errors.New("endpoint names no host")
	case u.User != nil:
		return nil, fmt.Errorf("endpoint %s holds credentials: these have a setting of their own", u.Host)
	case u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("endpoint %s holds a query or a fragment", u.Host)
	}
	base := *u
	if base.Path == "" {
		base.Path = "/" // what is joined to no path is not rooted
	}
	return &endpoint{name: base.Host + strings.TrimRight(base.EscapedPath(), "/"), url: &base, origin: originOf(&base)}, nil
}

func (e *endpoint) challenge() challenge {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.known
}

func (e *endpoint) learn(c challenge) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.known = c
}

// forget drops c if it is still what the endpoint is known for, so that the next request meets a fresh challenge.
func (e *endpoint) forget(c challenge) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.known == c {
		e.known = challenge{}
	}
}

func (e *endpoint) status() EndpointStatus {
	e.mu.Lock()
	defer e.mu.Unlock()
	return EndpointStatus{
		Name:        e.name,
		Up:          e.faults < downAt,
		Aside:       time.Now().Before(e.aside),
		Lies:        e.lies,
		Connections: e.streams,
		Speed:       e.speed,
	}
}

// join counts a blob stream that is about to be opened.
func (e *endpoint) join() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.streams++
}

// joinSparing is join for a stream that can be done without: it counts none, and says so, if e throttles or has limit
// streams already. Looking and counting under one lock keeps any number of callers within the limit.
func (e *endpoint) joinSparing(limit int) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.streams >= limit || time.Now().Before(e.throttled) {
		return false
	}
	e.streams++
	return true
}

// leave ends a stream that join has counted, and learns from the bytes it brought and the time it was waited for.
func (e *endpoint) leave(brought int64, waited time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.streams--
	if brought < telling || waited <= 0 {
		return
	}
	latest := float64(brought) / waited.Seconds()
	e.speed = (either(e.speed, latest) + latest) / 2
}

// spare notes that e throttles. No word on how long means a while.
func (e *endpoint) spare(retryAfter time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.throttled = time.Now().Add(either(retryAfter, throttledFor))
}

// Endpoints tells how each endpoint fares, in the order of the options.
func (r *Registry) Endpoints() []EndpointStatus {
	var all []EndpointStatus
	for _, e := range r.endpoints {
		all = append(all, e.status())
	}
	return all
}

// Distrust notes that the endpoint which a BlobStream names sent bytes of a blob that do not match its digest. For
// ten minutes it is asked for blobs after all that are not set aside.
func (r *Registry) Distrust(name string) {
	for _, e := range r.endpoints {
		if e.name == name {
			e.mu.Lock()
			e.lies++
			e.aside = time.Now().Add(asideFor)
			lies := e.lies
			e.mu.Unlock()
			r.log.Error("endpoint sent a blob that does not match its digest: it is set aside for blobs", zap.String("registry", r.name),
				zap.String("endpoint", e.name), zap.Duration("for", asideFor), zap.Int64("times", lies))
		}
	}
}
