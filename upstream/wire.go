package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	"go.uber.org/zap"
)

// Kinds of requests and their outcomes, as the observer hears of them.
const (
	kindManifest = "manifest"
	kindBlob     = "blob"
	kindToken    = "token"
	kindList     = "list"
	kindProbe    = "probe"

	outcomeOK        = "ok"
	outcomeRefused   = "refused"
	outcomeThrottled = "throttled"
	outcomeFailed    = "failed"
)

const (
	// maxHops is how many redirects are followed: two have been seen (registry, regional registry, storage).
	maxHops = 5

	// drained is how much of a body that nobody wants is read to keep its connection. More costs more than a new one.
	drained = 4 << 10

	// countedAtOnce is how many body bytes the observer is told of at a time, so that counting costs nothing per Read.
	countedAtOnce = 64 << 10
)

// question is what is asked of upstream, before it is known how many requests that takes.
type question struct {
	kind   string
	op     string // for errors
	method string
	accept []string
	offset int64 // of a blob
	length int64 // of a blob, from offset on; 0 or less: up to the end

	byDigest  bool     // the same wherever it is found
	realm     *url.URL // the token server's URL that a token is asked for at; nil: none is
	blob      blobName // the blob that is asked for; zero: none is
	further   bool     // for a blob that others bring already
	elsewhere bool     // of a probe's: where a redirect led to there was nobody
	ifRange   string   // the entity tag that a part of a blob must be of; "": any

	// form is what is posted. It holds secrets, and so goes nowhere but where it is sent first.
	form url.Values

	as    identity  // whom it is asked as
	first bool      // the first endpoint alone is asked
	until time.Time // to when a rate limit is waited for; zero: it is not
}

// blobName names a blob.
type blobName struct {
	repository string
	digest     digest.Digest
}

func (b blobName) question(method string) question {
	return question{kind: kindBlob, method: method, byDigest: true, blob: b,
		op: method + " blob " + b.repository + "@" + b.digest.String()}
}

// traffic is what q is part of.
func (q question) traffic() traffic {
	switch {
	case q.realm != nil:
		return realms
	case q.blob == (blobName{}):
		return small
	}
	return blobs
}

// byGet is q, asked by GET.
func (q question) byGet() question {
	q.method, q.op = http.MethodGet, "GET"+strings.TrimPrefix(q.op, q.method)
	return q
}

// ranged reports whether only part of a blob is asked for.
func (q question) ranged() bool { return q.offset > 0 || q.length > 0 }

// origin is what two URLs share if they are the same server to the eyes of a browser: scheme, host and port.
type origin string

func originOf(u *url.URL) origin {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return origin(u.Scheme + "://" + strings.ToLower(net.JoinHostPort(u.Hostname(), port)))
}

// follow asks q, on behalf of an endpoint, at start and wherever it is redirected to. The caller vouches that the origin of
// start may have the authorization. Once a redirect has left that origin the authorization is gone for good, and so is
// what an endpoint's own origin is shown or allowed in TLS: who leads away and back again chooses the path that it
// comes back to.
func (r *Registry) follow(ctx context.Context, e *endpoint, q question, start *url.URL, authorization string) (*http.Response, error) {
	at, way := start, e.way(start, q.as)
	for hops := 0; ; hops++ {
		if originOf(at) != originOf(start) {
			authorization, way = "", away
		}
		resp, err := r.send(ctx, q, e.roads.to(q.traffic(), way), at, originOf(start), authorization)
		if err != nil && originOf(at) != originOf(start) {
			return nil, abroad{err}
		}
		if err != nil {
			return nil, err
		}
		if !isRedirect(resp) {
			return resp, nil
		}
		discard(resp)
		if q.form != nil {
			return nil, misled{errors.New("redirect of what is posted")}
		}
		if hops == maxHops {
			return nil, misled{fmt.Errorf("more than %d redirects", maxHops)}
		}
		if at, err = redirected(at, resp.Header.Get("Location")); err != nil {
			return nil, misled{err}
		}
	}
}

// misled is the error of redirects that lead nowhere: an answer, if a useless one.
type misled struct{ error }

// abroad is the error of a host that a redirect led to, and not of the one that was asked.
type abroad struct{ error }

func (a abroad) Unwrap() error { return a.error }

func isRedirect(resp *http.Response) bool {
	switch resp.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return resp.Header.Get("Location") != ""
	}
	return false
}

// redirected returns where a redirect from one URL leads. Its errors don't quote the location, which may be a signed URL.
func redirected(from *url.URL, location string) (*url.URL, error) {
	to, err := from.Parse(location)
	switch {
	case err != nil:
		return nil, errors.New("redirect to what is no URL")
	case to.Scheme != "http" && to.Scheme != "https", to.Hostname() == "":
		return nil, errors.New("redirect to what is no http or https URL")
	case from.Scheme == "https" && to.Scheme == "http":
		return nil, fmt.Errorf("redirect from https to http at %s", printable(to.Host, maxMessage))
	}
	to.User, to.Fragment, to.RawFragment = nil, "", ""
	return to, nil
}

// send puts one request on a road, home being the origin that q was asked of at first. It alone writes an Authorization
// header.
func (r *Registry) send(ctx context.Context, q question, by road, to *url.URL, home origin, authorization string) (*http.Response, error) {
	if r.offline.Load() {
		return nil, ErrOffline
	}
	header := http.Header{
		"User-Agent": {r.userAgent},
		// What is asked for by size and digest must come as it is: some storage hosts compress unless told not to.
		"Accept-Encoding": {"identity"},
	}
	if len(q.accept) > 0 {
		header.Set("Accept", strings.Join(q.accept, ", ")) // one line: some registries read no other
	}
	if q.ranged() {
		span := "bytes=" + strconv.FormatInt(q.offset, 10) + "-"
		if q.length > 0 {
			span += strconv.FormatInt(q.offset+q.length-1, 10)
		}
		header.Set("Range", span)
	}
	if q.ifRange != "" && originOf(to) == home {
		header.Set("If-Range", q.ifRange)
	}
	if authorization != "" {
		header.Set("Authorization", authorization)
	}
	start := time.Now()
	req := (&http.Request{Method: q.method, URL: to, Header: header}).WithContext(ctx)
	if q.form != nil {
		text := q.form.Encode()
		header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Body, req.ContentLength = io.NopCloser(strings.NewReader(text)), int64(len(text))
		// A connection that turns out to be closed already is no reason to fail.
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil }
	}
	resp, err := by.RoundTrip(req)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	r.record(q, to, home, resp, err, time.Since(start))
	if err != nil {
		return nil, bare(err)
	}
	resp.Body = &countedBody{ReadCloser: resp.Body, tell: func(n int64) { r.received(q, n) }}
	return resp, nil
}

// received tells of body bytes that have come, and has the lines pay for those that pass without waiting.
func (r *Registry) received(q question, n int64) {
	if r.observer != nil {
		r.observer.UpstreamBytes(r.name, q.kind, n)
	}
	if q.traffic() == small {
		r.lines.Spend(int(n))
	}
}

// record tells the log and the observer of a request. Away from home the path may be a signature.
func (r *Registry) record(q question, to *url.URL, home origin, resp *http.Response, err error, took time.Duration) {
	status := 0
	if resp != nil {
		status = resp.StatusCode
	}
	if r.observer != nil {
		r.observer.UpstreamRequest(r.name, q.kind, outcome(status), took)
	}
	if entry := r.log.Check(zap.DebugLevel, "upstream request"); entry != nil {
		fields := []zap.Field{zap.String("registry", r.name), zap.String("method", q.method), zap.String("host", to.Host),
			zap.Int("status", status), zap.Duration("took", took)}
		if originOf(to) == home {
			fields = append(fields, zap.String("path", to.Path))
		}
		if err != nil {
			fields = append(fields, zap.String("error", printable(bare(err).Error(), maxCause)))
		}
		entry.Write(fields...)
	}
}

func outcome(status int) string {
	switch {
	case status == http.StatusTooManyRequests:
		return outcomeThrottled
	case status >= 200 && status < 400:
		return outcomeOK
	case status >= 400 && status < 500 && status != http.StatusRequestTimeout && status != http.StatusTooEarly:
		return outcomeRefused
	}
	return outcomeFailed
}

// discard gives a body up, keeping the connection if little is left of it.
func discard(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, drained) // a body that fails is given up all the same
	resp.Body.Close()
}

// countedBody tells of the bytes that are read through it. Close may come while a Read is waiting.
type countedBody struct {
	io.ReadCloser
	tell    func(int64)
	pending atomic.Int64
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.pending.Add(int64(n)) >= countedAtOnce || err != nil {
		b.flush()
	}
	return n, err
}

func (b *countedBody) Close() error {
	b.flush()
	return b.ReadCloser.Close()
}

func (b *countedBody) flush() {
	if n := b.pending.Swap(0); n > 0 {
		b.tell(n)
	}
}
