package proxy

import (
	"context"
	"fmt"
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
	broken     bool // the handler panicked

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
	w = c.watch(w)
	defer func() { // also when the handler cuts the connection by a panic, which goes on afterwards
		cause := recover()
		if cause != nil && cause != http.ErrAbortHandler {
			cause = p.panicked(w, r, c, cause)
		}
		p.metrics.answered(c)
		p.access(r, c)
		if cause != nil {
			panic(cause)
		}
	}()
	next.ServeHTTP(w, r)
}

// panicked tells of a fault of ours: the operator with the stack, the client by a 500. If the client has a part of another
// answer already, all that is left is to cut it off, by the panic that is returned for that.
func (p *Proxy) panicked(w http.ResponseWriter, r *http.Request, c *call, cause any) (next any) {
	p.log.Error("panic serving a request", zap.Any("panic", cause), zap.String("method", clip(r.Method)),
		zap.String("path", clip(r.URL.Path)), zap.Stack("stack"))
	c.broken, c.err = true, fmt.Errorf("panic: %v", cause)
	if c.status != 0 {
		return http.ErrAbortHandler
	}
	h := w.Header()
	clear(h) // it spoke of another answer
	h.Set("Connection", "close")
	h.Set("Cache-Status", c.errorStatus(c.err))
	(&apiError{status: http.StatusInternalServerError, code: codeUnknown, message: "the mirror has failed; its log says how"}).write(w)
	return nil
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
	case c.broken:
		return outcomeFailed
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
	outcomeFailed  = "failed"  // answered with 5xx, or not to the end because of a fault of ours
	outcomeRefused = "refused" // answered with 4xx
	outcomeLocal   = "local"   // answered by the mirror itself
)

// maxLogged is how much of what a client chose freely gets into its line of the log: longer than any digest, and as long
// as a name may be. A header may have 64 KiB.
const maxLogged = 256

func clip(s string) string { return s[:min(len(s), maxLogged)] }

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
		zap.String("method", clip(r.Method)), zap.String("kind", string(c.target.kind)),
		zap.String("registry", c.target.repo.Registry), zap.String("repository", c.target.repo.Name),
		zap.String("reference", clip(c.target.reference)),
		zap.Int("status", c.status), zap.String("verdict", c.outcome()),
		zap.Int64("bytes", c.written), zap.Duration("duration", time.Since(c.start)),
		zap.String("client", r.RemoteAddr), zap.String("user_agent", clip(r.UserAgent())),
	}
	if c.target.kind == kindOther {
		fields = append(fields, zap.String("path", clip(r.URL.Path)))
	}
	if c.verdict.Cause != nil {
		fields = append(fields, zap.NamedError("stale_because", c.verdict.Cause))
	}
	if c.err != nil {
		fields = append(fields, zap.Error(c.err))
	}
	entry.Write(fields...)
}
