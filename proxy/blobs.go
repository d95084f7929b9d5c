package proxy

import (
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"
	"go.uber.org/zap"
)

// blob answers GET and HEAD of a blob.
func (p *Proxy) blob(w http.ResponseWriter, r *http.Request, c *call) error {
	d, err := parseDigest(c.target.reference)
	if err != nil {
		return err
	}
	c.asked = true
	if r.Method == http.MethodHead {
		size, v, err := p.cache.StatBlob(r.Context(), c.target.repo, d)
		if err != nil {
			return err
		}
		c.answered(w, v)
		return serve(w, r, d, "application/octet-stream", size, sized(size))
	}
	b, err := p.cache.Blob(r.Context(), c.target.repo, d, partOf(r))
	if err != nil {
		return err
	}
	defer func() {
		if err := b.Close(); err != nil {
			p.log.Warn("close blob", zap.Stringer("digest", d), zap.Error(err))
		}
	}()
	c.answered(w, b.Verdict)
	if _, file := b.Content.(*os.File); !file {
		w = flushing{w}
	}
	return serve(w, r, d, "application/octet-stream", b.Size, b.Content)
}

// flushing sends on at once what is written to it, the header first: content that is still landing may pause at any byte,
// and what is here should not wait in a buffer meanwhile. It has no ReadFrom, so that each write is seen.
type flushing struct{ http.ResponseWriter }

func (w flushing) WriteHeader(status int) {
	w.ResponseWriter.WriteHeader(status)
	_ = w.flush() // the first Write will tell
}

func (w flushing) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	if err == nil {
		err = w.flush()
	}
	return n, err
}

func (w flushing) flush() error { return http.NewResponseController(w.ResponseWriter).Flush() }

// serve answers with content that a digest stands for: ranges, conditions and HEAD are http.ServeContent's work, whether
// the content is a file or still on its way. A body that stops short cuts the connection, so that nobody takes it for whole.
func serve(w http.ResponseWriter, r *http.Request, d digest.Digest, mediaType string, size int64, content io.ReadSeeker) error {
	h := w.Header()
	etag := `"` + d.String() + `"`
	h.Set("Docker-Content-Digest", d.String())
	h.Set("Content-Type", mediaType)
	h.Set("ETag", etag)
	h.Set("X-Content-Type-Options", "nosniff")
	if err := normalizeRange(r, etag, size); err != nil {
		h.Del("ETag")
		h.Set("Content-Range", "bytes */"+strconv.FormatInt(size, 10))
		return err
	}
	http.ServeContent(w, r, "", time.Time{}, content)
	c := callOf(r)
	if want, err := strconv.ParseInt(h.Get("Content-Length"), 10, 64); r.Method == http.MethodGet && err == nil && c.written < want {
		c.err = errCutShort
		panic(http.ErrAbortHandler)
	}
	return nil
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
