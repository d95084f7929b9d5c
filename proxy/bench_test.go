package proxy_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/entrepot/entrepot/config"
	"github.com/entrepot/entrepot/proxy"
	"github.com/entrepot/entrepot/proxy/access"
)

// sink is a client's end of a connection that costs nothing.
type sink struct {
	header http.Header
	status int
	bytes  int
}

func (s *sink) Header() http.Header    { return s.header }
func (s *sink) WriteHeader(status int) { s.status = status }

func (s *sink) Write(b []byte) (int, error) {
	s.bytes += len(b)
	return len(b), nil
}

// quiet is a proxy before the mirror's cache, whose log goes nowhere.
func (m *mirror) quiet() *proxy.Proxy {
	encoder := zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig())
	log := zap.New(zapcore.NewCore(encoder, zapcore.AddSync(io.Discard), zapcore.InfoLevel))
	return proxy.New(proxy.Options{Cache: m.cache, Registries: []proxy.Registry{{Name: "docker.io"}}, DefaultRegistry: "docker.io",
		Canonical: config.CanonicalRegistry, Metrics: proxy.NewMetrics([]string{"docker.io"}, "test"), Log: log})
}

// BenchmarkHit is what a request that is answered from memory costs above net/http: all from the route to the line of the log.
func BenchmarkHit(b *testing.B) {
	u := newRegistry(b)
	layer := random(16 << 10)
	d := u.image("library/a", "1", layer)
	m := newMirror(b, u, nil)
	m.get(digestPath("library/a", d), acceptAll()) // all of the image is here, as after a pull
	m.get(blobPath("library/a", digest.FromBytes(layer)))
	m.get(blobPath("library/a", digest.FromString(`{"image":"library/a:1"}`)))
	m.settled()
	p := m.quiet()
	for _, request := range []struct{ name, method, path string }{
		{"manifest by digest", "GET", digestPath("library/a", d)},
		{"manifest by tag", "GET", manifestPath("library/a", "1")},
		{"manifest by tag, HEAD", "HEAD", manifestPath("library/a", "1")},
		{"small blob", "GET", blobPath("library/a", digest.FromBytes(layer))},
		{"small blob, HEAD", "HEAD", blobPath("library/a", digest.FromBytes(layer))},
	} {
		m.ask(request.method, request.path, acceptAll())
		b.Run(request.name, func(b *testing.B) {
			r := httptest.NewRequest(request.method, request.path, nil)
			b.ReportAllocs()
			for b.Loop() {
				s := &sink{header: make(http.Header)}
				p.ServeHTTP(s, r)
				if s.status != http.StatusOK || s.bytes == 0 && request.method == "GET" {
					b.Fatalf("%d, %d bytes", s.status, s.bytes)
				}
			}
		})
	}
}

// BenchmarkHitByAccess is what a manifest by tag from memory costs when it matters who asks, verdicts and passwords being known.
func BenchmarkHitByAccess(b *testing.B) {
	e := newEstate(b)
	m := e.mirror(nil)
	e.users["root"] = estateNames
	presents := &access.Policy{Anonymous: true, Registries: map[string]access.Registry{"docker.io": {Client: true}}}
	for _, house := range []struct {
		name, repository string
		header           []string
		policy           *access.Policy
	}{
		{"everybody may have everything", "library/public", nil, nil},
		{"public", "library/public", nil, m.policy},
		{"exposed", "corp/exposed", nil, m.policy},
		{"user", "corp/private", as("alice"), m.policy},
		{"presented", "corp/private", []string{e.token("root", "corp/private")}, presents},
	} {
		m.proxy.SetAccess(nil)
		e.warm(m, house.repository)
		p := m.quiet()
		p.SetAccess(house.policy)
		r := httptest.NewRequest("GET", manifestPath(house.repository, "1"), nil)
		for _, h := range house.header {
			name, value, _ := strings.Cut(h, ": ")
			r.Header.Set(name, value)
		}
		b.Run(house.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s := &sink{header: make(http.Header)}
				p.ServeHTTP(s, r)
				if s.status != http.StatusOK {
					b.Fatal(s.status)
				}
			}
		})
	}
}
