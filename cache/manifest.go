package cache

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/cache/index"
)

// Reference names a manifest within a repository: by tag, or by digest. Exactly one of the two is set.
type Reference struct {
	Tag    string
	Digest digest.Digest
}

// String is the tag or the digest.
func (r Reference) String() string {
	if r.Digest != "" {
		return r.Digest.String()
	}
	return r.Tag
}

// Manifest is a manifest, or what is known of one.
type Manifest struct {
	Descriptor ocispec.Descriptor // MediaType, Digest and Size
	Body       []byte             // verified, and not the caller's to change; nil if only the descriptor was asked for and the manifest is not at hand
	Verdict    Verdict

	names document // what Body names
}

// Manifest returns what a reference names. By tag, it is something that the client takes, if upstream has that. With
// headOnly the descriptor is enough.
func (c *Cache) Manifest(ctx context.Context, repo Repository, ref Reference, accept Accept, headOnly bool) (m *Manifest, err error) {
	r, err := c.remote(repo)
	if err != nil {
		return nil, err
	}
	ctx, s := starting(ctx)
	defer s.whole(&err)
	if ref.Digest != "" {
		m, err = c.manifestByDigest(ctx, r, repo, ref.Digest, headOnly)
	} else {
		m, err = c.manifestByTag(ctx, r, repo, ref.Tag, accept, headOnly)
	}
	if err == nil && !headOnly {
		c.ahead.asked(ctx, repo, m)
	}
	return m, err
}

// manifestByDigest never asks upstream about what is kept, but whether it may be served.
func (c *Cache) manifestByDigest(ctx context.Context, r *remote, repo Repository, d digest.Digest, headOnly bool) (*Manifest, error) {
	t, known := c.known(r, repo, d)
	if known && t.proven {
		if m, ok := c.storedManifest(ctx, t.descriptor()); ok {
			return m, c.servable(ctx, r, repo, m)
		}
	}
	if !headOnly && (!c.here(d) || known && t.proven) {
		m, led, err := c.fetchManifest(ctx, r, repo, d.String())
		return collapsed(m, led), err
	}
	// Upstream's word that the digest is there, and the proof that it belongs to this repository.
	desc, err := c.resolveDigest(ctx, r, repo, d)
	if err != nil {
		return nil, err
	}
	if m, ok := c.storedManifest(ctx, desc); ok {
		m.Verdict.Outcome = Revalidated
		return m, nil
	}
	if headOnly && complete(desc) {
		return &Manifest{Descriptor: desc, Verdict: Verdict{Outcome: Miss}}, nil
	}
	m, led, err := c.fetchManifest(ctx, r, repo, d.String())
	return collapsed(m, led), err
}

func (t title) descriptor() ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: t.MediaType, Digest: t.d, Size: t.Size}
}

// complete reports whether a descriptor says all that a HEAD must answer.
func complete(desc ocispec.Descriptor) bool {
	return desc.MediaType != "" && desc.Digest != "" && desc.Size > 0
}

// collapsed notes that m came from a fetch that somebody else had begun.
func collapsed(m *Manifest, led bool) *Manifest {
	if m == nil || led {
		return m
	}
	shared := *m // m is everybody's
	shared.Verdict.Outcome = Collapsed
	return &shared
}

// seen forgets that upstream had not got a manifest, or what it names: a registry has what it takes a manifest for.
func (c *Cache) seen(repo Repository, d digest.Digest, names document) {
	things := []thing{manifestThing(repo, d.String())}
	for _, desc := range names.named() {
		things = append(things, manifestThing(repo, desc.Digest.String()), blobThing(repo, desc.Digest))
	}
	c.absent.forget(things...)
}

// storedManifest returns a kept manifest. Its digest was checked when it came into memory: one that rots on disk is removed
// when it is read next, and so fetched again.
func (c *Cache) storedManifest(ctx context.Context, desc ocispec.Descriptor) (*Manifest, bool) {
	if desc.MediaType == blobType || desc.MediaType == "" {
		return nil, false // it is known as a blob only: upstream knows what it is
	}
	s, ok := c.smallContent(ctx, desc.Digest, maxManifest)
	if !ok {
		return nil, false
	}
	return manifestOf(c.read(s, desc.MediaType), Hit), true
}

// manifestOf is small content that was read as a manifest.
func manifestOf(s *small, how Outcome) *Manifest {
	desc := ocispec.Descriptor{MediaType: s.mediaType, Digest: s.digest, Size: int64(len(s.body))}
	return &Manifest{Descriptor: desc, Body: s.body, Verdict: Verdict{Outcome: how}, names: s.names}
}

// maxManifest is the largest file that is read as a manifest, in bytes: upstream gives no larger ones.
const maxManifest = 8 << 20

// resolveDigest asks upstream by HEAD what a digest is.
func (c *Cache) resolveDigest(ctx context.Context, r *remote, repo Repository, d digest.Digest) (ocispec.Descriptor, error) {
	key := "head " + repo.String() + " " + d.String()
	desc, _, err := shareOf(ctx, c, r, key, func(ctx context.Context) (ocispec.Descriptor, error) {
		desc, err := r.Resolve(ctx, repo.Name, d.String(), manifestTypes)
		if err != nil {
			return desc, err
		}
		desc.Digest = d
		if desc.MediaType != "" {
			c.logged(c.index.Confirm(repo, d, index.Member{MediaType: desc.MediaType, Size: desc.Size}))
		}
		return desc, nil
	})
	return desc, err
}

// fetchManifest gets a manifest from upstream, by tag or by digest, and keeps it.
func (c *Cache) fetchManifest(ctx context.Context, r *remote, repo Repository, reference string) (m *Manifest, led bool, err error) {
	return shareOf(ctx, c, r, "manifest "+repo.String()+" "+reference, func(ctx context.Context) (*Manifest, error) {
		// It may have come since the caller looked: a flight that ended in between brought it.
		if d, err := digest.Parse(reference); err == nil {
			if t, known := c.known(r, repo, d); known && t.proven {
				if m, ok := c.storedManifest(ctx, t.descriptor()); ok {
					return m, nil
				}
			}
		}
		return c.download(ctx, r, repo, reference, manifestTypes)
	})
}

// download gets a manifest from upstream, verifies and keeps it.
//
// What is no manifest of a type that is known is none of the cache's business but for its digest: it names nothing.
func (c *Cache) download(ctx context.Context, r *remote, repo Repository, reference string, accept []string) (*Manifest, error) {
	desc, body, err := r.Manifest(ctx, repo.Name, reference, accept)
	if err != nil {
		return nil, err
	}
	want := desc.Digest // what upstream's header says, if it does
	if d, err := digest.Parse(reference); err == nil {
		want = d
	}
	if want == "" {
		want = digest.FromBytes(body)
	}
	if got := want.Algorithm().FromBytes(body); got != want {
		return nil, fmt.Errorf("%w: manifest %s@%s: got %s", ErrMismatch, repo, want, got)
	}
	names, err := parseDocument(desc.MediaType, body)
	if err != nil {
		return nil, fmt.Errorf("%w: manifest %s %s is no manifest: %w", ErrMismatch, repo, reference, err)
	}
	s := &small{digest: want, body: body, mediaType: desc.MediaType, names: names}
	m := manifestOf(s, Miss)
	// The proof comes before the content, so that nobody who finds the one asks upstream for the other.
	c.logged(c.index.Confirm(repo, want, index.Member{MediaType: desc.MediaType, Size: int64(len(body))}))
	c.logged(c.index.Claim(repo, names.named()))
	c.seen(repo, want, names)
	m.Verdict.Stored = c.keep(s)
	c.pinNames(want, names)
	c.ahead.came(repo, m, names)
	return m, nil
}
