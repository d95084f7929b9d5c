package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/upstream/bandwidth"
)

// maxValidator bounds an entity tag that is taken for a validator. Storage hosts' are a hash of 32 to 128 digits.
const maxValidator = 256

// BlobRequest says what to fetch of a blob, and how.
type BlobRequest struct {
	Repository string
	Digest     digest.Digest
	Offset     int64
	Length     int64 // not positive: all that follow

	// Beside is how many connections bring this blob already. If any does, this one is refused (ErrEnough) rather than
	// strain an endpoint, or have it send again what precedes the offset. An endpoint that says that it has not got the
	// blob leaves this to the next; any other error is the end of it.
	Beside int

	// Waiting tells whether anybody waits for the bytes. It is asked as they come and, while they are held back because nobody
	// does, once a second. Nil: somebody does.
	Waiting func() bool

	// Validator is that of an earlier BlobStream of the same blob, to be told if the endpoint has changed the content since.
	// It is for the endpoint that gave it, and for a request for part of the blob that is beside none; any other ignores it.
	// "": none.
	Validator string
}

// BlobStream is a blob on its way, or part of one.
type BlobStream struct {
	io.ReadCloser
	Size      int64  // of the whole blob; -1 if not stated
	Endpoint  string // who sends it: for Distrust, logs and metrics
	Validator string // for later requests; "" if the endpoint itself gave no strong entity tag
}

// OpenBlob streams a blob from an offset on: as many bytes as are asked for, or all that follow; all that follow as well
// from an upstream that ignores ranges. When upstream does not state the size, then, and only then, does nothing but the
// digest tell a body that was cut off from a whole one.
//
// The errors of OpenBlob, except for ErrEnough, and those of the body, except for io.EOF, are of type *Error. A body that
// ends early wraps io.ErrUnexpectedEOF; one that brings no byte for the stall time-out, ErrStalled. The clock for that
// runs only while a Read waits for the network: neither a slow caller nor a bandwidth limit is upstream's fault. The caller
// closes the body, and may do so while it reads.
func (r *Registry) OpenBlob(ctx context.Context, req BlobRequest) (*BlobStream, error) {
	q := blobName{req.Repository, req.Digest}.question(http.MethodGet)
	q.offset, q.length, q.further = req.Offset, req.Length, req.Beside > 0
	if q.further {
		return r.openFurther(ctx, q, req)
	}
	var stream *BlobStream
	err := r.inTurn(ctx, q, func(e *endpoint, q question) (err error) {
		e.join()
		stream, err = r.openBlob(ctx, e, q, req)
		return err
	})
	if err != nil {
		return nil, err
	}
	return stream, nil
}

// openFurther is OpenBlob for what can be done without: it passes over who has not got the blob, or can't bring part of it.
// Where a bandwidth limit is what is narrow, it asks nobody.
func (r *Registry) openFurther(ctx context.Context, q question, req BlobRequest) (*BlobStream, error) {
	if time.Now().UnixNano() < r.narrow.Load() {
		return nil, fmt.Errorf("%s: %s: %w: the bandwidth limit is reached", r.name, q.op, ErrEnough)
	}
	for _, e := range r.spares(q, req.Beside) {
		if !e.joinSparing(q.offset, r.perEndpoint) {
			continue
		}
		stream, err := r.openBlob(ctx, e.endpoint, q, req)
		failed, ok := errors.AsType[*Error](err)
		if !ok || !failed.Answered() && !errors.Is(failed, errRangeless) {
			return stream, err
		}
	}
	return nil, fmt.Errorf("%s: %s: %w", r.name, q.op, ErrEnough)
}

// openBlob asks one endpoint for a blob. The caller has counted the stream, which is counted until it is closed or failed to
// open. Its errors are of type *Error.
func (r *Registry) openBlob(ctx context.Context, e *endpoint, q question, req BlobRequest) (*BlobStream, error) {
	if tag, ok := strings.CutPrefix(req.Validator, validator(e, "")); ok && q.ranged() && !q.further {
		q.ifRange = tag
	}
	since, caller := time.Now(), ctx
	ctx, cancel := context.WithCancelCause(ctx)
	impatience := time.AfterFunc(smallTimeout, func() { cancel(errSlow) })
	resp, x, err := r.blobAnswer(ctx, e, q)
	if !impatience.Stop() && err == nil { // too late by a hair: ctx has ended
		resp.Body.Close()
		err = errSlow
	}
	if err != nil {
		cancel(nil)
		speed := hopeless
		if caller.Err() != nil || errors.Is(err, errRangeless) || !wasAsked(err) { // the endpoint has not failed
			speed = 0
		}
		e.leave(speed)
		return nil, r.failed(q, err)
	}
	body := &blobBody{extent: x, flow: bandwidth.Flow(req.Digest), registry: r, from: e, asked: q, since: since,
		ctx: ctx, cancel: cancel, network: resp.Body, unread: time.Now()}
	if req.Waiting != nil {
		body.idle = func() bool { return !req.Waiting() }
	}
	body.watchdog = time.AfterFunc(r.stall, func() { cancel(ErrStalled) })
	body.watchdog.Stop()
	stream := &BlobStream{ReadCloser: body, Size: x.size, Endpoint: e.name}
	if tag := entityTag(resp); tag != "" && e.sent(resp) {
		stream.Validator = validator(e, tag)
	}
	return stream, nil
}

// blobAnswer asks for a blob, and returns an answer whose body is what was asked for, and what that holds.
func (r *Registry) blobAnswer(ctx context.Context, e *endpoint, q question) (*http.Response, extent, error) {
	resp, err := r.answer(ctx, e, q, q.blob.repository, "blobs/"+q.blob.digest.String(), nil)
	if err != nil {
		return nil, extent{}, err
	}
	whole := resp.StatusCode == http.StatusOK
	part := resp.StatusCode == http.StatusPartialContent && q.ranged()
	if !whole && !part {
		return nil, extent{}, r.refusal(q, resp, e.origin)
	}
	if part || q.offset > 0 && q.ifRange == "" { // by If-Range the whole is an honest answer too
		e.keepsRanges(part)
	}
	x, err := fitting(resp, q, e)
	if err != nil {
		resp.Body.Close()
		return nil, extent{}, r.unfit(q, resp, "%w", err)
	}
	return resp, x, nil
}

// fitting returns what of a blob is in an answer of status 200 or 206, unless that is not what was asked for.
func fitting(resp *http.Response, q question, e *endpoint) (extent, error) {
	if q.further && q.offset > 0 && resp.StatusCode == http.StatusOK {
		return extent{}, errRangeless
	}
	x, err := extentOf(resp, q.offset, q.length)
	if tag := entityTag(resp); q.ifRange != "" && tag != "" && tag != q.ifRange && e.sent(resp) {
		err = errors.New("the endpoint changed the content") // which may well be why the extent does not fit
	}
	if err == nil {
		err = plainlyCoded(resp)
	}
	if err == nil {
		_, err = mediaType(resp)
	}
	if err == nil {
		_, err = statedDigest(resp, q.blob.digest)
	}
	return x, err
}

// sent reports whether an answer is e's own and not that of a host that it redirected to.
func (e *endpoint) sent(resp *http.Response) bool { return originOf(resp.Request.URL) == e.origin }

// validator binds an entity tag to the endpoint that gave it: to another it would mean nothing, and of the hosts behind a
// redirect, where each may have tags of its own, it is not known beforehand which will answer. No name has a space in it.
func validator(e *endpoint, tag string) string { return e.name + " " + tag }

// entityTag returns the strong entity tag of an answer, or "": a weak one promises nothing about single bytes, and one
// that is not plain could not be sent back.
func entityTag(resp *http.Response) string {
	tag := resp.Header.Get("ETag")
	if len(tag) < 2 || tag[0] != '"' || tag[len(tag)-1] != '"' || len(tag) > maxValidator ||
		strings.ContainsFunc(tag, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return ""
	}
	return tag
}
