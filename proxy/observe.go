package proxy

import (
	"fmt"
	"io"
	"net/http"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/upstream/bandwidth"
)

// call is a request while it is answered: the writer of its answer, and what is known of it for the log and the metrics.
//
// As a writer it takes down what is written. It keeps the other abilities of the writer below, above all io.ReaderFrom, by
// which a file goes to a socket inside the kernel; the rest is had by http.ResponseController.
type call struct {
	http.ResponseWriter
	request *http.Request
	vars    map[string]string // of the route

	target     target // as far as it was parsed
	user       string // who asks; "": nobody in particular
	presents   bool   // whom the registry itself is to judge by what it presents
	presented  string // that; never logged
	asked      bool   // the cache was asked
	verdict    cache.Verdict
	hasVerdict bool
	err        error
	broken     bool // the handler panicked

	start     time.Time
	status    int
	written   int64     // bytes of the body
	firstByte time.Time // of an answer that came from upstream

	client *bandwidth.Client // whose bandwidth the body waits for; nil: it does not

	values  [8]string // of header fields, as set put them there: each its own element
	valuesN int
}

// set sets a header field, whose name is in canonical form. It is http.Header.Set without an allocation a field, as long as
// there is room in c: for eight, as a small map has. Of a fresh answer there should be no more, for the ninth makes the map
// grow, and that of the copy that net/http makes of it.
func (c *call) set(name, value string) {
	if c.valuesN == len(c.values) {
		c.Header()[name] = []string{value}
		return
	}
	c.values[c.valuesN] = value
	c.valuesN++
	c.Header()[name] = c.values[c.valuesN-1 : c.valuesN : c.valuesN]
}

// Unwrap returns the writer below.
func (c *call) Unwrap() http.ResponseWriter { return c.ResponseWriter }

func (c *call) WriteHeader(status int) {
	if c.status == 0 && status >= 200 {
		c.status = status
	}
	c.ResponseWriter.WriteHeader(status)
}

// buffered is how large a body is, in bytes, that surely does not fit into net/http's buffer behind a header.
const buffered = 4 << 10

// send answers with a body of that size that is all here, in one send with the header: http.ServeContent takes two.
func (c *call) send(body io.WriterTo, size int64) {
	flusher, ok := c.ResponseWriter.(http.Flusher)
	if to := connOf(c.request); ok && to != nil && size >= buffered { // what is smaller goes with the header anyway
		to.hold()
		defer to.release()
		c.WriteHeader(http.StatusOK)
		flusher.Flush()
	} else {
		c.WriteHeader(http.StatusOK)
	}
	_, _ = body.WriteTo(c) // what was written tells
}

func (c *call) wrote(n int64) {
	if c.status == 0 {
		c.status = http.StatusOK
	}
	if n > 0 && c.written == 0 && c.forwarded() {
		c.firstByte = time.Now()
	}
	c.written += n
}

// observe has next answer the request, and then logs and counts it.
func (p *Proxy) observe(w http.ResponseWriter, r *http.Request, next http.Handler) {
	c := &call{ResponseWriter: w, request: r, start: time.Now(), target: target{kind: kindOther}}
	defer func() { // also when the handler cuts the connection by a panic, which goes on afterwards
		cause := recover()
		if cause != nil && cause != http.ErrAbortHandler {
			cause = p.panicked(c, cause)
		}
		p.settle(c)
		p.metrics.answered(c)
		p.access(c)
		if cause != nil {
			panic(cause)
		}
	}()
	next.ServeHTTP(c, r)
}

// panicked tells of a fault of ours: the operator with the stack, the client by a 500. If the client has a part of another
// answer already, all that is left is to cut it off, by the panic that is returned for that.
func (p *Proxy) panicked(c *call, cause any) (next any) {
	p.log.Error("panic serving a request", zap.Any("panic", cause), zap.String("method", clip(c.request.Method)),
		zap.String("path", clip(c.request.URL.Path)), zap.Stack("stack"))
	c.broken, c.err = true, fmt.Errorf("panic: %v", cause)
	if c.status != 0 {
		return http.ErrAbortHandler
	}
	h := c.Header()
	clear(h) // it spoke of another answer
	h.Set("Connection", "close")
	h.Set("Cache-Status", c.errorStatus(c.err))
	(&apiError{status: http.StatusInternalServerError, code: codeUnknown, message: "the mirror has failed; its log says how"}).write(c)
	return nil
}

// forwarded reports whether the answer had to come from upstream.
func (c *call) forwarded() bool {
	return c.hasVerdict && (c.verdict.Outcome == cache.Miss || c.verdict.Outcome == cache.Collapsed)
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

// access writes the one line that a request gets in the log.
func (p *Proxy) access(c *call) {
	level := zapcore.InfoLevel
	if c.target.kind == kindPing {
		level = zapcore.DebugLevel // podman and dockerd ping before everything, monitoring pings for ever
	}
	if entry := p.log.Check(level, "request"); entry != nil {
		entry.Write(zap.Inline(c))
	}
}

// MarshalLogObject writes what the log says of a request. The query is left out: it may hold what is nobody's business.
func (c *call) MarshalLogObject(line zapcore.ObjectEncoder) error {
	line.AddString("method", clip(c.request.Method))
	line.AddString("kind", string(c.target.kind))
	line.AddString("registry", c.target.repo.Registry)
	line.AddString("repository", c.target.repo.Name)
	line.AddString("reference", clip(c.target.reference))
	line.AddInt("status", c.status)
	line.AddString("verdict", c.outcome())
	line.AddInt64("bytes", c.written)
	line.AddDuration("duration", time.Since(c.start))
	line.AddString("client", c.request.RemoteAddr)
	if c.user != "" {
		line.AddString("user", clip(c.user))
	}
	line.AddString("user_agent", clip(c.request.UserAgent()))
	if c.target.kind == kindOther {
		line.AddString("path", clip(c.request.URL.Path))
	}
	if c.verdict.Cause != nil {
		line.AddString("stale_because", c.verdict.Cause.Error())
	}
	if c.err != nil {
		line.AddString("error", c.err.Error())
	}
	return nil
}
