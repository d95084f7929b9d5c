package cache

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/upstream"
)

// Upstream is what the cache needs of a registry. It asks nobody who is known to be gone: then it fails at once. An error that is the registry's definite answer (no such thing, not
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
	// Down reports whether Resolve and Manifest would fail at once, because there is nobody to ask.
	Down() bool
	// BlobsDown reports the same of OpenBlob.
	BlobsDown() bool
	// Shows asks whether a resource is shown to nobody in particular, or to who presents that Authorization header: nil if it is.
	// Size is the size of a manifest or blob, -1 if that was not stated.
	Shows(ctx context.Context, repository, resource, authorization string) (size int64, err error)
	// Challenge is what the registry asks of a client, as the value of a WWW-Authenticate header; "": nothing.
	Challenge(ctx context.Context, repository string) (string, error)
}

// isAnswer reports whether the error is upstream's definite answer.
func isAnswer(err error) bool {
	var a interface{ Answered() bool }
	return errors.As(err, &a) && a.Answered()
}

// isForAll reports whether the error is upstream's definite answer, and about more than what one client has presented.
func isForAll(ctx context.Context, err error) bool {
	return isAbsence(err) || isAnswer(err) && upstream.PresentedIn(ctx) == (upstream.Presented{})
}

// isFinal reports whether to ask again is in vain: upstream has answered, or is not to be asked. One that is down may be back
// soon, for a transfer that is under way.
func isFinal(err error) bool { return isAnswer(err) || errors.Is(err, upstream.ErrOffline) }

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

// pauseOf is how long a registry wants to be left alone for, by what it has said.
func pauseOf(err error) time.Duration {
	if e, ok := errors.AsType[*upstream.Error](err); ok {
		return e.RetryAfter
	}
	return 0
}

// isSilence reports whether the error says that there was no answer, or no whole one: asking in another way is a second
// time-out for who waits.
func isSilence(err error) bool {
	e, ok := errors.AsType[*upstream.Error](err)
	return ok && e.Status == 0
}

const (
	// justNow is for how long a registry's answer is taken for proof that it is there.
	justNow = 2 * time.Second

	// slowAfter is how long nothing must have come at least for a registry to be taken for slow.
	slowAfter = time.Second
)

// remote is a registry's upstream, as it is asked by somebody.
type remote struct {
	Upstream
	name    string
	c       *Cache
	ahead   bool // before anybody wants to know: that it has not got something yet is not remembered
	sparing bool // for what can be done without, see sparingly
	*conduct
}

// conduct is how a registry did lately. Whether it is there is for upstream itself to know.
type conduct struct {
	mu sync.Mutex
	// guards following
	answered time.Time // when it last answered
	failed   time.Time // when it last failed; zero since it last answered
	checks   int       // of tags and listings, under way while something stale was at hand
	waiting  time.Time // since then at least one of these has been under way, and nothing was answered
}

func (r *remote) now() time.Time { return r.c.opts.Now() }

// note takes down how a request for a manifest or a tag ended, and returns err. A failure of a request that began before the
// registry last answered is old news, and so is an answer that was remembered.
func (r *remote) note(began time.Time, err error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case errors.Is(err, ErrRemembered):
	case err == nil, isAnswer(err):
		r.answered, r.failed, r.waiting = r.now(), time.Time{}, time.Now()
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

// failing reports whether the registry failed when it was last asked.
func (r *remote) failing() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.failed.IsZero()
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
	age := r.now().Sub(r.answered)
	return r.failed.IsZero() && age >= 0 && age < justNow
}

// check counts a check of something of which there is a stale answer, until it has ended.
func (r *remote) check() (ended func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.checks == 0 {
		r.waiting = time.Now()
	}
	r.checks++
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.checks--
	}
}

// patience is a context for waiting for upstream while there is something stale at hand; the check goes on behind, so that the
// next one finds its result. Nobody waits for a registry that is down, nor for one that checks under way have waited for in vain:
// these find out when it is back, and the error says so. It does not go by the cache's clock, which may be set.
func (r *remote) patience(ctx context.Context) (context.Context, context.CancelFunc, error) {
	if r.Down() {
		return nil, nil, errDown
	}
	most := r.c.opts.RevalidateTimeout()
	r.mu.Lock()
	slow := r.checks > 0 && time.Since(r.waiting) >= max(most, slowAfter)
	r.mu.Unlock()
	if slow {
		return nil, nil, errSlow
	}
	ctx, cancel := context.WithTimeoutCause(ctx, most, errSlow)
	return ctx, cancel, nil
}

// errSlow says that upstream has not answered within the time that is given it while there is a stale answer.
var errSlow = errors.New("upstream is slow to answer")

// errDown says that upstream was not asked because there is nobody to ask.
var errDown = errors.New("upstream is down")

// ask asks upstream for a thing, unless it said a moment ago that it has not got it, and takes down whether it has. What it says
// to one client is for that one: it may not show to others that there is something, or to this one that there is not.
func ask[T any](ctx context.Context, r *remote, what thing, head bool, question func() (T, error)) (answer T, err error) {
	if upstream.PresentedIn(ctx) != (upstream.Presented{}) {
		return question()
	}
	if err := r.c.absent.recall(what, r.now(), r.c.opts.NegativeTTL(), head); err != nil {
		return answer, err
	}
	answer, err = question()
	switch {
	case err == nil:
		r.c.absent.forget(what)
	case isAbsence(err) && !r.ahead:
		r.c.absent.note(what, err, r.now(), head)
	}
	return answer, err
}

func (r *remote) repo(name string) Repository { return Repository{Registry: r.name, Name: name} }

func (r *remote) Resolve(ctx context.Context, repository, reference string, accept []string) (ocispec.Descriptor, error) {
	repo := r.repo(repository)
	desc, err := ask(ctx, r, manifestThing(repo, reference), true, func() (ocispec.Descriptor, error) {
		began := r.now()
		desc, err := r.Upstream.Resolve(r.under(ctx), repository, reference, accept)
		return desc, r.note(began, err)
	})
	if err == nil && desc.Digest != "" {
		r.c.absent.forget(manifestThing(repo, desc.Digest.String()))
	}
	return desc, err
}

// Manifest fetches a manifest. What is not there by some media types may be there by others: only what is asked for on
// everybody's behalf is remembered.
func (r *remote) Manifest(ctx context.Context, repository, reference string, accept []string) (ocispec.Descriptor, []byte, error) {
	var body []byte
	question := func() (desc ocispec.Descriptor, err error) {
		began := r.now()
		desc, body, err = r.Upstream.Manifest(r.under(ctx), repository, reference, accept)
		return desc, r.note(began, err)
	}
	if !slices.Equal(accept, manifestTypes) {
		desc, err := question()
		return desc, body, err
	}
	desc, err := ask(ctx, r, manifestThing(r.repo(repository), reference), false, question)
	return desc, body, err
}

func (r *remote) StatBlob(ctx context.Context, repository string, d digest.Digest) (int64, error) {
	return ask(ctx, r, blobThing(r.repo(repository), d), true, func() (int64, error) {
		size, err := r.Upstream.StatBlob(ctx, repository, d)
		r.noteAnswer(err)
		return size, err
	})
}

func (r *remote) OpenBlob(ctx context.Context, req upstream.BlobRequest) (*upstream.BlobStream, error) {
	return ask(ctx, r, blobThing(r.repo(req.Repository), req.Digest), false, func() (*upstream.BlobStream, error) {
		blob, err := r.Upstream.OpenBlob(ctx, req)
		r.noteAnswer(err)
		return blob, err
	})
}

func (r *remote) List(ctx context.Context, repository, resource string, query url.Values) (header http.Header, body []byte, err error) {
	what := thing{r.repo(repository), resource + "?" + query.Encode()}
	header, err = ask(ctx, r, what, false, func() (h http.Header, err error) {
		h, body, err = r.Upstream.List(r.under(ctx), repository, resource, query)
		r.noteAnswer(err)
		return h, err
	})
	return header, body, err
}

// Shows notes answers alone: it asks one endpoint, and others may be there.
func (r *remote) Shows(ctx context.Context, repository, resource, authorization string) (size int64, err error) {
	size, err = r.Upstream.Shows(ctx, repository, resource, authorization)
	r.noteAnswer(err)
	return size, err
}
