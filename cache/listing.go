package cache

import (
	"context"
	"net/url"

	"github.com/entrepot/entrepot/cache/index"
)

// Listing is a listing as upstream gave it: JSON.
type Listing struct {
	ContentType string
	Link        string // upstream's Link header, which leads to the next page
	Body        []byte
	Verdict     Verdict
}

// List returns a listing of a repository: resource is "tags/list" or "referrers/" and a digest. It is fresh, and stale, as
// a tag is.
func (c *Cache) List(ctx context.Context, repo Repository, resource string, query url.Values) (l *Listing, err error) {
	r, err := c.remote(repo)
	if err != nil {
		return nil, err
	}
	ctx, s := starting(ctx)
	defer s.whole(&err)
	name := resource + "?" + query.Encode()
	rec, known := c.index.Listing(repo, name)
	if known && c.fresh(repo, "", rec.Checked) {
		return listing(rec, c.verdict(Hit, repo, "", rec.Checked)), nil
	}
	wait := ctx
	if known {
		short, cancel, err := r.patience(ctx)
		if err != nil {
			return c.staleListing(repo, rec, err), nil
		}
		defer cancel()
		wait = short
		r = r.sparingly()
	}
	fetched, led, err := share(wait, c, "list "+repo.String()+" "+name, func(ctx context.Context) (index.Listing, error) {
		if known {
			defer r.check()()
		}
		return c.fetchListing(ctx, r, repo, resource, name, query)
	})
	switch {
	case err == nil && led:
		return listing(fetched, c.verdict(Miss, repo, "", fetched.Checked)), nil
	case err == nil:
		return listing(fetched, c.verdict(Collapsed, repo, "", fetched.Checked)), nil
	case known && !isAnswer(err) && ctx.Err() == nil:
		return c.staleListing(repo, rec, err), nil
	}
	return nil, err
}

func (c *Cache) fetchListing(ctx context.Context, r *remote, repo Repository, resource, name string, query url.Values) (index.Listing, error) {
	header, body, err := r.List(ctx, repo.Name, resource, query)
	if err != nil {
		if isForAll(ctx, err) {
			c.logged(c.index.DeleteListing(repo, name))
		}
		return index.Listing{}, err
	}
	rec := index.Listing{ContentType: header.Get("Content-Type"), Link: header.Get("Link"), Body: body, Checked: c.opts.Now()}
	c.logged(c.index.SetListing(repo, name, rec))
	return rec, nil
}

func (c *Cache) staleListing(repo Repository, rec index.Listing, cause error) *Listing {
	v := c.verdict(Stale, repo, "", rec.Checked)
	v.Cause = cause
	return listing(rec, v)
}

func listing(rec index.Listing, v Verdict) *Listing {
	return &Listing{ContentType: rec.ContentType, Link: rec.Link, Body: rec.Body, Verdict: v}
}
