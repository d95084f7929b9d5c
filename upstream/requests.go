package upstream

import (
	"bytes"
	"context"
	_ "crypto/sha256" // digests of these kinds are valid only when their hashes are linked
	_ "crypto/sha512"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Resolve asks by HEAD which manifest a tag or digest names, or by GET where an endpoint knows no HEAD. The descriptor's
// digest is empty, and its size -1, when upstream states none; none is computed.
func (r *Registry) Resolve(ctx context.Context, repository, reference string, accept []string) (ocispec.Descriptor, error) {
	q := question{kind: kindManifest, method: http.MethodHead, accept: accept}
	d, _, err := r.manifest(ctx, q, repository, reference)
	return d, err
}

// Manifest fetches a manifest of at most MaxManifest bytes. The descriptor holds the media type that the answer's header
// states, the size of the body, and the digest of the Docker-Content-Digest header, which may be missing. The body has
// the digest that was asked for, if one was; whether it has the stated one is for the caller to find out.
func (r *Registry) Manifest(ctx context.Context, repository, reference string, accept []string) (ocispec.Descriptor, []byte, error) {
	q := question{kind: kindManifest, method: http.MethodGet, accept: accept}
	return r.manifest(ctx, q, repository, reference)
}

func (r *Registry) manifest(ctx context.Context, q question, repository, reference string) (ocispec.Descriptor, []byte, error) {
	mark, asked := ":", digest.Digest("")
	if d, err := digest.Parse(reference); err == nil {
		mark, asked, q.byDigest = "@", d, true
	}
	q.op = q.method + " manifest " + repository + mark + reference

	var found ocispec.Descriptor
	var body []byte
	check := func(resp *http.Response, content []byte) error {
		var err error
		found = ocispec.Descriptor{Size: resp.ContentLength}
		if found.MediaType, err = mediaType(resp); err != nil {
			return err
		}
		if found.MediaType == "" {
			return errors.New("manifest without a media type")
		}
		if found.Digest, err = statedDigest(resp, asked); err != nil {
			return err
		}
		if resp.Request.Method == http.MethodGet {
			if len(content) == 0 {
				return errors.New("manifest without a byte")
			}
			if asked != "" && asked.Algorithm().FromBytes(content) != asked {
				return errors.New("content of another digest came in its place")
			}
			body, found.Size = content, int64(len(content))
		}
		return nil
	}
	err := r.inTurn(ctx, q, func(e *endpoint, q question) error {
		err := r.whole(ctx, e, q, repository, "manifests/"+reference, nil, check)
		if q.method == http.MethodHead && headRefused(err) {
			q := q.byGet()
			if err = r.whole(ctx, e, q, repository, "manifests/"+reference, nil, check); err != nil {
				err = r.failed(q, err)
			}
		}
		return err
	})
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	return found, body, nil
}

// StatBlob asks by HEAD whether the repository holds the blob, and for its size, or by a GET of its first byte where an
// endpoint knows no HEAD. That an answer states no size is an error.
func (r *Registry) StatBlob(ctx context.Context, repository string, d digest.Digest) (int64, error) {
	q := blobName{repository, d}.question(http.MethodHead)
	size := int64(-1)
	err := r.inTurn(ctx, q, func(e *endpoint, q question) error {
		err := r.whole(ctx, e, q, repository, "blobs/"+d.String(), nil, func(resp *http.Response, _ []byte) error {
			if _, err := mediaType(resp); err != nil {
				return err
			}
			if _, err := statedDigest(resp, d); err != nil {
				return err
			}
			if size = resp.ContentLength; size < 0 {
				return errNoSize
			}
			return nil
		})
		if headRefused(err) {
			size, err = r.statByGet(ctx, e, q)
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	return size, nil
}

var errNoSize = errors.New("blob without a size")

// statByGet reads the size of the blob that q asks for off the answer to a GET of its first byte.
func (r *Registry) statByGet(ctx context.Context, e *endpoint, q question) (int64, error) {
	q = q.byGet()
	q.length = 1
	ctx, cancel := context.WithTimeoutCause(ctx, smallTimeout, errSlow)
	defer cancel()
	resp, x, err := r.blobAnswer(ctx, e, q)
	if err != nil {
		return 0, r.failed(q, err)
	}
	if resp.StatusCode == http.StatusPartialContent {
		discard(resp) // its one byte
	} else {
		resp.Body.Close()
	}
	if x.size < 0 {
		return 0, r.unfit(q, resp, "%w", errNoSize)
	}
	return x.size, nil
}

// List fetches a JSON document below a repository from a trusted endpoint: tags/list, or referrers/ and a digest. It
// returns the body, of at most MaxManifest bytes, and of the header what belongs to it: Content-Type, Link and
// OCI-Filters-Applied. The body is a JSON object with the list that was asked for; what the list holds is not looked at.
func (r *Registry) List(ctx context.Context, repository, resource string, query url.Values) (http.Header, []byte, error) {
	q := question{kind: kindList, method: http.MethodGet, op: "GET " + resource + " of " + repository,
		accept: []string{ocispec.MediaTypeImageIndex, "application/json"}}
	header := make(http.Header)
	var body []byte
	err := r.inTurn(ctx, q, func(e *endpoint, q question) error {
		return r.whole(ctx, e, q, repository, resource, query, func(resp *http.Response, content []byte) error {
			if _, err := mediaType(resp); err != nil {
				return err
			}
			if err := listed(resource, content); err != nil {
				return err
			}
			for _, name := range []string{"Content-Type", "Link", "OCI-Filters-Applied"} {
				for _, value := range resp.Header.Values(name) {
					header.Add(name, value)
				}
			}
			body = content
			return nil
		})
	})
	if err != nil {
		return nil, nil, err
	}
	return header, body, nil
}

// listed refuses what is not the document that a resource of lists promises.
func listed(resource string, body []byte) error {
	var doc struct{ Tags, Manifests jsonStart }
	// The decoder's error is left out: it may quote what it has read.
	if json.Unmarshal(body, &doc) != nil || bytes.HasPrefix(bytes.TrimSpace(body), []byte("null")) {
		return errors.New("list that is not a JSON object")
	}
	switch {
	case resource == "tags/list" && doc.Tags != '[' && doc.Tags != 'n':
		return errors.New("list of tags without tags")
	case strings.HasPrefix(resource, "referrers/") && doc.Manifests != '[':
		return errors.New("list of referrers without manifests")
	}
	return nil
}

// jsonStart is the first byte of a JSON value, which tells its type: a list of millions of tags is worth no more here.
type jsonStart byte

// UnmarshalJSON takes the first byte.
func (s *jsonStart) UnmarshalJSON(value []byte) error {
	*s = jsonStart(value[0])
	return nil
}

// whole asks an endpoint for something small, reads it to its end, and has it checked. All that takes smallTimeout at most.
func (r *Registry) whole(ctx context.Context, e *endpoint, q question, repository, resource string, query url.Values,
	check func(resp *http.Response, body []byte) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, smallTimeout, errSlow)
	defer cancel()
	resp, err := r.answer(ctx, e, q, repository, resource, query)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return r.refusal(q, resp, e.origin)
	}
	if err := plainlyCoded(resp); err != nil {
		return r.unfit(q, resp, "%w", err)
	}
	var body []byte
	if q.method != http.MethodHead {
		if body, err = r.content(ctx, e, q, resp); err != nil {
			return err
		}
	}
	if err := check(resp, body); err != nil {
		return r.unfit(q, resp, "%w", err)
	}
	return nil
}

// content reads the body that answers q to its end, which tells how the endpoint fares.
func (r *Registry) content(ctx context.Context, e *endpoint, q question, resp *http.Response) ([]byte, error) {
	since := time.Now()
	body, err := readAll(resp)
	switch {
	case errors.Is(err, errTooLarge):
		return nil, r.unfit(q, resp, "%w", err)
	case err != nil:
		err = causeOf(ctx, err)
		r.broke(ctx, e, q, since, err)
		return nil, err
	}
	if q.traffic() == small {
		r.revive(e, small, since)
	}
	return body, nil
}

// answer asks an endpoint for a resource of a repository.
func (r *Registry) answer(ctx context.Context, e *endpoint, q question, repository, resource string, query url.Values) (*http.Response, error) {
	if !plainPath(repository) || !plainPath(resource) {
		return nil, errors.New("not a name that can be asked for")
	}
	// Before anything is done on behalf of this: a token asked for, a helper run, or a limit waited for.
	if r.offline.Load() {
		return nil, ErrOffline
	}
	if q.kind != kindProbe {
		if err := e.health[q.traffic()].door.isShut(); err != nil {
			return nil, err
		}
	}
	to := e.url.JoinPath("v2", repository, resource)
	to.RawQuery = query.Encode()
	q.as = q.as.under(ctx)
	resp, err := r.authorized(ctx, e, q, repository, to)
	if err != nil {
		return nil, causeOf(ctx, err)
	}
	return resp, nil
}

// plainPath reports whether a path names what it seems to name. Whoever calls has checked names against their grammar; this
// is the last fence before a request that carries credentials, so it knows no more than that there must be no way out.
func plainPath(path string) bool {
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "" || segment == "." || segment == ".." || strings.ContainsFunc(segment, func(c rune) bool {
			return c <= ' ' || c > '~' || strings.ContainsRune(`%?#\`, c)
		}) {
			return false
		}
	}
	return true
}

// plainlyCoded refuses content that was encoded unasked: it has not the size, nor the digest, that was asked for.
func plainlyCoded(resp *http.Response) error {
	if coding := strings.Join(resp.Header.Values("Content-Encoding"), ", "); coding != "" && !strings.EqualFold(coding, "identity") {
		return fmt.Errorf("content is encoded: %s", printable(coding, maxCode))
	}
	return nil
}

// mediaType returns the type that an answer states, without parameters, or "". A web page is the word of a captive
// portal or of a broken front, not of a registry.
func mediaType(resp *http.Response) (string, error) {
	stated, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	stated = strings.TrimSpace(stated)
	if strings.EqualFold(stated, "text/html") || strings.EqualFold(stated, "application/xhtml+xml") {
		return "", errors.New("a web page came in its place")
	}
	return stated, nil
}

// statedDigest returns the digest that an answer claims to have, if it states one. It must be the digest asked for, if one
// was. One by another algorithm may well be of the same content, and says nothing; one by an algorithm that no client
// verifies says nothing either.
func statedDigest(resp *http.Response, asked digest.Digest) (digest.Digest, error) {
	stated, err := digest.Parse(strings.TrimSpace(resp.Header.Get("Docker-Content-Digest")))
	switch {
	case err != nil, stated.Algorithm() != digest.SHA256 && stated.Algorithm() != digest.SHA512:
		return "", nil
	case asked != "" && stated.Algorithm() != asked.Algorithm():
		return "", nil
	case asked != "" && stated != asked:
		return "", fmt.Errorf("content of digest %s came in its place", stated)
	}
	return stated, nil
}

var errTooLarge = fmt.Errorf("content of more than %d bytes", MaxManifest)

// readAll reads a body of at most MaxManifest bytes.
func readAll(resp *http.Response) ([]byte, error) {
	if resp.ContentLength > MaxManifest {
		return nil, errTooLarge
	}
	var body bytes.Buffer
	if resp.ContentLength > 0 {
		body.Grow(int(resp.ContentLength) + bytes.MinRead)
	}
	if _, err := body.ReadFrom(io.LimitReader(resp.Body, MaxManifest+1)); err != nil {
		return nil, err
	}
	if body.Len() > MaxManifest {
		return nil, errTooLarge
	}
	return body.Bytes(), nil
}

// causeOf is the reason why ctx has ended, if it has, instead of what that did to a request.
func causeOf(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
