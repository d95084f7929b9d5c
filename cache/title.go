package cache

import (
	"context"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache/index"
)

// title is what is known of a digest's belonging to a repository.
//
// A manifest of the repository that names the digest is a claim. It becomes a proof when upstream shows the content in
// that repository; and, since a registry checks that an image or index that is pushed to it refers to what is there, when
// upstream shows it anywhere in that registry. Nothing keeps a manifest of one registry from naming content of another: so a claim alone
// entitles to ask upstream, and to nothing that came from elsewhere.
type title struct {
	index.Member
	proven bool
	asked  bool // upstream was asked just now

	c    *Cache
	r    *remote
	repo Repository
	d    digest.Digest
}

// title looks up what is known, and asks upstream if that is nothing.
func (c *Cache) title(ctx context.Context, r *remote, repo Repository, d digest.Digest) (title, error) {
	t, ok := c.known(r, repo, d)
	if !ok {
		return t, t.confirm(ctx)
	}
	return t, nil
}

// known looks up what is known; ok is false when that is nothing.
func (c *Cache) known(r *remote, repo Repository, d digest.Digest) (t title, ok bool) {
	m, ok := c.index.Member(repo, d)
	proven := ok && (m.Confirmed || c.index.Shown(repo.Registry, d))
	return title{Member: m, proven: proven, c: c, r: r, repo: repo, d: d}, ok
}

// prove makes sure that the title is more than a claim. Since it was looked up, upstream may have shown the content: to who
// leads the transfer that this is about, more often than not.
func (t *title) prove(ctx context.Context) error {
	if t.proven {
		return nil
	}
	if now, ok := t.c.known(t.r, t.repo, t.d); ok && now.proven {
		t.Member, t.proven = now.Member, true
		return nil
	}
	return t.confirm(ctx)
}

// confirm asks upstream by HEAD whether the repository holds the blob.
func (t *title) confirm(ctx context.Context) error {
	key := "blob " + t.repo.String() + " " + t.d.String()
	m, _, err := share(ctx, t.c, key, func(ctx context.Context) (index.Member, error) {
		size, err := t.r.StatBlob(ctx, t.repo.Name, t.d)
		if err != nil {
			return index.Member{}, err
		}
		return t.c.confirmed(t.repo, t.d, size), nil
	})
	if err == nil {
		t.Member, t.proven, t.asked = m, true, true
	}
	return err
}

// confirmed takes down that upstream showed a blob of that size in the repository.
func (c *Cache) confirmed(repo Repository, d digest.Digest, size int64) index.Member {
	m := index.Member{MediaType: blobType, Size: size}
	if have, ok := c.index.Member(repo, d); ok {
		if have.Confirmed && (size < 0 || size == have.Size) {
			return have
		}
		if have.MediaType != "" {
			m.MediaType = have.MediaType
		}
		if size < 0 { // upstream stated none; a manifest may have
			m.Size = have.Size
		}
	}
	c.logged(c.index.Confirm(repo, d, m))
	return m
}

// blobType stands for content of which nothing is known.
const blobType = "application/octet-stream"
