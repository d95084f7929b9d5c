package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// OpenBlob streams a blob from offset on: length bytes of it, or all that follow if length is not positive; all that follow
// as well from an upstream that ignores ranges. Size is that of the whole blob, or -1 when upstream does not state it;
// then, and only then, does nothing but the digest tell a body that was cut off from a whole one.
//
// The body's errors are of type *Error, but for io.EOF. One that ends early wraps io.ErrUnexpectedEOF; one that brings no
// byte for the stall time-out, ErrStalled. The clock for that runs only while a Read waits for the network: neither a
// slow caller nor the bandwidth limit is upstream's fault. The caller closes the body, and may do so while it reads.
func (r *Registry) OpenBlob(ctx context.Context, repository string, d digest.Digest, offset, length int64) (io.ReadCloser, int64, error) {
	q := question{kind: kindBlob, method: http.MethodGet, offset: offset, length: length,
		op: "GET blob " + repository + "@" + d.String()}
	var body *blobBody
	err := r.inTurn(ctx, q, r.endpoints, func(e *endpoint) (err error) {
		body, err = r.openBlob(ctx, e, q, repository, d)
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	return body, body.size, nil
}

func (r *Registry) openBlob(ctx context.Context, e *endpoint, q question, repository string, d digest.Digest) (*blobBody, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	impatience := time.AfterFunc(smallTimeout, func() { cancel(errSlow) })
	resp, x, err := r.blobAnswer(ctx, e, q, repository, d)
	if err != nil {
		impatience.Stop()
		err = r.failed(q, err)
		cancel(nil)
		return nil, err
	}
	if !impatience.Stop() { // too late by a hair: ctx has ended
		resp.Body.Close()
		return nil, r.failed(q, errSlow)
	}
	body := &blobBody{
		extent:  x,
		network: resp.Body,
		stall:   r.stall,
		cancel:  cancel,
		fail:    func(err error) error { return r.failed(q, causeOf(ctx, err)) },
	}
	body.watchdog = time.AfterFunc(r.stall, func() { cancel(ErrStalled) })
	body.watchdog.Stop()
	body.paced = r.limiter.Reader(ctx, readerFunc(body.watchedRead))
	return body, nil
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

// extent is what a body holds of a blob.
type extent struct {
	size int64 // of the whole blob; -1: not stated
	skip int64 // bytes that come before the offset that was asked for
	left int64 // bytes that are to come, these included; -1: not stated
}

// extentOf reads an answer of status 200, which may ignore that an offset was asked for, or 206, which may not.
func extentOf(resp *http.Response, offset, length int64) (extent, error) {
	if resp.StatusCode == http.StatusOK {
		if resp.ContentLength >= 0 && resp.ContentLength < offset {
			return extent{}, fmt.Errorf("blob of %d bytes has none at %d", resp.ContentLength, offset)
		}
		return extent{size: resp.ContentLength, skip: offset, left: resp.ContentLength}, nil
	}
	header := resp.Header.Get("Content-Range")
	first, last, size, ok := parseContentRange(header)
	switch {
	case !ok:
		return extent{}, fmt.Errorf("part of a blob without a readable range: %q", printable(header, maxCode))
	case first != offset:
		return extent{}, fmt.Errorf("part of a blob from %d on, not from %d", first, offset)
	case resp.ContentLength >= 0 && resp.ContentLength != last-first+1:
		return extent{}, fmt.Errorf("part of a blob with %d bytes for the range %q", resp.ContentLength, header)
	}
	// As much as was asked for, though the part may be shorter: then it ends early, and the caller asks for what is missing.
	left := size - first
	if size < 0 {
		left = last - first + 1
	}
	if length > 0 {
		left = min(left, length)
	}
	return extent{size: size, left: left}, nil
}

// parseContentRange reads "bytes first-last/size". Size is -1 where the header says that it is not known.
func parseContentRange(header string) (first, last, size int64, ok bool) {
	unit, rest, _ := strings.Cut(strings.TrimSpace(header), " ")
	span, total, _ := strings.Cut(rest, "/")
	from, to, _ := strings.Cut(span, "-")
	first, errFirst := parseSize(from)
	last, errLast := parseSize(to)
	size, errSize := int64(-1), error(nil)
	if total != "*" {
		size, errSize = parseSize(total)
	}
	ok = strings.EqualFold(unit, "bytes") && errors.Join(errFirst, errLast, errSize) == nil &&
		first <= last && (size < 0 || last < size)
	return first, last, size, ok
}

// parseSize reads digits and nothing but digits.
func parseSize(s string) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 63)
	return int64(n), err
}

// blobBody is the body of a blob: the network under a watchdog, at the limiter's pace, within its extent.
type blobBody struct {
	extent
	paced io.Reader
	fail  func(error) error
	err   error // of all reads from now on

	network  io.ReadCloser
	stall    time.Duration
	watchdog *time.Timer
	cancel   context.CancelCauseFunc
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
	return b.network.Read(p)
}

// Close ends the request. A Read that is waiting returns.
func (b *blobBody) Close() error {
	b.cancel(nil)
	return b.network.Close()
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
