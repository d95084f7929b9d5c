package upstream

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// redirect answers with a redirect to a URL.
func redirect(to string) http.HandlerFunc {
	return func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Location", to)
		rw.WriteHeader(http.StatusTemporaryRedirect)
	}
}

// wantBasic lets the user in and nobody else.
func wantBasic(h http.HandlerFunc) http.HandlerFunc {
	return func(rw http.ResponseWriter, req *http.Request) {
		if name, password, ok := req.BasicAuth(); !ok || name != user.Username || password != user.Password {
			rw.Header().Set("WWW-Authenticate", `Basic realm="registry"`)
			status(http.StatusUnauthorized)(rw, req)
			return
		}
		h(rw, req)
	}
}

func TestRedirectToAnotherOriginArrivesWithoutAuthorization(t *testing.T) {
	for _, tt := range []struct {
		name     string
		endpoint string
		hops     []string // the origins that are led to, one after the other; the last one answers
		kept     []bool   // whether the authorization arrives there
	}{
		{"another host", "https://registry.test", []string{"https://cdn.test"}, []bool{false}},
		{"a subdomain", "https://registry.test", []string{"https://cdn.registry.test"}, []bool{false}},
		{"the parent domain", "https://eu.registry.test", []string{"https://registry.test"}, []bool{false}},
		{"another port", "https://registry.test", []string{"https://registry.test:8443"}, []bool{false}},
		{"another scheme", "http://registry.test", []string{"https://registry.test"}, []bool{false}},
		{"another scheme at the same port", "http://registry.test:5000", []string{"https://registry.test:5001"}, []bool{false}},
		{"away and on", "https://registry.test", []string{"https://cdn.test", "https://cdn2.test"}, []bool{false, false}},
		{"away and back", "https://registry.test", []string{"https://cdn.test", "https://registry.test"}, []bool{false, false}},
		{"the same origin", "https://registry.test", []string{"https://registry.test"}, []bool{true}},
		{"the same origin spelt otherwise", "https://registry.test", []string{"https://REGISTRY.test:443"}, []bool{true}},
		{"the same origin, then away", "https://registry.test", []string{"https://registry.test", "https://cdn.test"}, []bool{true, false}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			next := append([]string{}, tt.hops...)
			var arrived []bool
			step := func(rw http.ResponseWriter, req *http.Request) {
				if strings.HasPrefix(req.URL.Path, "/hop") {
					arrived = append(arrived, req.Header.Get("Authorization") != "")
					if req.Header.Get("Range") != "bytes=3-" || req.Header.Get("Accept-Encoding") != "identity" {
						t.Errorf("hop with header %v", req.Header)
					}
				}
				if len(next) == 0 {
					serveLayer(rw, req)
					return
				}
				to := fmt.Sprintf("%s/hop%d?signature=s3cret", next[0], len(tt.hops)-len(next))
				next = next[1:]
				redirect(to)(rw, req)
			}
			for _, base := range append([]string{tt.endpoint}, tt.hops...) {
				base = strings.TrimSuffix(strings.ToLower(base), ":443")
				if base == tt.endpoint {
					w.serve(base, func(rw http.ResponseWriter, req *http.Request) {
						if strings.HasPrefix(req.URL.Path, "/hop") {
							step(rw, req)
						} else {
							wantBasic(step)(rw, req)
						}
					})
				} else {
					w.serve(base, step)
				}
			}
			r := w.registry(Options{Logins: asUser}, tt.endpoint)
			body, err := r.OpenBlob(t.Context(), wanted(layerDigest, 3, -1))
			if err != nil {
				t.Fatal(err)
			}
			body.Close()
			if diff := cmp.Diff(tt.kept, arrived); diff != "" {
				t.Errorf("authorization has arrived (-want +got)\n%s", diff)
			}
		})
	}
}

func TestRedirectedManifestIsAskedForWithAccept(t *testing.T) {
	w := newWorld(t)
	w.serve("https://registry.test", redirect("//region.test/manifest"))
	w.serve("https://region.test", serveContent)
	r := w.registry(Options{}, "https://registry.test")
	if _, _, err := r.Manifest(t.Context(), repo, "7", []string{manifestType}); err != nil {
		t.Fatal(err)
	}
	for _, h := range w.requests() {
		if h.Header.Get("Accept") != manifestType || h.Header.Get("Referer") != "" {
			t.Errorf("%s with header %v", h.URL, h.Header)
		}
	}
}

func TestAbsenceBehindARedirectIsAnAnswer(t *testing.T) {
	w := newWorld(t)
	w.serve("https://registry.test", redirect("https://region.test/"))
	w.serve("https://region.test", status(404))
	_, _, err := w.registry(Options{}, "https://registry.test").Manifest(t.Context(), repo, "7", nil)
	if e := asError(t, err); e.Status != 404 || !e.Answered() {
		t.Error(e)
	}
}

func TestRefusalByAStorageHostIsNoAnswer(t *testing.T) {
	for _, code := range []int{401, 403} {
		w := newWorld(t)
		w.serve("https://registry.test", redirect("https://cdn.test/?signature=expired"))
		w.serve("https://cdn.test", status(code))
		r := w.registry(Options{}, "https://registry.test")
		_, err := r.OpenBlob(t.Context(), wanted(layerDigest, 0, -1))
		_, errStat := r.StatBlob(t.Context(), repo, layerDigest)
		for _, err := range []error{err, errStat} {
			if e := asError(t, err); e.Status != code || e.Answered() {
				t.Errorf("%v (answered %t)", e, e.Answered())
			}
		}
	}
}

func TestRedirectsThatAreNotFollowed(t *testing.T) {
	for _, tt := range []struct {
		name, to, err string
		requests      int
	}{
		{"from https to http", "http://cdn.test/?signature=s3cret", "redirect from https to http at cdn.test", 1},
		{"in a circle", "/again?signature=s3cret", "more than 5 redirects", 6},
		{"to another protocol", "ftp://cdn.test/?signature=s3cret", "redirect to what is no http or https URL", 1},
		{"to no host", "https:///?signature=s3cret", "redirect to what is no http or https URL", 1},
		{"to no URL", "https://cdn.test:s3cret/%zz", "redirect to what is no URL", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.serve("https://registry.test", redirect(tt.to))
			w.serve("http://cdn.test", serveLayer)
			_, err := w.registry(Options{}, "https://registry.test").OpenBlob(t.Context(), wanted(layerDigest, 0, -1))
			if e := asError(t, err); e.Answered() || !strings.HasSuffix(e.Error(), tt.err) {
				t.Errorf("%v, want %s", e, tt.err)
			}
			if len(w.lines()) != tt.requests {
				t.Errorf("requests %q, want %d", w.lines(), tt.requests)
			}
		})
	}
}

func TestFiveRedirectsAreFollowed(t *testing.T) {
	w := newWorld(t)
	w.serve("https://registry.test", func(rw http.ResponseWriter, req *http.Request) {
		switch n := len(w.lines()); {
		case n <= 5:
			redirect(fmt.Sprintf("/hop/%d", n))(rw, req)
		default:
			serveContent(rw, req)
		}
	})
	if _, err := w.registry(Options{}, "https://registry.test").Resolve(t.Context(), repo, "7", nil); err != nil {
		t.Error(err)
	}
}

// witness is an Observer that notes what it is told.
type witness struct {
	mu       sync.Mutex
	requests []string
	bytes    map[string]int64
	calls    int
}

func (o *witness) UpstreamRequest(registry, kind, outcome string, _ time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.requests = append(o.requests, registry+" "+kind+" "+outcome)
}

func (o *witness) UpstreamBytes(registry, kind string, n int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.bytes == nil {
		o.bytes = map[string]int64{}
	}
	o.bytes[registry+" "+kind] += n
	o.calls++
}

func TestObserverIsToldOfEveryRequestAndByte(t *testing.T) {
	const noTags = `{"tags":null}`
	w := newWorld(t)
	g := &gate{t: t, realm: "https://auth.test/token", service: "registry"}
	w.serve("https://auth.test", g.tokens)
	w.serve("https://registry.test", g.guard(func(rw http.ResponseWriter, req *http.Request) {
		switch {
		case strings.Contains(req.URL.Path, "/blobs/"):
			redirect("https://cdn.test/")(rw, req)
		case strings.HasSuffix(req.URL.Path, "/429"):
			rw.WriteHeader(429)
		case strings.HasSuffix(req.URL.Path, "/500"):
			rw.WriteHeader(500)
		case strings.HasSuffix(req.URL.Path, "/tags/list"):
			fmt.Fprint(rw, noTags)
		default:
			serveContent(rw, req)
		}
	}))
	w.serve("https://cdn.test", serveLayer)
	o := &witness{}
	r := w.registry(Options{Observer: o}, "https://registry.test")
	dead := w.registry(Options{Observer: o, Name: "ghcr.io"}, "https://dead.test")

	r.Manifest(t.Context(), repo, "7", nil)
	r.Resolve(t.Context(), repo, "500", nil)
	dead.Resolve(t.Context(), repo, "7", nil)
	r.List(t.Context(), repo, "tags/list", nil)
	r.Resolve(t.Context(), repo, "429", nil)
	before := o.calls
	body, err := r.OpenBlob(t.Context(), wanted(layerDigest, 0, -1))
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; err == nil; {
		n, err = body.Read(make([]byte, 1<<10))
		_ = n
	}
	body.Close()
	if calls := o.calls - before; calls > len(layer)/countedAtOnce+1 {
		t.Errorf("told %d times of %d bytes", calls, len(layer))
	}
	want := []string{
		"docker.io manifest refused", "docker.io token ok", "docker.io manifest ok",
		"docker.io manifest failed",
		"ghcr.io manifest failed",
		"docker.io list ok",
		"docker.io manifest throttled",
		"docker.io blob ok", "docker.io blob ok",
	}
	if diff := cmp.Diff(want, o.requests); diff != "" {
		t.Error(diff)
	}
	if got := o.bytes["docker.io blob"]; got != int64(len(layer)) {
		t.Errorf("told of %d bytes of %d", got, len(layer))
	}
	if got := o.bytes["docker.io list"]; got != int64(len(noTags)) {
		t.Errorf("told of %d bytes of a list of %d", got, len(noTags))
	}
	if o.bytes["docker.io token"] == 0 {
		t.Error("told of no byte of a token")
	}
}

// TestEachRequestIsLoggedAtDebugLevel includes that the path of another host is not: it may be a signature.
func TestEachRequestIsLoggedAtDebugLevel(t *testing.T) {
	w := newWorld(t)
	w.serve("https://registry.test", redirect("https://cdn.test/blob?signature=s3cret"))
	w.serve("https://cdn.test", status(503))
	log, logs := debugLog()
	w.registry(Options{Log: log}, "https://registry.test").StatBlob(t.Context(), repo, layerDigest)
	var got []map[string]any
	for _, entry := range logs.All() {
		fields := entry.ContextMap()
		if _, ok := fields["took"].(time.Duration); !ok {
			t.Errorf("took is %v", fields["took"])
		}
		delete(fields, "took")
		got = append(got, fields)
	}
	want := []map[string]any{
		{"registry": "docker.io", "method": "HEAD", "host": "registry.test", "path": "/v2/library/redis/blobs/" + layerDigest.String(), "status": int64(307)},
		{"registry": "docker.io", "method": "HEAD", "host": "cdn.test", "status": int64(503)},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
