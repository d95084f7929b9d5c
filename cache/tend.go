package cache

import (
	"context"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.uber.org/zap"

	"github.com/entrepot/entrepot/cache/index"
	"github.com/entrepot/entrepot/cache/keeper"
)

const (
	// tendEvery is how often the index is looked after: what came and went is listed in it, one that is not on disk yet is tried again.
	tendEvery = 5 * time.Second

	// sweepEvery is how often the index is rid of records of what is not kept any more. Such a record spares a HEAD upstream, so
	// that there is no hurry.
	sweepEvery = 24 * time.Hour

	// sweepRest is how long after the start, when there is most to do, or after a sweep that did not get through the next one may begin.
	sweepRest = 10 * time.Minute
)

// tend looks after the index and the pins, until the cache is closed.
func (c *Cache) tend() {
	every := time.NewTicker(tendEvery)
	defer every.Stop()
	rested := c.opts.Now()
	for {
		select {
		case <-every.C:
		case <-c.ctx.Done():
			return
		}
		temporary := c.index.Temporary()
		if err := c.index.Settle(); err != nil {
			c.log.Debug("index", zap.Error(err))
		}
		if temporary && !c.index.Temporary() {
			c.indexOpened()
			c.stalePins.Store(true) // its tags were not known before
		}
		c.recordEntrusted()
		if err := c.listChanges(); err != nil {
			c.log.Debug("index", zap.Error(err))
		}
		if c.stalePins.Swap(false) {
			c.repin()
		}
		if c.opts.Now().Sub(rested) >= sweepRest && c.sweepDue() {
			c.sweep()
			rested = c.opts.Now()
		}
	}
}

// indexOpened says so if the index, which is open now, was lost.
func (c *Cache) indexOpened() {
	switch c.index.Begun() {
	case "missing":
		if c.first {
			return
		}
		c.log.Error("the index was lost: it was begun anew; content is kept, freshness is lost")
		fallthrough
	case "damaged":
		c.keeper.Healed(keeper.DamagedIndex)
	}
}

// sweepDue reports whether the index is to be swept. The last time may be of an earlier run; one that is still to come is of a clock that
// was wrong. What is not counted yet, or what a disk in trouble does not find, is not gone.
func (c *Cache) sweepDue() bool {
	since := c.opts.Now().Sub(c.index.Swept())
	return (since >= sweepEvery || since < 0) && c.keeper.Counted() && !c.keeper.Troubled()
}

// sweep rids the index of records of what is not kept. What the keeper knows is kept, whatever the disk says of it. That a disk has
// got into trouble is looked for after it was asked, for it may have done so meanwhile.
func (c *Cache) sweep() {
	ctx, stop := context.WithCancel(c.ctx)
	defer stop()
	err := c.index.Sweep(ctx, c.opts.Now(), func(d digest.Digest) bool {
		if c.keeper.Knows(d) || c.here(d) || c.fills.InFlight(d) {
			return true
		}
		if c.keeper.Troubled() {
			stop()
		}
		return ctx.Err() != nil
	})
	if ctx.Err() == nil { // else it was stopped, which is told of elsewhere
		c.logged(err)
	}
}

// listChanges takes down in the index which content came and went. What there is no room for is tried again at the next call.
func (c *Cache) listChanges() error {
	changed, done := c.keeper.TakeChanges()
	err := c.index.List(changed)
	done(err == nil)
	return err
}

// pin has a manifest stay that a pinned tag names, and what it is made of.
func (c *Cache) pin(repo Repository, tag string, manifest ocispec.Descriptor) {
	if c.opts.Pinned == nil || !c.opts.Pinned(repo, tag) || c.keeper.Pinned(manifest.Digest) {
		return
	}
	c.stalePins.Store(true) // what the tag named before need not stay
	all := make(map[digest.Digest]bool)
	c.made(all, manifest)
	var content []digest.Digest
	for d := range all {
		content = append(content, d)
	}
	c.keeper.Pin(content)
}

// pinNames has what a manifest is made of stay, if the manifest itself is to. It is called once repin can find the manifest.
func (c *Cache) pinNames(d digest.Digest, names document) {
	if c.opts.Pinned == nil || !c.keeper.Pinned(d) {
		return
	}
	var content []digest.Digest
	for _, desc := range names.named() {
		content = append(content, desc.Digest)
	}
	c.keeper.Pin(content)
	c.stalePins.Store(true) // repin may have looked before this manifest came, and be about to say so
}

// repin finds anew what is to stay.
func (c *Cache) repin() {
	if c.opts.Pinned == nil {
		return
	}
	all := make(map[digest.Digest]bool)
	err := c.index.Tags(func(repo Repository, tag string, rec index.Tag) bool {
		if c.opts.Pinned(repo, tag) {
			c.made(all, rec.Manifest)
		}
		return c.ctx.Err() == nil
	})
	if err != nil || c.ctx.Err() != nil {
		c.logged(err)
		return // what stays so far does
	}
	c.keeper.Repin(all)
}

// made adds a manifest and all that it is made of, as far as that is kept.
func (c *Cache) made(all map[digest.Digest]bool, manifest ocispec.Descriptor) {
	if all[manifest.Digest] {
		return
	}
	all[manifest.Digest] = true
	m, ok := c.storedManifest(context.Background(), manifest)
	if !ok {
		return
	}
	for _, image := range m.names.images {
		c.made(all, image)
	}
	for _, group := range [][]ocispec.Descriptor{m.names.config, m.names.layers} {
		for _, desc := range group {
			all[desc.Digest] = true
		}
	}
}
