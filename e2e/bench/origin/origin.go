// Package origin is the registry that the benchmark, and tests with much content, have for an upstream: small, strict, and
// counting.
//
// It answers what pulling takes and nothing else: the ping, manifests by tag and by digest, blobs whole and in ranges,
// GET and HEAD, each with its digest, type and length, and the rest with the specification's errors. What it sends is
// computed, not stored, so that it holds layers of any size and costs the machine one copy a byte. It can be slow: each
// connection, all of them together, and from far away.
package origin

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// Line is the way to the registry. The zero value has no limits.
type Line struct {
	// PerConnection and Total are in bytes a second.
	PerConnection, Total int
	// Away is how long each answer takes to begin. Connecting takes no time.
	Away time.Duration
}

// step is what is sent at a time. When limited it is a few milliseconds' worth: the stream is even.
const step = 64 << 10

// Kind is a kind of content.
type Kind int

// The kinds. Pings is all that is neither.
const (
	Pings Kind = iota
	Manifests
	Configs
	Layers
	kinds
)

// Count is what was asked and sent.
type Count struct {
	// Heads, Gets and Bytes, those of bodies, are by [Kind].
	Heads, Gets, Bytes [kinds]int64
}

// Requests is the number of all requests, AllBytes of the bytes of all bodies.
func (c Count) Requests() int64 { return sum(c.Heads) + sum(c.Gets) }

// AllBytes is the sum of all bodies' bytes.
func (c Count) AllBytes() int64 { return sum(c.Bytes) }

func sum(n [kinds]int64) int64 {
	var all int64
	for _, one := range n {
		all += one
	}
	return all
}

// Since is what was counted after before.
func (c Count) Since(before Count) Count {
	for k := range kinds {
		c.Heads[k] -= before.Heads[k]
		c.Gets[k] -= before.Gets[k]
		c.Bytes[k] -= before.Bytes[k]
	}
	return c
}

// Server is a running registry.
type Server struct {
	// Address is its host and port.
	Address string
	store   *Store
	line    Line
	all     *rate.Limiter
	server  *http.Server
	served  chan struct{}

	heads, gets, bytes [kinds]atomic.Int64
}

// Serve starts a registry of what is in the store, at the end of the line.
func Serve(s *Store, line Line) (*Server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	o := &Server{Address: l.Addr().String(), store: s, line: line, all: limiter(line.Total), served: make(chan struct{})}
	o.server = &http.Server{
		Handler: o,
		ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
			return context.WithValue(ctx, own{}, limiter(line.PerConnection))
		},
	}
	go func() {
		defer close(o.served)
		o.server.Serve(l) // until Close
	}()
	return o, nil
}

// own is the context key of a connection's own limiter.
type own struct{}

// limiter returns what limits to so many bytes a second, none if 0. The burst makes up for a timer that was late.
func limiter(bytesPerSecond int) *rate.Limiter {
	if bytesPerSecond == 0 {
		return rate.NewLimiter(rate.Inf, 0)
	}
	return rate.NewLimiter(rate.Limit(bytesPerSecond), 4*step)
}

// Close cuts all connections.
func (o *Server) Close() error {
	err := o.server.Close()
	<-o.served
	return err
}

// Count is what was asked and sent so far.
func (o *Server) Count() Count {
	var c Count
	for k := range kinds {
		c.Heads[k], c.Gets[k], c.Bytes[k] = o.heads[k].Load(), o.gets[k].Load(), o.bytes[k].Load()
	}
	return c
}

// ServeHTTP answers one request.
func (o *Server) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	what, ok := content{}, req.URL.Path == "/v2/"
	ping := ok
	if repository, kind, reference, cut := split(req.URL.Path); cut {
		what, ok = o.store.find(repository, kind, reference)
	}
	if req.Method == http.MethodHead {
		o.heads[what.kind].Add(1)
	} else {
		o.gets[what.kind].Add(1)
	}
	if o.line.Away > 0 {
		select {
		case <-time.After(o.line.Away):
		case <-req.Context().Done():
			return
		}
	}
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	switch {
	case req.Method != http.MethodGet && req.Method != http.MethodHead:
		refuse(w, http.StatusMethodNotAllowed, "UNSUPPORTED")
	case !ok && strings.Contains(req.URL.Path, "/manifests/"):
		refuse(w, http.StatusNotFound, "MANIFEST_UNKNOWN")
	case !ok:
		refuse(w, http.StatusNotFound, "BLOB_UNKNOWN")
	case ping:
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, "{}")
	default:
		o.serve(w, req, what)
	}
}

// split takes a path apart.
func split(path string) (repository, what, reference string, ok bool) {
	parts := strings.Split(path, "/")
	n := len(parts)
	if n < 5 || parts[0] != "" || parts[1] != "v2" {
		return "", "", "", false
	}
	return strings.Join(parts[2:n-2], "/"), parts[n-2], parts[n-1], true
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"errors":[{"code":%q}]}`, code)
}

// serve answers with content, or the part of it that is asked for.
func (o *Server) serve(w http.ResponseWriter, req *http.Request, c content) {
	size, digest, mediaType := c.blob.Size, c.blob.Digest, "application/octet-stream"
	each := c.blob.each
	if body := c.document.Body; body != nil {
		size, digest, mediaType = int64(len(body)), c.document.Digest, c.document.MediaType
		each = func(from, to int64, f func([]byte) error) error { return f(body[from:to]) }
	}
	if c.kind == Configs {
		mediaType = "application/octet-stream"
	}
	from, to, part, ok := byteRange(req.Header.Get("Range"), size)
	h := w.Header()
	h.Set("Docker-Content-Digest", digest)
	h.Set("Etag", `"`+digest+`"`)
	h.Set("Accept-Ranges", "bytes")
	switch {
	case req.Header.Get("If-None-Match") == h.Get("Etag"):
		w.WriteHeader(http.StatusNotModified)
		return
	case !ok:
		h.Set("Content-Range", fmt.Sprintf("bytes */%d", size))
		refuse(w, http.StatusRequestedRangeNotSatisfiable, "UNSUPPORTED")
		return
	}
	h.Set("Content-Type", mediaType)
	h.Set("Content-Length", strconv.FormatInt(to-from, 10))
	if part {
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to-1, size))
		w.WriteHeader(http.StatusPartialContent)
	}
	if req.Method == http.MethodHead {
		return
	}
	// The client that leaves is the only error.
	each(from, to, func(p []byte) error { return o.send(req.Context(), w, p, c.kind) })
}

// send sends at the line's pace and counts.
func (o *Server) send(ctx context.Context, w io.Writer, p []byte, k Kind) error {
	alone := ctx.Value(own{}).(*rate.Limiter)
	limited := o.line.PerConnection > 0 || o.line.Total > 0
	for len(p) > 0 {
		n := len(p)
		if limited {
			n = min(n, step)
			if err := alone.WaitN(ctx, n); err != nil {
				return err
			}
			if err := o.all.WaitN(ctx, n); err != nil {
				return err
			}
		}
		// Counted first: who has all of a body finds all of it counted.
		o.bytes[k].Add(int64(n))
		sent, err := w.Write(p[:n])
		o.bytes[k].Add(int64(sent - n))
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// byteRange reads a Range header of one range. Without one, or with what is none, it is all of the content.
func byteRange(header string, size int64) (from, to int64, part, ok bool) {
	spec, isRange := strings.CutPrefix(header, "bytes=")
	first, last, hasDash := strings.Cut(spec, "-")
	if !isRange || !hasDash || strings.Contains(spec, ",") {
		return 0, size, false, true
	}
	a, errA := strconv.ParseInt(first, 10, 64)
	b, errB := strconv.ParseInt(last, 10, 64)
	switch {
	case first == "" && errB == nil: // the last b bytes
		return max(0, size-b), size, true, b > 0
	case errA == nil && last == "":
		return a, size, true, a < size
	case errA == nil && errB == nil && a <= b:
		return a, min(b+1, size), true, a < size
	}
	return 0, size, false, true
}
