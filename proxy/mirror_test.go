package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/config"
	"github.com/entrepot/entrepot/proxy"
	"github.com/entrepot/entrepot/proxy/access"
	"github.com/entrepot/entrepot/upstream"
	"github.com/entrepot/entrepot/upstream/bandwidth"
	"github.com/entrepot/entrepot/upstream/credential"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// mirror is a whole mirror over real sockets and a real directory; its clock and its upstreams are the test's.
type mirror struct {
	t       testing.TB
	opts    cache.Options
	url     string
	cache   *cache.Cache
	metrics *proxy.Metrics
	logs    *observer.ObservedLogs
	server  *httptest.Server
	ups     []*upstream.Registry
	extra   map[string]*registry
	mirrors []*registry         // further endpoints of docker.io
	logins  []credential.Source // at docker.io
	policy  *access.Policy
	proxy   *proxy.Proxy
	egress  *bandwidth.Clients

	mu    sync.Mutex
	ahead time.Duration
}

// newMirror starts a mirror of docker.io, whose upstream is u, and of others.
func newMirror(t testing.TB, u *registry, others map[string]*registry, change ...func(*cache.Options)) *mirror {
	m := &mirror{t: t, extra: map[string]*registry{"docker.io": u}}
	for name, other := range others {
		m.extra[name] = other
	}
	m.begin(change...)
	return m
}

// newMirrorOf starts a mirror of docker.io, which has several endpoints.
func newMirrorOf(t *testing.T, endpoints ...*registry) *mirror {
	m := &mirror{t: t, extra: map[string]*registry{"docker.io": endpoints[0]}, mirrors: endpoints[1:]}
	m.begin()
	return m
}

func (m *mirror) begin(change ...func(*cache.Options)) {
	m.egress = bandwidth.NewClients(0, 0)
	m.opts = cache.Options{DataDir: m.t.TempDir(), TagTTL: func(cache.Repository, string) time.Duration { return time.Minute }, ReadAhead: cache.ReadNothing, Now: m.now}
	for _, c := range change {
		c(&m.opts)
	}
	m.start()
	m.t.Cleanup(m.close)
}

func (m *mirror) now() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return time.Now().Add(m.ahead)
}

// pass makes time pass.
func (m *mirror) pass(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ahead += d
}

func (m *mirror) start() {
	core, logs := observer.New(zapcore.DebugLevel)
	log := zap.New(core)
	m.logs = logs
	m.metrics = proxy.NewMetrics([]string{"docker.io"}, "test")
	m.opts.Log, m.opts.FillDone, m.opts.AheadDone, m.opts.Upstreams = log, m.metrics.FillDone, m.metrics.AheadDone, map[string]cache.Upstream{}
	var registries []proxy.Registry
	for name, u := range m.extra {
		endpoints := []upstream.Endpoint{m.endpoint(u)}
		if name == "docker.io" {
			for _, other := range m.mirrors {
				endpoints = append(endpoints, m.endpoint(other))
			}
		}
		up, err := upstream.New(upstream.Options{Name: name, Endpoints: endpoints, Log: log, Observer: m.metrics,
			Logins: m.loginsAt(name), ConnectionsPerBlob: 1, StallTimeout: time.Hour, Patience: time.Nanosecond}) // how fast the machine is, and how slow, is not the test's
		if err != nil {
			m.t.Fatal(err)
		}
		m.ups = append(m.ups, up)
		m.metrics.WatchEndpoints(name, up.Endpoints)
		m.metrics.WatchQuotas(name, up.Quotas)
		m.opts.Upstreams[name] = up
		registries = append(registries, proxy.Registry{Name: name, Hosts: []string{name + ".mirror.test"}})
	}
	c, err := cache.Open(m.t.Context(), m.opts)
	if err != nil {
		m.t.Fatal(err)
	}
	m.cache = c
	m.metrics.Watch(c.Stats)
	m.proxy = proxy.New(proxy.Options{Cache: c, Registries: registries, DefaultRegistry: "docker.io",
		Canonical: config.CanonicalRegistry, Access: m.policy, Egress: m.egress, Metrics: m.metrics, Log: log})
	m.server = httptest.NewUnstartedServer(m.proxy)
	m.server.Listener = proxy.Listener(m.server.Config, m.server.Listener)
	m.server.Start()
	m.url = m.server.URL
}

func (m *mirror) loginsAt(registry string) []credential.Source {
	if registry == "docker.io" {
		return m.logins
	}
	return nil
}

func (m *mirror) endpoint(u *registry) upstream.Endpoint {
	at, err := url.Parse(u.server.URL)
	if err != nil {
		m.t.Fatal(err)
	}
	return upstream.Endpoint{URL: at}
}

func (m *mirror) close() {
	m.server.CloseClientConnections()
	m.server.Close()
	if err := m.cache.Close(); err != nil {
		m.t.Error(err)
	}
	for _, u := range m.ups {
		u.Close()
	}
	m.ups = nil
	http.DefaultClient.CloseIdleConnections()
}

// restart closes the mirror and starts it again on the same directory.
func (m *mirror) restart() {
	m.close()
	m.start()
}

// answer is what a client gets, read to its end.
type answer struct {
	status int
	header http.Header
	body   []byte
	err    error // that ended the body early
}

// ask makes a request; headers are "Name: value".
func (m *mirror) ask(method, path string, headers ...string) answer {
	m.t.Helper()
	res := m.open(m.t.Context(), method, path, headers...)
	defer res.Body.Close()
	a := answer{status: res.StatusCode, header: res.Header}
	a.body, a.err = io.ReadAll(res.Body)
	return a
}

// open makes a request and leaves the body to the caller.
func (m *mirror) open(ctx context.Context, method, path string, headers ...string) *http.Response {
	m.t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, m.url+path, nil)
	if err != nil {
		m.t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		if name == "Host" {
			req.Host = value
		}
		req.Header.Add(name, value)
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		m.t.Fatal(err)
	}
	return res
}

func (m *mirror) get(path string, headers ...string) answer {
	m.t.Helper()
	return m.ask(http.MethodGet, path, headers...)
}

// settled waits until no transfer is under way: what was to be kept is kept. It follows them as a client would.
func (m *mirror) settled() {
	m.t.Helper()
	for deadline := time.Now().Add(time.Minute); busy(m.cache.Stats()); {
		if time.Now().After(deadline) {
			m.t.Fatal("a transfer goes on for ever")
		}
		<-time.After(time.Millisecond)
	}
}

func busy(s cache.Stats) bool { return s.Fills > 0 || s.Drafts > 0 }

func (a answer) expect(t *testing.T, status int, body []byte) {
	t.Helper()
	if a.status != status || a.err != nil {
		t.Fatalf("got %d, %v: %.300s", a.status, a.err, a.body)
	}
	if !bytes.Equal(a.body, body) {
		t.Fatalf("got %d bytes %.100q, want %d bytes %.100q", len(a.body), a.body, len(body), body)
	}
}

// expectError checks for OCI error JSON.
func (a answer) expectError(t *testing.T, status int, code string) {
	t.Helper()
	var body struct {
		Errors []struct{ Code, Message string }
	}
	err := json.Unmarshal(a.body, &body)
	if a.status != status || err != nil || len(body.Errors) != 1 || body.Errors[0].Code != code || body.Errors[0].Message == "" {
		t.Fatalf("got %d %s, want %d %s", a.status, a.body, status, code)
	}
	if a.header.Get("Content-Type") != "application/json" {
		t.Errorf("error of type %q", a.header.Get("Content-Type"))
	}
}

func (a answer) expectVerdict(t *testing.T, prefix string) {
	t.Helper()
	if got := a.header.Get("Cache-Status"); !strings.HasPrefix(got, "entrepot; "+prefix) {
		t.Errorf("Cache-Status %q, want entrepot; %s", got, prefix)
	}
}

func random(n int) []byte {
	b := make([]byte, n)
	rng := rand.NewChaCha8([32]byte{1, byte(n), byte(n >> 8), byte(n >> 16)})
	_, _ = rng.Read(b)
	return b
}

func blobPath(name string, d digest.Digest) string   { return "/v2/" + name + "/blobs/" + d.String() }
func manifestPath(name, reference string) string     { return "/v2/" + name + "/manifests/" + reference }
func digestPath(name string, d digest.Digest) string { return manifestPath(name, d.String()) }
func acceptAll() string                              { return "Accept: */*" }

func withMaxSize(n int64) func(*cache.Options) { return func(o *cache.Options) { o.MaxSize = n } }

// readAnswer reads one answer of HTTP/1.0 from a connection.
func readAnswer(t testing.TB, r io.Reader) answer {
	t.Helper()
	res, err := http.ReadResponse(bufio.NewReader(r), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	a := answer{status: res.StatusCode, header: res.Header}
	a.body, a.err = io.ReadAll(res.Body)
	return a
}

// logged waits until n requests were logged since it was last called, and returns their verdicts: a client may have all of
// an answer a moment before its line is written.
func (m *mirror) logged(n int) (verdicts string) {
	m.t.Helper()
	for deadline := time.Now().Add(time.Minute); m.logs.FilterMessage("request").Len() < n; {
		if time.Now().After(deadline) {
			m.t.Fatalf("no %d lines", n)
		}
		<-time.After(time.Millisecond)
	}
	var all []string
	for _, line := range m.logs.TakeAll() {
		if line.Message == "request" {
			all = append(all, fmt.Sprint(line.ContextMap()["verdict"]))
		}
	}
	return strings.Join(all, ",")
}

// exposition is what Prometheus gets.
func (m *mirror) exposition() string {
	w := httptest.NewRecorder()
	proxy.Admin(m.metrics, func() bool { return true }, m.cache.Stats, nil).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return w.Body.String()
}

// endpointMetric is a line of the exposition that tells of an endpoint of docker.io.
func (m *mirror) endpointMetric(name string, u *registry, value int) string {
	host := strings.TrimPrefix(u.server.URL, "http://")
	return fmt.Sprintf("entrepot_endpoint_%s{endpoint=%q,registry=\"docker.io\"} %d\n", name, host, value)
}
