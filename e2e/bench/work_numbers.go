package main

import (
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/entrepot/entrepot/e2e/bench/load"
	"github.com/entrepot/entrepot/e2e/bench/origin"
)

const (
	// manyBlobs at once is what a cluster asks for after an upgrade.
	manyBlobs = 64
	// largeRead is what is read of each blob of many-large.
	largeRead = 32 << 20
)

// numbers are many blobs at once.
var numbers = []workload{
	{
		name:    "many",
		what:    "64 clients pull 64 distinct cold blobs of 32 MiB at once",
		systems: append([]string{limitFill}, cold...),
		columns: []metric{cpu, duration, peak, upstreamShare},
		goals:   []goal{most(cpu, 1.3).of(peerNginx), most(peak, 64)},
		run: func(t *trial) (values, error) {
			p, all, err := t.many("library/many", false, t.pick(32<<20, 8<<20), -1)
			return values{
				cpu: p.cpu, duration: p.seconds, peak: inMiB(p.peak), upstreamShare: float64(p.sent.Bytes[origin.Layers]) / float64(all),
			}, err
		},
	},
	{
		name:    "many-large",
		what:    "64 clients read the first 32 MiB of 64 distinct cold blobs of 256 MiB at once",
		systems: caches,
		columns: []metric{peak, duration},
		goals:   []goal{most(peak, 64)},
		long:    true,
		// So much that the clients wait for the system, and so little that it has nowhere near all of it when they stop.
		line: origin.Line{Total: 1_000_000_000},
		run: func(t *trial) (values, error) {
			p, _, err := t.many("library/many-large", true, 256<<20, t.pick(largeRead, largeRead/4))
			return values{peak: inMiB(p.peak), duration: p.seconds}, err
		},
	},
}

// many has as many clients read the first n bytes of a blob each, all of it if n is negative. What the system does after
// that is measured only if the blobs were read to the end. It returns the size of all blobs too.
func (t *trial) many(prefix string, endless bool, size, n int64) (p phase, all int64, err error) {
	var images []origin.Image
	for k := range manyBlobs {
		i, err := t.store.Image(fmt.Sprintf("%s-%d", prefix, k), endless, size)
		if err != nil {
			return p, 0, err
		}
		images = append(images, i)
	}
	if err := t.start(); err != nil {
		return p, 0, err
	}
	work := func() error {
		g, ctx := errgroup.WithContext(t.ctx)
		for _, i := range images {
			g.Go(func() error {
				c, err := load.Dial(ctx, t.address, 0)
				if err != nil {
					return err
				}
				defer c.Close()
				if _, err := c.Get(manifestRequest(i, i.Manifest.Digest), &exactly{i.Manifest.Body}); err != nil {
					return err
				}
				l := i.Layers[0]
				a, err := c.Ask(load.Request{Path: i.BlobPath(l.Digest)}.Compile())
				if err == nil && (a.Status != 200 || a.Length != l.Size) {
					err = fmt.Errorf("%s: answer %+v", i.BlobPath(l.Digest), a)
				}
				if err != nil {
					return err
				}
				return c.Body(l.Check(0), n)
			})
		}
		return g.Wait()
	}
	if n < 0 {
		p, err = t.phase(work)
	} else {
		p, err = t.phaseUntil(work, func() error { return nil })
	}
	return p, manyBlobs * size, err
}
