package proxy

import (
	"context"
	"io"
	"net/http"
	"time"

	"github.com/felixge/httpsnoop"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/entrepot/entrepot/cache"
)

// call is what is known of a request while it is answered: for the log and the metrics.
type call struct {
	target     target // as far as it was parsed
	asked      bool   // the cache was asked
	verdict    cache.Verdict
	hasVerdict bool
	err        error

	start     time.Time
	status    int
	written   int64 // bytes of the body
	firstByte time.Time
}

type callKey struct{}

// callOf returns the call that observe made for the request.
func callOf(r *http.Request) *call { return r.Context().Value(callKey{}).(*call) }

// observe has next answer the request, and then logs and counts it.
func (p *Proxy) observe(w http.ResponseWriter, r *http.Request, next http.Handler) {
	c := &call{start: time.Now(), target: target{kind: kindOther}}
	r = r.WithContext(context.WithValue(r.Context(), callKey{}, c))
	defer func() { // also when the handler cuts the connection by a panic, which goes on afterwards
		p.metrics.answered(c)
		p.access(r, c)
	}()
	next.ServeHTTP(c.watch(w), r)
}

// watch takes down what is written. It keeps the writer's other abilities, above all io.ReaderFrom, by which a file goes to
// a socket inside the kernel.
func (c *call) watch(w http.ResponseWriter) http.ResponseWriter {
	wrote := func(n int64) {
		if c.status == 0 {
			c.status = http.StatusOK
		}
		if n > 0 && c.written == 0 {
			c.firstByte = time.Now()
		}
		c.written += n
	}
	return httpsnoop.Wrap(w, httpsnoop.Hooks{
		WriteHeader: func(next httpsnoop.WriteHeaderFunc) httpsnoop.WriteHeaderFunc {
			return func(status int) {
				if c.status == 0 && status >= 200 {
					c.status = status
				}
				next(status)
			}
		},
		Write: func(next httpsnoop.WriteFunc) httpsnoop.WriteFunc {
			return func(b []byte) (int, error) {
				n, err := next(b)
				wrote(int64(n))
				return n, err
			}
		},
		ReadFrom: func(next httpsnoop.ReadFromFunc) httpsnoop.ReadFromFunc {
			return func(src io.Reader) (int64, error) {
				n, err := next(src)
				wrote(n)
				return n, err
			}
		},
	})
}

// outcome is the verdict as the log and the metrics name it.
func (c *call) outcome() string {
	switch {
	case c.hasVerdict:
		return c.verdict.Outcome.String()
	case c.status >= 500:
		return outcomeFailed
	case c.status >= 400:
		return outcomeRefused
	}
	return outcomeLocal
}

// What happens to requests that the cache has no verdict on.
const (
	outcomeFailed  = "failed"  // answered with 5xx
	outcomeRefused = "refused" // answered with 4xx
	outcomeLocal   = "local"   // answered by the mirror itself
)

// access writes the one line that a request gets in the log. The query is left out: it may hold what is nobody's business.
func (p *Proxy) access(r *http.Request, c *call) {
	level := zapcore.InfoLevel
	if c.target.kind == kindPing {
		level = zapcore.DebugLevel // podman and dockerd ping before everything, monitoring pings for ever
	}
	entry := p.log.Check(level, "request")
	if entry == nil {
		return
	}
	fields := []zap.Field{
		zap.String("method", r.Method), zap.String("kind", string(c.target.kind)),
		zap.String("registry", c.target.repo.Registry), zap.String("repository", c.target.repo.Name),
		zap.String("reference", c.target.reference),
		zap.Int("status", c.status), zap.String("verdict", c.outcome()),
		zap.Int64("bytes", c.written), zap.Duration("duration", time.Since(c.start)),
		zap.String("client", r.RemoteAddr), zap.String("user_agent", r.UserAgent()),
	}
	if c.target.kind == kindOther {
		fields = append(fields, zap.String("path", r.URL.Path))
	}
	if c.verdict.Cause != nil {
		fields = append(fields, zap.NamedError("stale_because", c.verdict.Cause))
	}
	if c.err != nil {
		fields = append(fields, zap.Error(c.err))
	}
	entry.Write(fields...)
}
