package upstream

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/entrepot/entrepot/upstream/credential"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a network of its own: hosts by name, joined by pipes, so that tests may name hosts as they like, dial nothing
// else, and run by the clock of synctest. It notes every request that arrives anywhere.
type world struct {
	t  *testing.T
	by func(ctx context.Context, network, addr string) (net.Conn, error) // dials in place of dial; nil: none

	mu sync.Mutex
	// guards following
	hosts map[string]*pipes
	heard []heard
	dials int
}

// heard is a request as a host has received it.
type heard struct {
	Method, URL string // the URL with its scheme and host
	Header      http.Header
}

func newWorld(t *testing.T) *world { return &world{t: t, hosts: map[string]*pipes{}} }

// serve puts a host into the world. Base is a URL without a path.
func (w *world) serve(base string, h http.HandlerFunc) {
	w.t.Helper()
	u, err := url.Parse(base)
	if err != nil {
		w.t.Fatal(err)
	}
	l := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
	w.mu.Lock()
	w.hosts[address(u)] = l
	w.mu.Unlock()
	s := &http.Server{
		ErrorLog: log.New(io.Discard, "", 0),
		Handler: http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
			w.mu.Lock()
			w.heard = append(w.heard, heard{req.Method, base + req.URL.String(), req.Header.Clone()})
			w.mu.Unlock()
			h(rw, req)
		}),
	}
	var served sync.WaitGroup
	served.Go(func() {
		if u.Scheme == "https" {
			s.TLSConfig = &tls.Config{Certificates: []tls.Certificate{certificate()}}
			s.ServeTLS(l, "", "")
		} else {
			s.Serve(l)
		}
	})
	w.t.Cleanup(func() { s.Close(); served.Wait() })
}

func address(u *url.URL) string {
	_, hostport, _ := strings.Cut(string(originOf(u)), "://")
	return hostport
}

// registry returns a registry in this world with the given endpoints, besides those of the options.
func (w *world) registry(o Options, endpoints ...string) *Registry {
	w.t.Helper()
	o.Name = cmp.Or(o.Name, "docker.io")
	o.Patience = cmp.Or(o.Patience, time.Nanosecond) // not all tests run by a clock of their own
	for _, e := range endpoints {
		u, err := url.Parse(e)
		if err != nil {
			w.t.Fatal(err)
		}
		o.Endpoints = append(o.Endpoints, Endpoint{URL: u})
	}
	o.tune = func(transport *http.Transport) {
		transport.Proxy = nil
		transport.DialContext = w.dial
		if w.by != nil {
			transport.DialContext = w.by
		}
		transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} // by the clock of synctest no certificate is valid
	}
	r, err := New(o)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(r.Close)
	return r
}

func (w *world) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	w.mu.Lock()
	l := w.hosts[strings.ToLower(addr)]
	w.dials++
	w.mu.Unlock()
	if l == nil {
		return nil, fmt.Errorf("dial %s: connection refused", addr)
	}
	client, server := net.Pipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-l.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// requests returns what has been heard so far, in order of arrival.
func (w *world) requests() []heard {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.heard)
}

// lines are the requests as "METHOD URL".
func (w *world) lines() []string {
	var lines []string
	for _, h := range w.requests() {
		lines = append(lines, h.Method+" "+h.URL)
	}
	return lines
}

// count returns how many requests have come whose line contains s.
func (w *world) count(s string) int {
	n := 0
	for _, line := range w.lines() {
		if strings.Contains(line, s) {
			n++
		}
	}
	return n
}

// pipes is a listener for the server's ends of pipes.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipes) Close() error { l.once.Do(func() { close(l.done) }); return nil }

func (l *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

var certificate = sync.OnceValue(func() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
})

const (
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	repo         = "library/redis"
)

var (
	content       = []byte(`{"schemaVersion":2}`)
	contentDigest = digest.FromBytes(content)
)

// serveContent answers any request with content as a manifest.
func serveContent(rw http.ResponseWriter, req *http.Request) {
	rw.Header().Set("Content-Type", manifestType)
	rw.Header().Set("Docker-Content-Digest", contentDigest.String())
	rw.Write(content)
}

// status answers with a status and an OCI error body.
func status(code int) http.HandlerFunc {
	return func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "application/json")
		rw.WriteHeader(code)
		fmt.Fprintf(rw, `{"errors":[{"code":"CODE_%d","message":"status %d"}]}`, code, code)
	}
}

// silent answers nothing for as long as the client waits.
func silent(_ http.ResponseWriter, req *http.Request) { <-req.Context().Done() }

// user is the operator's credentials in these tests.
var user = credential.Login{Username: "ci", Password: "hunter2"}

var asUser = as(user)

// as is a way to be so many logins.
func as(logins ...credential.Login) (sources []credential.Source) {
	for _, l := range logins {
		sources = append(sources, credential.Static(l))
	}
	return sources
}

// keyless is a source that has no login to give.
type keyless struct{ err error }

func (f keyless) Get(context.Context) (credential.Login, error) { return credential.Login{}, f.err }

func (keyless) Refused(credential.Login) {}

// asError returns err as an *Error, or fails the test.
func asError(t *testing.T, err error) *Error {
	t.Helper()
	e, ok := errors.AsType[*Error](err)
	if !ok {
		t.Fatalf("error is %T (%v), want *Error", err, err)
	}
	return e
}

// debugLog returns a logger and what it has written.
func debugLog() (*zap.Logger, *observer.ObservedLogs) {
	core, logs := observer.New(zap.DebugLevel)
	return zap.New(core), logs
}
