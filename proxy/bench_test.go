package proxy_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/opencontainers/go-digest"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/entrepot/entrepot/config"
	"github.com/entrepot/entrepot/proxy"
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
	encoder := zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig())
	log := zap.New(zapcore.NewCore(encoder, zapcore.AddSync(io.Discard), zapcore.InfoLevel))
	p := proxy.New(proxy.Options{Cache: m.cache, Registries: []proxy.Registry{{Name: "docker.io"}}, DefaultRegistry: "docker.io",
		Canonical: config.CanonicalRegistry, Metrics: proxy.NewMetrics([]string{"docker.io"}, "test"), Log: log})
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
