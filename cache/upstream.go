package cache

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/upstream"
)

// Upstream is what the cache needs of a registry. An error that is the registry's definite answer (no such thing, not
// allowed) has a method Answered() bool that returns true; any other means that upstream failed.
type Upstream interface {
	// Resolve asks by HEAD what a tag or digest names. MediaType, Digest and Size are empty or negative if not stated.
	Resolve(ctx context.Context, repository, reference string, accept []string) (ocispec.Descriptor, error)
	// Manifest fetches a manifest of bounded size. MediaType, and Digest where stated, are what upstream says: unchecked.
	Manifest(ctx context.Context, repository, reference string, accept []string) (ocispec.Descriptor, []byte, error)
	// StatBlob asks by HEAD how large a blob is.
	StatBlob(ctx context.Context, repository string, d digest.Digest) (int64, error)
	// OpenBlob streams a blob, or at least the part that is asked for. The error of a request that had the registry refuse
	// because it is asked too much has a method Throttled() bool that returns true.
	OpenBlob(ctx context.Context, req upstream.BlobRequest) (*upstream.BlobStream, error)
	// Distrust tells that what an endpoint sent of a blob is not what its digest stands for.
	Distrust(endpoint string)
	// List fetches a listing of bounded size: its headers Content-Type and Link, and its body.
	List(ctx context.Context, repository, resource string, query url.Values) (http.Header, []byte, error)
}

// isAnswer reports whether the error is upstream's definite answer.
func isAnswer(err error) bool {
	var a interface{ Answered() bool }
	return errors.As(err, &a) && a.Answered()
}

// isOutage reports whether the error speaks of the registry and not of what was asked for: no answer at all, or one that
// says that it can't serve. Upstream's errors say so by a method Outage() bool.
func isOutage(err error) bool {
	var o interface{ Outage() bool }
	return errors.As(err, &o) && o.Outage()
}

// isThrottled reports whether the error says that the registry is asked too much.
func isThrottled(err error) bool {
	var t interface{ Throttled() bool }
	return errors.As(err, &t) && t.Throttled()
}

// isSilence reports whether the error says that there was no answer, or no whole one: asking in another way is a second
// time-out for who waits.
func isSilence(err error) bool {
	e, ok := errors.AsType[*upstream.Error](err)
	return ok && e.Status == 0
}

const (
	// probeAfter is how long a registry that failed is left alone before somebody's request asks it again, behind that
	// request's back: until it answers, stale answers are given without waiting for it.
	probeAfter = 2 * time.Second

	// justNow is for how long a registry's answer is taken for proof that it is there.
	justNow = 2 * time.Second
)

// remote is a registry's upstream, and how it did lately.
type remote struct {
	Upstream
	now func() time.Time

	mu sync.Mutex
	// guards following
	answered time.Time // when it last answered
	failed   time.Time // when it last failed; zero since it last answered
}

// note takes down how a request for a manifest or a tag ended, and returns err. A failure of a request that began before the
// registry last answered is old news.
func (r *remote) note(began time.Time, err error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err == nil, isAnswer(err):
		r.answered, r.failed = r.now(), time.Time{}
	case isOutage(err) && !errors.Is(err, context.Canceled) && !began.Before(r.answered):
		r.failed = r.now()
	}
	return err
}

// noteAnswer takes down that the registry answered, if it did. That a blob or a listing can't be had says nothing of the
// registry: blobs lie elsewhere as often as not, and listings may be too long.
func (r *remote) noteAnswer(err error) {
	if err == nil || isAnswer(err) {
		_ = r.note(time.Time{}, err)
	}
}

// down reports whether the registry failed when it was last asked, and whether it is time to ask it again.
func (r *remote) down() (down, probe bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed.IsZero() {
		return false, true
	}
	return true, r.now().Sub(r.failed) >= probeAfter
}

// failedWithin reports whether the registry failed when it was last asked, and not longer ago.
func (r *remote) failedWithin(d time.Duration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.failed.IsZero() && r.now().Sub(r.failed) < d
}

// answeredJustNow reports whether the registry is there for all that is known.
func (r *remote) answeredJustNow() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed.IsZero() && r.now().Sub(r.answered) < justNow
}

func (r *remote) Resolve(ctx context.Context, repository, reference string, accept []string) (ocispec.Descriptor, error) {
	began := r.now()
	desc, err := r.Upstream.Resolve(ctx, repository, reference, accept)
	return desc, r.note(began, err)
}

func (r *remote) Manifest(ctx context.Context, repository, reference string, accept []string) (ocispec.Descriptor, []byte, error) {
	began := r.now()
	desc, body, err := r.Upstream.Manifest(ctx, repository, reference, accept)
	return desc, body, r.note(began, err)
}

func (r *remote) StatBlob(ctx context.Context, repository string, d digest.Digest) (int64, error) {
	size, err := r.Upstream.StatBlob(ctx, repository, d)
	r.noteAnswer(err)
	return size, err
}

func (r *remote) OpenBlob(ctx context.Context, req upstream.BlobRequest) (*upstream.BlobStream, error) {
	blob, err := r.Upstream.OpenBlob(ctx, req)
	r.noteAnswer(err)
	return blob, err
}

func (r *remote) List(ctx context.Context, repository, resource string, query url.Values) (http.Header, []byte, error) {
	header, body, err := r.Upstream.List(ctx, repository, resource, query)
	r.noteAnswer(err)
	return header, body, err
}
