package cache

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/entrepot/entrepot/cache/index"
	"github.com/entrepot/entrepot/upstream"
)

// manifestByTag serves a fresh tag from the cache. Otherwise upstream is asked, once however many want it; when it fails, or has
// not got a tag any more that is to be kept, the last good answer is served.
func (c *Cache) manifestByTag(ctx context.Context, r *remote, repo Repository, tag string, accept Accept, headOnly bool) (*Manifest, error) {
	rec, known := c.index.Tag(repo, tag)
	if known && !accept.takes(rec.Manifest.MediaType) {
		return c.negotiate(ctx, r, repo, tag, accept)
	}
	if known && c.fresh(repo, tag, rec.Checked) {
		return c.tagged(ctx, r, repo, rec, c.verdict(Hit, repo, tag, rec.Checked), headOnly)
	}
	if !known {
		found, led, err := c.checkTag(ctx, r, repo, tag, !headOnly)
		if err != nil {
			return nil, err
		}
		return c.checked(ctx, r, repo, tag, accept, found, led, Miss, headOnly)
	}
	check := c.checkWhileStale
	if !c.here(rec.Manifest.Digest) {
		check = c.checkTag // there is nothing to serve in its place
	}
	found, led, err := check(ctx, r, repo, tag, !headOnly)
	switch {
	case err == nil && found.rec.Manifest.Digest == rec.Manifest.Digest:
		return c.checked(ctx, r, repo, tag, accept, found, led, Revalidated, headOnly)
	case err == nil:
		return c.checked(ctx, r, repo, tag, accept, found, led, Miss, headOnly)
	case isAnswer(err) && !c.keeps(repo, err), ctx.Err() != nil:
		return nil, err
	}
	return c.stale(ctx, r, repo, tag, rec, err)
}

// checked returns what a check of a tag found.
func (c *Cache) checked(ctx context.Context, r *remote, repo Repository, tag string, accept Accept, found found, led bool, how Outcome, headOnly bool) (*Manifest, error) {
	if !accept.takes(found.rec.Manifest.MediaType) {
		return c.negotiate(ctx, r, repo, tag, accept)
	}
	v := c.verdict(how, repo, tag, found.rec.Checked)
	if found.m == nil {
		return c.tagged(ctx, r, repo, found.rec, v, headOnly)
	}
	m := *found.m // everybody's
	v.Stored = m.Verdict.Stored
	m.Verdict = v
	return collapsed(&m, led), nil
}

// fresh reports whether what upstream said of a tag, or for "" of a listing, still holds.
func (c *Cache) fresh(repo Repository, tag string, checked time.Time) bool {
	age := c.opts.Now().Sub(checked)
	return age >= 0 && age < c.opts.TagTTL(repo, tag) // a clock that was set back makes it stale, not eternal
}

func (c *Cache) verdict(how Outcome, repo Repository, tag string, checked time.Time) Verdict {
	age := max(0, c.opts.Now().Sub(checked))
	return Verdict{Outcome: how, Mutable: true, Age: age, TTL: c.opts.TagTTL(repo, tag) - age}
}

// tagged returns the manifest that a tag's record names. For a HEAD the record is enough.
func (c *Cache) tagged(ctx context.Context, r *remote, repo Repository, rec index.Tag, v Verdict, headOnly bool) (*Manifest, error) {
	m, ok := c.storedManifest(ctx, rec.Manifest)
	switch {
	case ok && v.Outcome == Hit:
		if err := c.servable(ctx, r, repo, m); err != nil {
			return nil, err
		}
	case ok:
	case headOnly:
		m = &Manifest{Descriptor: rec.Manifest}
	default:
		fetched, _, err := c.fetchManifest(ctx, r, repo, rec.Manifest.Digest.String())
		if err != nil {
			return nil, err
		}
		shared := *fetched
		m, v.Outcome, v.Stored = &shared, Miss, fetched.Verdict.Stored
	}
	m.Verdict = v
	return m, nil
}

// stale returns the last good answer after upstream failed with cause, if it can be served whole.
func (c *Cache) stale(ctx context.Context, r *remote, repo Repository, tag string, rec index.Tag, cause error) (*Manifest, error) {
	m, ok := c.storedManifest(ctx, rec.Manifest)
	if !ok {
		return nil, cause
	}
	if err := c.servable(ctx, r, repo, m); err != nil {
		return nil, fmt.Errorf("%w; upstream: %w", err, cause)
	}
	m.Verdict = c.verdict(Stale, repo, tag, rec.Checked)
	m.Verdict.Cause = cause
	return m, nil
}

// negotiate asks upstream for a manifest of the types that this client takes, which are not what upstream serves to who
// takes all: the answer is this client's, and no record of the tag.
func (c *Cache) negotiate(ctx context.Context, r *remote, repo Repository, tag string, accept Accept) (*Manifest, error) {
	key := fmt.Sprintf("negotiate %s:%s %s", repo, tag, accept)
	m, led, err := share(ctx, c, key, func(ctx context.Context) (*Manifest, error) {
		return c.download(ctx, r, repo, tag, accept.types())
	})
	return collapsed(m, led), err
}

// found is what a check of a tag found: what upstream says that it names, and the manifest if that had to be fetched.
type found struct {
	rec index.Tag
	m   *Manifest
}

// checkWhileStale asks upstream for a tag of which there is a stale record, and does not wait for long.
func (c *Cache) checkWhileStale(ctx context.Context, r *remote, repo Repository, tag string, fetch bool) (found, bool, error) {
	if c.opts.KeepDeleted(repo.Registry) {
		if gone := c.absent.recall(manifestThing(repo, tag), c.opts.Now(), c.opts.TagTTL(repo, tag), true); gone != nil {
			return found{}, false, gone
		}
	}
	ctx, cancel, err := r.patience(ctx)
	if err != nil {
		return found{}, false, err
	}
	defer cancel()
	return c.checkTag(ctx, r, repo, tag, fetch)
}

// keeps reports whether err, upstream's answer for a tag, is to be kept from the clients: it was deleted there, and stays here.
func (c *Cache) keeps(repo Repository, err error) bool {
	return isAbsence(err) && c.opts.KeepDeleted(repo.Registry)
}

// checkTag asks upstream what a tag names and takes the answer down. The manifest is at hand afterwards, except, perhaps, when
// the tag was not known before and fetch is false.
//
// A tag that moved is taken down only once its new manifest is on disk: HEAD is free under rate limits and GET is not, so
// upstream may well answer the one and refuse the other, and then the last good answer must still be had under its tag; as it
// must when the process is killed before the manifest is written. A tag that is new has no such answer, and waits for no disk.
func (c *Cache) checkTag(ctx context.Context, r *remote, repo Repository, tag string, fetch bool) (found, bool, error) {
	return share(ctx, c, "tag "+repo.String()+":"+tag, func(ctx context.Context) (found, error) {
		old, known := c.index.Tag(repo, tag)
		if known && c.fresh(repo, tag, old.Checked) {
			return found{rec: old}, nil // a flight that ended since the caller looked has asked
		}
		by := r
		if known && c.here(old.Manifest.Digest) {
			defer r.check()()
			by = r.sparingly()
		}
		f, err := c.askTag(ctx, by, repo, tag, old, known, fetch)
		if isForAll(ctx, err) {
			c.refused(repo, tag, known, err)
		}
		if err != nil {
			return found{}, err
		}
		f.rec.Checked, f.rec.Changed = c.opts.Now(), old.Changed
		if f.rec.Manifest.Digest != old.Manifest.Digest {
			f.rec.Changed = f.rec.Checked
			if known {
				err = c.memory.awaitWritten(ctx, f.rec.Manifest.Digest)
			}
		}
		if err != nil {
			return found{}, err
		}
		c.logged(c.index.SetTag(repo, tag, f.rec))
		c.pin(repo, tag, f.rec.Manifest)
		return f, nil
	})
}

// refused takes down that upstream does not serve a tag.
func (c *Cache) refused(repo Repository, tag string, known bool, answer error) {
	log := c.log.With(zap.String("repository", repo.String()), zap.String("tag", tag), zap.Error(answer))
	switch {
	case c.keeps(repo, answer):
		if known {
			log.Info("tag kept: upstream does not serve it any more")
		}
		return
	case known:
		log.Info("tag forgotten: upstream does not serve it any more")
	case !c.index.Temporary(): // the index that is not open may know it
		return
	}
	c.logged(c.index.DeleteTag(repo, tag))
}

// askTag asks upstream what a tag names: by HEAD if there is something to compare with or nobody wants the manifest,
// else by the GET that is going to be needed anyway. A refusal is asked for by GET, too, if somebody wants the manifest:
// the answer to a HEAD has no words for the client, and some registries refuse HEAD alone.
//
// Who asks by HEAD for a tag that is new here is going to GET what it names, with one round trip more. So if anything is read
// ahead at all, that is: HEAD is left for when the registry gives no manifest, but might tell of it.
func (c *Cache) askTag(ctx context.Context, r *remote, repo Repository, tag string, old index.Tag, known, fetch bool) (found, error) {
	if ahead, ok := c.ahead.willing(repo.Registry); ok && !known && !fetch {
		began := c.opts.Now()
		m, _, err := c.fetchManifest(ctx, ahead, repo, tag)
		switch {
		case err == nil:
			return found{index.Tag{Manifest: m.Descriptor}, m}, nil
		case isAnswer(err), isSilence(err):
			if isAbsence(err) && upstream.PresentedIn(ctx) == (upstream.Presented{}) { // here somebody wants to know
				c.absent.note(manifestThing(repo, tag), err, c.opts.Now(), false)
			}
			return found{}, r.note(began, err)
		}
	}
	if known || !fetch {
		desc, err := r.Resolve(ctx, repo.Name, tag, manifestTypes)
		if err != nil && !(isAnswer(err) && fetch) {
			return found{}, err
		}
		if err == nil && complete(desc) {
			c.logged(c.index.Confirm(repo, desc.Digest, index.Member{MediaType: desc.MediaType, Size: desc.Size}))
			if !known || desc.Digest == old.Manifest.Digest || c.here(desc.Digest) {
				return found{rec: index.Tag{Manifest: desc}}, nil
			}
			m, _, err := c.fetchManifest(ctx, r, repo, desc.Digest.String())
			if err != nil {
				// Whatever upstream says of the manifest, it has just said that there is the tag.
				return found{}, fmt.Errorf("%s moved to %s, which upstream does not give: %v", tag, desc.Digest, err)
			}
			return found{index.Tag{Manifest: desc}, m}, nil
		}
	}
	m, _, err := c.fetchManifest(ctx, r, repo, tag)
	if err != nil {
		return found{}, err
	}
	return found{index.Tag{Manifest: m.Descriptor}, m}, nil
}
