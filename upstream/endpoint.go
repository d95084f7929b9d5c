package upstream

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/entrepot/entrepot/upstream/credential"
)

// asideFor is how long an endpoint that has lied waits behind the others: its fault is more often a bad file or a broken
// box on the way than malice, and ten minutes is what it takes somebody to see the log and mend it.
const asideFor = 10 * time.Minute

// Endpoint is one place that serves a registry.
type Endpoint struct {
	URL     *url.URL // a path goes before /v2/
	Trusted bool     // it resolves tags and lists; if no endpoint is trusted, the first is

	// How it is reached. Files are read again when they change, and new connections go by what they hold then. The certificate
	// is presented, Insecure holds, and Dial is used at the endpoint's own origin alone, the rest also where that leads to.
	CAFile                        string // PEM: authorities that are believed besides the system's
	ClientCertFile, ClientKeyFile string // PEM: who to be in TLS; both or none
	Insecure                      bool   // any certificate is believed

	// Proxy is as of http.Transport; nil: what the environment says; NoProxy: none. Why it fails is told to nobody, as it may quote a
	// password.
	Proxy func(*http.Request) (*url.URL, error)

	Dial string // host:port to connect to in place of the URL's, without a proxy; "": the URL's
	DNS  string // ip or ip:port of the resolver; "": the system's
}

// EndpointStatus is how an endpoint fares, for metrics.
type EndpointStatus struct {
	Name        string  // host[:port] and path of its URL, unique within the registry: by its scheme, if nothing else differs
	Up          bool    // whether it serves: blobs as well as all else, and tokens; for what it does not serve it is asked after those that do, if at all
	Aside       bool    // whether it is asked for blobs after all others, because it lied
	Lies        int64   // how often it lied, ever
	Connections int     // blob streams open now, or being opened
	Speed       float64 // bytes a second that a blob stream brought in the last minutes; 1 if all failed, 0 if there was none
}

// endpoint is one place that serves a registry, and what it has been seen to do.
type endpoint struct {
	name     string
	url      *url.URL
	origin   origin
	identity string // equal for two URLs of the same place
	first    bool   // it may have credentials, and all others are asked as nobody
	trusted  bool
	nobody   *account
	roads    *roads
	quotas   quotas

	certified bool       // it is shown a certificate
	logins    []*account // none: asked as nobody; guarded by the quotas, and replaced as a whole
	numbered  int        // logins that it has ever had; guarded likewise

	mu sync.Mutex
	// guards following
	known       challenge // its last usable challenge; zero before the first
	free        time.Time // until then it is taken to ask for nothing at its root, if it is known for no challenge
	realm       origin    // of the token server that was asked last on its behalf; "" before the first
	health      [len(traffics)]health
	throttled   time.Time // until then it is to be spared further blob streams
	rangeless   time.Time // until then it is taken to ignore ranges
	aside       time.Time // until then it is not believed
	lies        int64
	streams     int
	speed       float64
	lastMeasure time.Time
}

// newEndpoints returns the endpoints of a registry, the first of them trusted if none is. That one alone may have the logins:
// all others are asked as nobody.
func newEndpoints(given []Endpoint, logins []credential.Source) ([]*endpoint, error) {
	if len(given) == 0 {
		return nil, errors.New("no endpoint")
	}
	var all []*endpoint
	known, named, trusted := make(map[string]bool), make(map[string][]*endpoint), false
	for i, g := range given {
		e, err := newEndpoint(g.URL)
		if err != nil {
			return nil, err
		}
		if known[e.identity] {
			return nil, fmt.Errorf("endpoint %s is given twice", e.name)
		}
		known[e.identity], trusted = true, trusted || g.Trusted
		named[e.name] = append(named[e.name], e)
		e.trusted = g.Trusted
		e.certified = g.ClientCertFile != ""
		if e.first = i == 0; e.first {
			e.adopt(logins)
		} else {
			e.adopt(nil)
		}
		all = append(all, e)
	}
	all[0].trusted = all[0].trusted || !trusted
	for _, namesakes := range named {
		if len(namesakes) > 1 { // of two schemes, or they would be one
			for _, e := range namesakes {
				e.name = e.url.Scheme + "://" + e.name
			}
		}
	}
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
	path, home := strings.TrimRight(base.EscapedPath(), "/"), originOf(&base)
	e := &endpoint{name: base.Host + path, url: &base, origin: home, identity: string(home) + path}
	e.nobody, e.quotas.changed = &account{endpoint: e}, make(chan struct{})
	return e, nil
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

// status tells how e fares.
func (e *endpoint) status() EndpointStatus { return e.statusFor(traffics[:]...) }

// statusFor is status as it concerns some traffic alone.
func (e *endpoint) statusFor(concerned ...traffic) EndpointStatus {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := EndpointStatus{
		Name:        e.name,
		Up:          true,
		Aside:       time.Now().Before(e.aside),
		Lies:        e.lies,
		Connections: e.streams,
		Speed:       e.speedLocked(),
	}
	for _, t := range concerned {
		s.Up = s.Up && !e.health[t].down()
	}
	return s
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
