package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Shows asks the first endpoint, the one that may know us, whether it shows a resource of a repository to nobody in particular,
// or to who presents an Authorization header: "manifests/" and a tag or digest, "blobs/" and a digest, or "tags/list". It asks
// by HEAD, which is free where pulls are counted; for a list, which has no HEAD, by GET of its shortest page; and by GET too
// where HEAD is not known. Nil says that it does, and shows it: who gets the answer of a front that is out of order, in place of
// a registry's, is told that there is none. Size is what the answer states, -1 if nothing. The error is of type *Error; Answered
// tells a refusal from having no answer.
//
// Our own credentials are not used, and the tokens that are fetched for nobody open what they open to anybody.
func (r *Registry) Shows(ctx context.Context, repository, resource, authorization string) (size int64, err error) {
	q, query, err := showing(repository, resource)
	if err != nil {
		return -1, r.failed(q, err)
	}
	q.first, q.as = true, nobody
	if authorization != "" {
		q.as = presented(authorization)
	}
	_, name, _ := strings.Cut(resource, "/")
	asked, err := digest.Parse(name)
	if err != nil {
		asked = "" // a tag
	}
	check := func(resp *http.Response, body []byte) error {
		size = resp.ContentLength
		return q.shown(resp, body, asked)
	}
	err = r.inTurn(ctx, q, func(e *endpoint, q question) error {
		err := r.whole(ctx, e, q, repository, resource, query, check)
		switch {
		case q.traffic() == blobs && (headRefused(err) || storageRefused(err)):
			size, err = r.statByGet(ctx, e, q)
		case headRefused(err):
			err = r.whole(ctx, e, q.byGet(), repository, resource, query, check)
		}
		return err
	})
	return size, err
}

// showing is the question whether a resource is shown, and its query.
func showing(repository, resource string) (question, url.Values, error) {
	kind, name, _ := strings.Cut(resource, "/")
	q := question{method: http.MethodHead}
	var query url.Values
	switch kind {
	case "manifests":
		q.kind, q.accept = kindManifest, anyManifest
	case "blobs":
		d, err := digest.Parse(name)
		if err != nil {
			return q, nil, errNoResource
		}
		q = blobName{repository, d}.question(http.MethodHead)
	case "tags":
		q.kind, q.method, query = kindList, http.MethodGet, url.Values{"n": {"1"}}
	default:
		return q, nil, errNoResource
	}
	q.op = fmt.Sprintf("%s %s of %s", q.method, resource, repository)
	return q, query, nil
}

var errNoResource = errors.New("no resource that is shown or not")

// anyManifest are the media types of what may be asked for; a registry shows it or not, whatever it is.
var anyManifest = []string{
	ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest,
	"application/vnd.docker.distribution.manifest.list.v2+json", "application/vnd.docker.distribution.manifest.v2+json", "*/*",
}

// shown refuses what is no registry's answer, such as a page on which to log in, or what a front says to everything. It is an
// answer if it states the digest, or has the form of what was asked for.
func (q question) shown(resp *http.Response, body []byte, asked digest.Digest) error {
	stated, err := mediaType(resp)
	if err != nil {
		return err
	}
	if q.kind == kindList {
		return listed("tags/list", body)
	}
	d, err := statedDigest(resp, asked)
	switch {
	case err != nil:
		return err
	case resp.ContentLength == 0:
		return errors.New("an answer without content")
	case q.kind == kindManifest && stated == "":
		return errors.New("manifest without a media type")
	case d != "":
		return nil
	case q.kind == kindManifest && !slices.Contains(anyManifest, stated):
		return errors.New("an answer that is no manifest's")
	case q.kind == kindBlob && (resp.ContentLength < 0 || isPage(stated)):
		return errors.New("an answer that is no blob's")
	}
	return nil
}

// isPage reports whether a media type is that of what fronts answer with in place of what was asked for.
func isPage(mediaType string) bool {
	of, _, _ := strings.Cut(strings.ToLower(mediaType), "/")
	return of == "text" || slices.Contains([]string{"application/json", "application/problem+json", "application/xml"}, strings.ToLower(mediaType))
}

// storageRefused reports whether an error is the refusal of a host that the registry led to: signatures may be for GET alone.
func storageRefused(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.hearsay && (e.Status == http.StatusForbidden || e.Status == http.StatusUnauthorized)
}

// Challenge returns what the first endpoint asks of a client that wants to pull from a repository, as the value of a
// WWW-Authenticate header; "" if it asks for nothing. With an empty repository it is what it asks at its root. The endpoint is
// asked for it only when it is not known yet.
func (r *Registry) Challenge(ctx context.Context, repository string) (string, error) {
	e := r.endpoints[0]
	c, free := e.asks()
	if c == (challenge{}) && !free {
		var err error
		if c, err = r.fetchChallenge(ctx, e); err != nil {
			return "", err
		}
		e.asked(c)
	}
	return c.header(r.name, repository), nil
}

// freeFor is how long an endpoint that asks for nothing is not asked again for what it asks for: clients ask with each request.
const freeFor = time.Minute

// asks returns what an endpoint asks for, as far as it is known; free tells that it did not ask for anything a moment ago.
func (e *endpoint) asks() (c challenge, free bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.known, time.Now().Before(e.free)
}

// asked notes what an endpoint asks for.
func (e *endpoint) asked(c challenge) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if c == (challenge{}) {
		e.free = time.Now().Add(freeFor)
	}
}

// fetchChallenge asks an endpoint's root as nobody.
func (r *Registry) fetchChallenge(ctx context.Context, e *endpoint) (challenge, error) {
	q := question{kind: kindProbe, method: http.MethodGet, op: "GET /v2/", first: true, as: nobody}
	ctx, cancel := context.WithTimeoutCause(ctx, smallTimeout, errSlow)
	defer cancel()
	resp, err := r.askRoot(ctx, e, q)
	if err != nil {
		return challenge{}, r.failed(q, causeOf(ctx, err))
	}
	home := originOf(resp.Request.URL) == e.origin
	switch {
	case resp.StatusCode == http.StatusUnauthorized && home:
		discard(resp)
		c := choose(resp.Header.Values("WWW-Authenticate"))
		if c == (challenge{}) {
			return c, &Error{Registry: r.name, Op: q.op, Status: resp.StatusCode, Err: errors.New("a challenge that nothing meets")}
		}
		e.learn(c)
		return c, nil
	case resp.StatusCode == http.StatusOK && home:
		discard(resp)
		return challenge{}, nil
	}
	return challenge{}, r.refusal(q, resp, e.origin)
}

// askRoot is ask for an endpoint's root, by its door: unlike a probe's, it is a client's question.
func (r *Registry) askRoot(ctx context.Context, e *endpoint, q question) (resp *http.Response, err error) {
	door := &e.health[small].door
	if err := door.enter(ctx); err != nil {
		return nil, err
	}
	defer func() { door.leave(isAnswer(resp, err)) }()
	return r.ask(ctx, e, q, e.url.JoinPath("v2/"), "")
}

// header is the challenge as a registry of that name would put it to who wants to pull from a repository.
func (c challenge) header(registry, repository string) string {
	switch c.scheme {
	case bearer:
		o := offer{scheme: bearer, params: map[string]string{"realm": c.realm, "service": c.service}}
		if repository != "" {
			o.params["scope"] = "repository:" + repository + ":pull"
		}
		return o.header()
	case basic:
		return offer{scheme: basic, params: map[string]string{"realm": registry}}.header()
	}
	return ""
}

// passed is what an answer's challenges come to for a client: the one that we would meet ourselves.
func passed(headers []string) string {
	offered := parseChallenges(headers)
	for _, o := range offered {
		if o.scheme == bearer && o.params["realm"] != "" {
			return o.header()
		}
	}
	for _, o := range offered {
		if o.scheme == basic {
			return o.header()
		}
	}
	return ""
}

// header writes an offer as the value of a WWW-Authenticate header: those of its parameters that clients know.
func (o offer) header() string {
	var b strings.Builder
	b.WriteString(strings.ToUpper(o.scheme[:1]) + o.scheme[1:])
	sep := " "
	for _, name := range []string{"realm", "service", "scope", "error"} {
		value, ok := o.params[name]
		if value = printable(value, maxChallenge); !ok || value == "" && name != "realm" {
			continue
		}
		b.WriteString(sep + name + `="` + escapeQuotes.Replace(value) + `"`)
		sep = ","
	}
	return b.String()
}

// maxChallenge is how much of a parameter is passed on, in bytes: longer than any URL of a realm.
const maxChallenge = 1024

var escapeQuotes = strings.NewReplacer(`\`, `\\`, `"`, `\"`)
