package cache

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
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
	// OpenBlob streams a blob from offset: length bytes at least, or all that follow if length is -1. size is that of the
	// whole blob, or -1.
	OpenBlob(ctx context.Context, repository string, d digest.Digest, offset, length int64) (body io.ReadCloser, size int64, err error)
	// List fetches a listing of bounded size: its headers Content-Type and Link, and its body.
	List(ctx context.Context, repository, resource string, query url.Values) (http.Header, []byte, error)
}

// isAnswer reports whether the error is upstream's definite answer.
func isAnswer(err error) bool {
	var a interface{ Answered() bool }
	return errors.As(err, &a) && a.Answered()
}

const (
	// downFor is how long a registry that failed counts as down: stale answers are then given without waiting for it.
	downFor = 10 * time.Second
	// probeAfter is how long it is left alone meanwhile before somebody's request asks it again, behind that request's back.
	probeAfter = 2 * time.Second
)

// remote is a registry's upstream, and how it did lately.
type remote struct {
	Upstream
	now func() time.Time

	mu sync.Mutex
	// guards following
	failed time.Time // when it last failed; zero since it last answered
}

// note takes down how a request of the registry ended, and returns err.
func (r *remote) note(err error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err == nil, isAnswer(err):
		r.failed = time.Time{}
	case errors.Is(err, context.Canceled): // says nothing about the registry
	default:
		r.failed = r.now()
	}
	return err
}

// down reports whether the registry failed just now, and whether it is time to ask it again.
func (r *remote) down() (down, probe bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed.IsZero() {
		return false, true
	}
	ago := r.now().Sub(r.failed)
	return ago < downFor, ago >= probeAfter
}

func (r *remote) Resolve(ctx context.Context, repository, reference string, accept []string) (ocispec.Descriptor, error) {
	desc, err := r.Upstream.Resolve(ctx, repository, reference, accept)
	return desc, r.note(err)
}

func (r *remote) Manifest(ctx context.Context, repository, reference string, accept []string) (ocispec.Descriptor, []byte, error) {
	desc, body, err := r.Upstream.Manifest(ctx, repository, reference, accept)
	return desc, body, r.note(err)
}

func (r *remote) StatBlob(ctx context.Context, repository string, d digest.Digest) (int64, error) {
	size, err := r.Upstream.StatBlob(ctx, repository, d)
	return size, r.note(err)
}

func (r *remote) OpenBlob(ctx context.Context, repository string, d digest.Digest, offset, length int64) (io.ReadCloser, int64, error) {
	body, size, err := r.Upstream.OpenBlob(ctx, repository, d, offset, length)
	return body, size, r.note(err)
}

func (r *remote) List(ctx context.Context, repository, resource string, query url.Values) (http.Header, []byte, error) {
	header, body, err := r.Upstream.List(ctx, repository, resource, query)
	return header, body, r.note(err)
}
