package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"go.uber.org/zap"
)

// blob answers GET and HEAD of a blob.
func (p *Proxy) blob(w http.ResponseWriter, r *http.Request, c *call) error {
	d := c.target.ref.Digest
	c.asked = true
	if r.Method == http.MethodHead {
		size, v, err := p.cache.StatBlob(r.Context(), c.target.repo, d)
		if err != nil {
			return err
		}
		c.answered(v)
		return serve(w, r, c, d, "application/octet-stream", size, sized(size))
	}
	ctx, leave := r.Context(), func() {}
	if strings.Contains(r.Header.Get("Range"), ",") { // of several ranges somebody may read on after this has ended, see lent
		ctx, leave = context.WithCancel(ctx)
		defer leave()
	}
	b, err := p.cache.Blob(ctx, c.target.repo, d, partOf(r))
	if err != nil {
		return err
	}
	content, free := b.Content, b.Close
	switch content.(type) {
	case *os.File, *bytes.Reader: // go as they are: a file by sendfile, and reads of it after Close fail by themselves
	default:
		w = streaming{w}
		l := &lent{leave: leave, content: b.Content, free: b.Close}
		content, free = l, l.Close
	}
	defer func() {
		if err := free(); err != nil {
			p.log.Warn("close blob", zap.Stringer("digest", d), zap.Error(err))
		}
	}()
	c.answered(b.Verdict)
	p.meter(c, b.Size)
	return serve(w, r, c, d, "application/octet-stream", b.Size, content)
}

// lent is content for one goroutine, in the hands of http.ServeContent: that reads several ranges in a goroutine of its
// own, which goes on for a moment after ServeContent has returned because the client left.
//
// Whichever of a Read and Close takes the mutex first has it to itself: a Read after Close fails without touching the
// content, and a Read that Close finds under way is not waiting for bytes for long, for Close ends its context first.
type lent struct {
	leave func() // ends the context that content waits with, if there can be a goroutine
	free  func() error

	mu sync.Mutex
	// guards following
	content io.ReadSeeker // nil once closed
}

func (l *lent) Read(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.content == nil {
		return 0, os.ErrClosed
	}
	return l.content.Read(p)
}

func (l *lent) Seek(offset int64, whence int) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.content == nil {
		return 0, os.ErrClosed
	}
	return l.content.Seek(offset, whence)
}

// Close frees the content when nobody reads it any more.
func (l *lent) Close() error {
	l.leave()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.content = nil
	return l.free()
}

// send has the content write what comes next to w, at most so many bytes.
func (l *lent) send(w io.Writer, most int64) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch content := l.content.(type) {
	case nil:
		return 0, os.ErrClosed
	case interface {
		Send(io.Writer, int64) (int64, error)
	}:
		return content.Send(w, most)
	default:
		return io.CopyN(w, content, most)
	}
}

// streaming sends on at once what is written to it, the header first: content that is still landing may pause at any byte,
// and what is here should not wait in a buffer meanwhile.
type streaming struct{ http.ResponseWriter }

func (w streaming) WriteHeader(status int) {
	w.ResponseWriter.WriteHeader(status)
	_ = w.flush() // the first Write will tell
}

func (w streaming) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	if err == nil {
		err = w.flush()
	}
	return n, err
}

func (w streaming) flush() error { return http.NewResponseController(w.ResponseWriter).Flush() }

// firstPiece is how much of content that is landing a client gets before all others who wait for it have got as much: what
// has landed by then may take a socket a millisecond to take, and a crowd of clients a hundred of these.
const firstPiece = 64 << 10

// ReadFrom is how http.ServeContent sends a range of content: what has landed of it goes from its file to the socket.
func (w streaming) ReadFrom(src io.Reader) (n int64, err error) {
	part, ok := src.(*io.LimitedReader)
	if !ok {
		return io.Copy(struct{ io.Writer }{w}, src)
	}
	content, ok := part.R.(*lent)
	if !ok {
		return io.Copy(struct{ io.Writer }{w}, src)
	}
	for most := int64(firstPiece); part.N > 0 && err == nil; most = part.N {
		var sent int64
		sent, err = content.send(socket{w}, min(most, part.N))
		part.N -= sent
		if n += sent; n == sent {
			runtime.Gosched()
		}
	}
	if err == io.EOF {
		err = nil
	}
	return n, err
}

// socket is a streaming writer that takes files as the connection below it does.
type socket struct{ streaming }

func (s socket) ReadFrom(src io.Reader) (int64, error) { return io.Copy(s.ResponseWriter, src) }

// serve answers with content that a digest stands for: ranges, conditions and HEAD are http.ServeContent's work, whether
// the content is a file or still on its way. A body that stops short cuts the connection, so that nobody takes it for whole.
func serve(w http.ResponseWriter, r *http.Request, c *call, d digest.Digest, mediaType string, size int64, content io.ReadSeeker) error {
	h := w.Header()
	etag := `"` + d.String() + `"`
	if err := normalizeConditions(r, etag); err != nil {
		return err
	}
	if err := normalizeRange(r, etag, size); err != nil {
		h.Set("Content-Range", "bytes */"+strconv.FormatInt(size, 10))
		return err
	}
	c.set("Docker-Content-Digest", d.String())
	c.set("Content-Type", mediaType)
	c.set("Etag", etag)
	if c.target.kind == kindBlob { // a manifest is never resumed, and one JSON object: nothing that a browser could take for more
		c.set("Accept-Ranges", "bytes")
		c.set("X-Content-Type-Options", "nosniff")
	}
	small, inMemory := content.(*bytes.Reader)
	switch head := r.Method == http.MethodHead; {
	case !plain(r) || !head && !inMemory:
		http.ServeContent(w, r, "", time.Time{}, content)
	case head:
		c.set("Content-Length", strconv.FormatInt(size, 10))
		w.WriteHeader(http.StatusOK)
	default:
		c.set("Content-Length", strconv.FormatInt(size, 10))
		c.send(small, size)
	}
	if want, err := strconv.ParseInt(h.Get("Content-Length"), 10, 64); r.Method == http.MethodGet && err == nil && c.written < want {
		c.err = errCutShort
		panic(http.ErrAbortHandler)
	}
	return nil
}

// plain reports whether a request is for all of the content, unconditionally. Conditions and ranges that change nothing are
// gone from its header by now, and conditions on a date change nothing, for there is none.
func plain(r *http.Request) bool {
	return r.Header["Range"] == nil && r.Header["If-None-Match"] == nil
}

// errCutShort says in the log that the client left, or that the content could not be had to its end; the fill says why.
var errCutShort = errors.New("the body was not sent to its end")

// sized is content of which only the size is known: what a HEAD needs.
type sized int64

func (sized) Read([]byte) (int, error) { return 0, errors.New("content of a HEAD was read") }

func (s sized) Seek(offset int64, whence int) (int64, error) {
	if whence == io.SeekEnd {
		return int64(s) + offset, nil
	}
	return offset, nil
}
