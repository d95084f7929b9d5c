// Package proxy is the mirror's HTTP face: it finds out which registry, repository and content a request means, asks the
// cache, and answers as distribution-spec 1.1 wants it.
//
// A request becomes a target at the edge: after parse, nothing handles paths or unchecked names any more. Each answer says
// how it came about (Cache-Status, RFC 9211), is counted, and gets one line in the log. Errors of all other packages get
// their HTTP status and their code here and nowhere else.
package proxy

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gorilla/mux"
	"go.uber.org/zap"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy/access"
	"github.com/entrepot/entrepot/upstream/bandwidth"
)

// Options say what a Proxy serves. All but Access, Egress, Metrics and Log are required.
type Options struct {
	Cache           *cache.Cache
	Registries      []Registry
	DefaultRegistry string              // the Name of one of Registries
	Canonical       func(string) string // the one spelling of a registry's name, for all that clients may use
	Access          *access.Policy      // who may have what; nil: everybody may have everything
	Egress          *bandwidth.Clients  // what blobs to clients wait for; nil: unlimited for ever
	Metrics         *Metrics            // may be nil
	Log             *zap.Logger
}

// Proxy is the handler of the mirror's own listener.
type Proxy struct {
	cache   *cache.Cache
	routes  routes
	policy  atomic.Pointer[access.Policy]
	egress  *bandwidth.Clients
	metrics *Metrics
	log     *zap.Logger
	router  *mux.Router
}

// New returns a Proxy.
func New(opts Options) *Proxy {
	if opts.Log == nil {
		opts.Log = zap.NewNop()
	}
	p := &Proxy{cache: opts.Cache, routes: newRoutes(opts.Registries, opts.Canonical, opts.DefaultRegistry), egress: opts.Egress,
		metrics: opts.Metrics, log: opts.Log}
	p.SetAccess(opts.Access)
	// SkipClean: a path that isn't clean is refused with an error that clients read, not redirected elsewhere.
	r := mux.NewRouter().SkipClean(true)
	r.MatcherFunc(below).HandlerFunc(p.handle(p.findPull, p.pull))
	r.HandleFunc("/", p.handle(findNothing, front))
	r.HandleFunc("/v2", p.handle(p.findPing, p.ping))
	r.HandleFunc("/v2/", p.handle(p.findPing, p.ping))
	r.HandleFunc("/{registry:[^/]+}/v2/", p.handle(p.findPing, p.ping))
	r.HandleFunc("/{registry:[^/]+}/v2/{_:.+}", p.handle(p.findPull, p.pull))
	r.NotFoundHandler = p.handle(findNothing, notFound)
	p.router = r
	return p
}

// below matches what is below /v2/, as nearly all requests are, without the regular expression of a path.
func below(r *http.Request, _ *mux.RouteMatch) bool {
	return len(r.URL.Path) > len("/v2/") && strings.HasPrefix(r.URL.Path, "/v2/")
}

// ServeHTTP answers one request of a client.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.observe(w, r, http.HandlerFunc(p.serveRoute))
}

// serveRoute answers by the route that the router finds. It notes the route's variables in the call, where the router's own
// ServeHTTP would make two copies of the request to keep them in.
func (p *Proxy) serveRoute(w http.ResponseWriter, r *http.Request) {
	var match mux.RouteMatch
	p.router.Match(r, &match) // whatever has no other handler has notFound
	w.(*call).vars = match.Vars
	match.Handler.ServeHTTP(w, r)
}

// handler answers a request, or returns the error to answer with. It takes down in c what the log should say.
type handler func(w http.ResponseWriter, r *http.Request, c *call) error

// finder finds out what a request asks for, and takes it down in c; registry is whose it is, if it is a registry's. It is followed
// by the questions who asks, and what that one may have, before a word is said on what was found, an error included.
type finder func(r *http.Request, c *call) (registry string, err error)

func findNothing(*http.Request, *call) (registry string, err error) { return "", nil }

// handle makes an http handler of h. Who may not is refused here, and whatever would change something, for all of them.
func (p *Proxy) handle(find finder, h handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c := w.(*call)
		if r.ContentLength != 0 {
			dismissBody(w)
		}
		if err := p.answer(w, r, c, find, h); err != nil {
			c.err = err
			w.Header().Set("Cache-Status", c.errorStatus(err))
			p.refuse(w, c, err)
		}
	}
}

// aWhile is what is said to the cache of how long a request has waited already: it has less time then.
const aWhile = time.Second

func (p *Proxy) answer(w http.ResponseWriter, r *http.Request, c *call, find finder, h handler) error {
	registry, lost := find(r, c)
	policy := p.policy.Load()
	if policy != nil {
		if err := p.enter(policy, r, c, registry); err != nil {
			return err
		}
	}
	if err := errors.Join(allowed(w, r), lost); err != nil {
		return err
	}
	if policy != nil {
		var err error
		if r, err = p.admit(policy, r, c, registry); err != nil {
			return err
		}
		if time.Since(c.start) > aWhile { // to be admitted
			r = r.WithContext(cache.WaitingSince(r.Context(), c.start))
		}
	}
	return h(w, r, c)
}

// bodyPatience is how long a client may go on sending a body that nobody reads. Less than the whole may cost it the answer:
// a connection that is closed on what was not read is reset.
const bodyPatience = 5 * time.Second

// dismissBody keeps a body that was announced, and may never come, from holding up the answer and the connection: net/http
// reads it before it answers, unless the connection closes afterwards, and before it closes, without a limit of time.
func dismissBody(w http.ResponseWriter) {
	w.Header().Set("Connection", "close")
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyPatience)) // a writer that can't has no connection
}

// allowed returns the error to answer with what no endpoint takes: other methods, and queries that can't be read. Half a
// query that is understood could mean another registry than the whole.
func allowed(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		return &apiError{status: http.StatusMethodNotAllowed, code: codeUnsupported,
			message: "this is a pull-through mirror, which nothing can be pushed to or deleted from: use the registry itself"}
	}
	if _, err := url.ParseQuery(r.URL.RawQuery); err != nil {
		return &apiError{status: http.StatusBadRequest, code: codeUnsupported, message: fmt.Sprintf("the query can't be read: %.100s", err)}
	}
	return nil
}

// findPing finds out whose version is checked. That counts only where it has to be said how to ask: what ns says is not
// complained about.
func (p *Proxy) findPing(r *http.Request, c *call) (registry string, err error) {
	c.target.kind = kindPing
	if prefix := c.vars["registry"]; prefix != "" {
		registry, ok := p.routes.known(prefix)
		if !ok {
			return "", p.routes.unknown(prefix)
		}
		return registry, nil
	}
	registry, _, _ = p.routes.registry(r, "", "")
	return registry, nil
}

// ping is the API's version check. It is answered at once, whatever upstream does: podman takes anything but 200 and 401
// for "no registry here".
func (p *Proxy) ping(w http.ResponseWriter, _ *http.Request, c *call) error {
	h := w.Header()
	h.Set("Docker-Distribution-Api-Version", "registry/2.0")
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", "2")
	h.Set("Cache-Status", localStatus)
	_, err := w.Write([]byte("{}"))
	c.err = err
	return nil
}

// findPull finds out what is meant below /v2/ of a registry.
func (p *Proxy) findPull(r *http.Request, c *call) (registry string, err error) {
	_, rest, _ := strings.Cut(r.URL.Path, "/v2/")
	rest = strings.Clone(rest) // digests and names from it are kept, and would keep the whole line of the request with them
	if isUpload(rest) {
		return "", nil
	}
	t, err := p.routes.parse(r, c.vars["registry"], rest)
	if err == nil {
		c.target = t
		err = c.target.parseRef()
	}
	return t.repo.Registry, err
}

// pull answers what is below /v2/ of a registry.
func (p *Proxy) pull(w http.ResponseWriter, r *http.Request, c *call) error {
	if c.target.repo.Name == "" {
		w.Header()["Allow"] = []string{""} // RFC 9110, 10.2.1: no method at all
		return &apiError{status: http.StatusMethodNotAllowed, code: codeUnsupported, message: "this is a pull-through mirror: there are no uploads here"}
	}
	c.set("Oci-Namespace", c.target.repo.Registry)
	switch c.target.kind {
	case kindManifest:
		return p.manifest(w, r, c)
	case kindBlob:
		return p.blob(w, r, c)
	case kindTags:
		return p.tags(w, r, c)
	default:
		return p.referrers(w, r, c)
	}
}

// front tells a person who looks in with a browser where they are.
func front(w http.ResponseWriter, _ *http.Request, _ *call) error {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Status", localStatus)
	_, err := w.Write([]byte("This is entrepot, a pull-through caching mirror for container registries.\n" +
		"Point your container runtime at it, for example in dockerd's daemon.json:\n\n" +
		"  { \"registry-mirrors\": [\"http://HOST:PORT\"] }\n"))
	return err
}

func notFound(http.ResponseWriter, *http.Request, *call) error {
	return &apiError{status: http.StatusNotFound, code: codeUnsupported, message: "no such endpoint: the API is below /v2/"}
}
