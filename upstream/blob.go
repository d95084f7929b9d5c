package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
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
	// strain an endpoint, and asks no second one when the first it finds has an error.
	Beside int

	// Waiting tells whether anybody waits for the bytes. It is asked for every 32 KiB and, while they are held back because
	// nobody does, once a second. Nil: somebody does.
	Waiting func() bool

	// Validator is that of an earlier BlobStream of the same blob, to be told if the endpoint has changed the content since.
	// It is for the endpoint that gave it, and for a request for part of the blob; any other ignores it. "": none.
	Validator string
}

// BlobStream is a blob on its way, or part of one.
type BlobStream struct {
	io.ReadCloser
	Size      int64  // of the whole blob; -1 if not stated
	Endpoint  string // who sends it: for Distrust, logs and metrics
	Validator string // for later requests; "" if the endpoint gave no strong entity tag
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
	q := question{kind: kindBlob, method: http.MethodGet, byDigest: true, offset: req.Offset, length: req.Length,
		op: "GET blob " + req.Repository + "@" + req.Digest.String()}
	if req.Beside > 0 {
		e := r.extra(q, req.Beside)
		if e == nil {
			return nil, fmt.Errorf("%s: %s: %w", r.name, q.op, ErrEnough)
		}
		return r.openBlob(ctx, e, q, req)
	}
	var stream *BlobStream
	err := r.inTurn(ctx, q, func(e *endpoint) (err error) {
		e.join()
		stream, err = r.openBlob(ctx, e, q, req)
		return err
	})
	if err != nil {
		return nil, err
	}
	return stream, nil
}

// openBlob asks one endpoint for a blob. The caller has counted the stream, which is counted until it is closed or failed to
// open. Its errors are of type *Error.
func (r *Registry) openBlob(ctx context.Context, e *endpoint, q question, req BlobRequest) (*BlobStream, error) {
	if tag, ok := strings.CutPrefix(req.Validator, validator(e, "")); ok && q.ranged() {
		q.ifRange = tag
	}
	ctx, cancel := context.WithCancelCause(ctx)
	impatience := time.AfterFunc(smallTimeout, func() { cancel(errSlow) })
	resp, x, err := r.blobAnswer(ctx, e, q, req.Repository, req.Digest)
	if !impatience.Stop() && err == nil { // too late by a hair: ctx has ended
		resp.Body.Close()
		err = errSlow
	}
	if err != nil {
		cancel(nil)
		e.leave(0, 0)
		return nil, r.failed(q, err)
	}
	body := &blobBody{
		extent:  x,
		network: resp.Body,
		from:    e,
		stall:   r.stall,
		cancel:  cancel,
		fail: func(err error) error {
			err = causeOf(ctx, err)
			r.broke(ctx, e, err)
			return r.failed(q, err)
		},
	}
	body.watchdog = time.AfterFunc(r.stall, func() { cancel(ErrStalled) })
	body.watchdog.Stop()
	body.paced = readerFunc(body.watchedRead)
	if req.Waiting != nil {
		body.paced = r.background.ReaderWhile(ctx, body.paced, func() bool { return !req.Waiting() })
	}
	body.paced = r.limiter.Reader(ctx, body.paced)
	stream := &BlobStream{ReadCloser: body, Size: x.size, Endpoint: e.name}
	if tag := entityTag(resp); tag != "" {
		stream.Validator = validator(e, tag)
	}
	return stream, nil
}

// blobAnswer asks for a blob, and returns an answer whose body is what was asked for, and what that holds.
func (r *Registry) blobAnswer(ctx context.Context, e *endpoint, q question, repository string, d digest.Digest) (*http.Response, extent, error) {
	resp, err := r.answer(ctx, e, q, repository, "blobs/"+d.String(), nil)
	if err != nil {
		return nil, extent{}, err
	}
	whole := resp.StatusCode == http.StatusOK
	part := resp.StatusCode == http.StatusPartialContent && q.ranged()
	if !whole && !part {
		return nil, extent{}, r.refusal(q, resp, e.origin)
	}
	x, err := extentOf(resp, q.offset, q.length)
	if tag := entityTag(resp); q.ifRange != "" && tag != "" && tag != q.ifRange {
		err = errors.New("the endpoint changed the content") // which may well be why the extent does not fit
	}
	if err == nil {
		err = plainlyCoded(resp)
	}
	if err == nil {
		_, err = mediaType(resp)
	}
	if err == nil {
		_, err = statedDigest(resp, d)
	}
	if err != nil {
		resp.Body.Close()
		return nil, extent{}, r.unfit(q, resp, "%w", err)
	}
	return resp, x, nil
}

// validator binds an entity tag to the endpoint that gave it: to another it would mean anything. No name has a space in it.
func validator(e *endpoint, tag string) string { return e.name + " " + tag }

// entityTag returns the strong entity tag of an answer, or "": a weak one promises nothing about single bytes.
func entityTag(resp *http.Response) string {
	tag := resp.Header.Get("ETag")
	if len(tag) < 2 || tag[0] != '"' || tag[len(tag)-1] != '"' || len(tag) > maxValidator {
		return ""
	}
	return tag
}

// blobBody is the body of a blob: the network under a watchdog, at the limiter's pace, within its extent.
type blobBody struct {
	extent
	paced io.Reader
	fail  func(error) error
	err   error // of all reads from now on

	network  io.ReadCloser
	from     *endpoint
	stall    time.Duration
	watchdog *time.Timer
	cancel   context.CancelCauseFunc

	brought, waited atomic.Int64 // bytes of the network, and nanoseconds that it took; Close may come while a Read is waiting
	once            sync.Once
}

func (b *blobBody) Read(p []byte) (int, error) {
	for b.skip > 0 && len(p) > 0 {
		n, err := b.next(p[:min(int64(len(p)), b.skip)])
		b.skip -= int64(n)
		if err != nil {
			return 0, err
		}
	}
	return b.next(p)
}

// next reads what the network has next, and sees to it that the end comes where it was stated to be.
func (b *blobBody) next(p []byte) (int, error) {
	if b.err == nil && b.left == 0 {
		b.err = io.EOF
	}
	if b.err != nil || len(p) == 0 {
		return 0, b.err
	}
	if b.left > 0 {
		p = p[:min(int64(len(p)), b.left)]
	}
	n, err := b.paced.Read(p)
	if b.left > 0 {
		b.left -= int64(n)
	}
	switch {
	case err == io.EOF && b.left > 0:
		b.err = b.fail(io.ErrUnexpectedEOF)
	case err == io.EOF:
		b.err = io.EOF
	case err != nil:
		b.err = b.fail(err)
	}
	return n, b.err
}

// watchedRead lets the watchdog run for as long as the network keeps it waiting, and no longer.
func (b *blobBody) watchedRead(p []byte) (int, error) {
	b.watchdog.Reset(b.stall)
	defer b.watchdog.Stop()
	start := time.Now()
	n, err := b.network.Read(p)
	b.brought.Add(int64(n))
	b.waited.Add(int64(time.Since(start)))
	return n, err
}

// Close ends the request. A Read that is waiting returns.
func (b *blobBody) Close() error {
	b.cancel(nil)
	b.once.Do(func() { b.from.leave(b.brought.Load(), time.Duration(b.waited.Load())) })
	return b.network.Close()
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
