package cache

import (
	"context"
	"errors"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache/fill"
	"github.com/entrepot/entrepot/upstream"
)

// Blob is a blob ready to be read, for one goroutine. Close frees it.
type Blob struct {
	// Content is the blob from its start. It is an *os.File when the blob is kept, or a *bytes.Reader when it is small, too.
	// Reading anything else yields bytes as they land, and fails, with the last byte unread, if they turn out to be wrong or
	// can't be had.
	Content io.ReadSeeker
	Size    int64
	Verdict Verdict
	close   func() error
}

// Close frees the blob.
func (b *Blob) Close() error { return b.close() }

// Part is the bytes [From, To) of a blob: what is going to be read of it, as far as that is known. A negative From counts from
// the end, and To may lie beyond it.
type Part = fill.Part

// Whole is all of a blob.
var Whole = fill.Whole

// Blob returns a blob of a repository: from disk, from the transfer in flight, or from a new one. It returns as soon as
// the size is sure and bytes are coming. Of a blob of which only parts are read, only these are fetched. ctx also ends later
// waiting for bytes.
func (c *Cache) Blob(ctx context.Context, repo Repository, d digest.Digest, part Part) (*Blob, error) {
	ctx, s := starting(ctx)
	b, err := c.blob(ctx, repo, d, part)
	late := s.started(err)
	if b == nil || late != nil {
		if b != nil {
			_ = b.close() // nothing was read of it
		}
		s.free()
		return nil, late
	}
	free := b.close
	b.close = func() error {
		defer s.free()
		return free()
	}
	return b, nil
}

func (c *Cache) blob(ctx context.Context, repo Repository, d digest.Digest, part Part) (*Blob, error) {
	r, err := c.remote(repo)
	if err != nil {
		return nil, err
	}
	t, err := c.title(ctx, r, repo, d)
	if err != nil {
		return nil, err
	}
	src := source{c, r, repo, d, upstream.PresentedIn(ctx)}
	for range 2 { // the second time when the fill finds it kept meanwhile
		if b, ok := c.keptBlob(ctx, d); ok {
			return c.grant(ctx, t, b)
		}
		if b, ok := c.passing(ctx, t, src, part); ok {
			return c.grant(ctx, t, b)
		}
		reader, joined, err := c.fills.Join(ctx, d, t.Size, src, part)
		switch {
		case err == nil:
			return c.follow(ctx, t, reader, src, part, joined)
		case errors.Is(err, fill.ErrKept):
		case errors.Is(err, fill.ErrStorage):
			return c.pass(ctx, t, src, part)
		default:
			return nil, err
		}
	}
	return c.pass(ctx, t, src, part) // it is there, but can't be opened
}

// follow returns the blob that a fill brings. That this repository's upstream has opened it is proof enough of the title; what
// somebody else's did, now or before it was parked, is not.
func (c *Cache) follow(ctx context.Context, t title, reader *fill.Reader, src source, part Part, joined bool) (*Blob, error) {
	asked := reader.Asked()
	switch {
	case !joined && asked:
		return newBody(ctx, reader, src, part, Miss), nil
	case reader.Verified(), !asked: // all that is wanted is here
		return c.grant(ctx, t, newBody(ctx, reader, src, part, Hit))
	}
	return c.grant(ctx, t, newBody(ctx, reader, src, part, Collapsed))
}

// grant returns b, which came from elsewhere than through the title's repository, once the title is proven.
func (c *Cache) grant(ctx context.Context, t title, b *Blob) (*Blob, error) {
	if err := t.prove(ctx); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	if t.asked && b.Verdict.Outcome == Hit {
		b.Verdict.Outcome = Revalidated
	}
	return b, nil
}

// keptBlob opens a blob that is kept, unless it turns out to be damaged.
func (c *Cache) keptBlob(ctx context.Context, d digest.Digest) (*Blob, bool) {
	if s, ok := c.remembered(d); ok {
		return s.blob(), true
	}
	f, ok := c.keeper.Blob(ctx, d)
	if !ok {
		return nil, false
	}
	if f.Size <= maxSmallBlob {
		defer f.Close()
		s, ok := c.readSmall(d, f)
		if !ok {
			return nil, false
		}
		return s.blob(), true
	}
	b := &Blob{Content: f.File, Size: f.Size, Verdict: Verdict{Outcome: Hit}, close: f.Close}
	if c.keeper.Due(f) {
		w := c.keeper.Watch(f, d)
		b.Content, b.close = w, w.Close
	}
	return b, true
}

// keptSize returns the size of a blob that is kept.
func (c *Cache) keptSize(ctx context.Context, d digest.Digest) (is int64, ok bool) {
	if s, ok := c.remembered(d); ok {
		return int64(len(s.body)), true
	}
	f, ok := c.keeper.Blob(ctx, d)
	if !ok {
		return 0, false
	}
	defer f.Close()
	return f.Size, true
}

// StatBlob returns the size of a blob without transferring it.
func (c *Cache) StatBlob(ctx context.Context, repo Repository, d digest.Digest) (size int64, v Verdict, err error) {
	r, err := c.remote(repo)
	if err != nil {
		return 0, Verdict{}, err
	}
	ctx, s := starting(ctx)
	defer s.whole(&err)
	t, err := c.title(ctx, r, repo, d)
	if err == nil && t.proven && !t.asked {
		if is, ok := c.keptSize(ctx, d); ok {
			return is, Verdict{Outcome: Hit}, nil
		}
		if reader, ok, err := c.fills.Attach(ctx, d); ok && err == nil {
			return reader.Size(), Verdict{Outcome: Collapsed}, reader.Close()
		}
	}
	if err == nil && !t.asked {
		err = t.confirm(ctx)
	}
	return t.Size, Verdict{Outcome: Miss}, err
}

// source is a blob at its upstream, as a fill wants it.
type source struct {
	c    *Cache
	r    *remote
	repo Repository
	d    digest.Digest
	as   upstream.Presented // what the client has presented that began the transfer
}

// Open streams the blob; that it can is the proof that the blob belongs to the repository.
func (s source) Open(ctx context.Context, r fill.Request) (fill.Stream, error) {
	blob, err := s.r.OpenBlob(s.as.In(ctx), upstream.BlobRequest{Repository: s.repo.Name, Digest: s.d,
		Offset: r.Offset, Length: r.Length, Beside: r.Beside, Waiting: r.Waiting, Validator: r.Validator})
	if err != nil {
		return fill.Stream{}, err
	}
	if r.Beside == 0 { // else another stream has proven it
		s.c.confirmed(s.repo, s.d, blob.Size)
	}
	return fill.Stream{Body: blob, Size: blob.Size, Origin: blob.Endpoint, Validator: blob.Validator}, nil
}

// Distrust tells upstream which endpoint sent something else.
func (s source) Distrust(endpoint string) { s.r.Distrust(endpoint) }
