package main

import (
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/entrepot/entrepot/e2e/bench/load"
	"github.com/entrepot/entrepot/e2e/bench/origin"
)

const (
	// hotConnections are kept alive, as a load balancer's and a node's are.
	hotConnections = 16
	// hotRequests take half a second of the cheapest system.
	hotRequests, quickHotRequests = 32_000, 8_000
	// warmUp is what they ask first, so that nothing is done for the first time.
	warmUp = 1_600
)

// hot are workloads on what is in the cache.
var hot = []workload{
	{
		name:    "manifest-digest",
		what:    "a manifest of 6 layers that is in the cache, by digest; 32 000 requests on 16 connections",
		systems: warm,
		columns: []metric{cpuPerRequest, duration, upstreamAsked, peak},
		goals:   []goal{most(cpuPerRequest, 1.6).of(peerNginx), most(upstreamAsked, 0)},
		run: func(t *trial) (values, error) {
			return t.requests(func(i origin.Image) load.Request { return manifestRequest(i, i.Manifest.Digest) })
		},
	},
	{
		name:    "manifest-tag",
		what:    "the same by tag, within the time that tags are fresh",
		systems: warm,
		columns: []metric{cpuPerRequest, duration, upstreamAsked, peak},
		goals:   []goal{most(cpuPerRequest, 1.6).of(peerNginx), most(upstreamAsked, 0)},
		run: func(t *trial) (values, error) {
			return t.requests(func(i origin.Image) load.Request { return manifestRequest(i, i.ManifestTag) })
		},
	},
	{
		name:    "small-blob",
		what:    "a blob of 16 KiB that is in the cache; 32 000 requests on 16 connections",
		systems: warm,
		columns: []metric{cpuPerRequest, duration, upstreamAsked, peak},
		goals:   []goal{most(cpuPerRequest, 1.8).of(peerNginx), most(cpuPerRequest, 1.2).of(limitFloor)},
		run: func(t *trial) (values, error) {
			return t.requests(func(i origin.Image) load.Request { return load.Request{Path: i.BlobPath(i.Layers[0].Digest)} })
		},
	},
	large("warm-1", "a blob of 256 MiB that is in the cache, read 8 times by one client", 1, 8),
	large("warm-16", "a blob of 256 MiB that is in the cache, read by 16 clients at once", 16, 1),
}

func large(name, what string, readers, passes int) workload {
	return workload{
		name:    name,
		what:    what,
		systems: warm,
		columns: []metric{cpuPerGB, throughput, duration, peak},
		goals:   []goal{most(cpuPerGB, 1.1).of(limitStatic), least(throughput, 0.95).of(limitStatic)},
		run:     func(t *trial) (values, error) { return t.reads(readers, passes) },
	}
}

func (t *trial) small() (origin.Image, error) {
	const layer = 16 << 10
	return t.onDisk("library/small", layer, layer, layer, layer, layer, layer)
}

// fetch gets all of an image once, manifests by tag and by digest, and compares every byte.
func (t *trial) fetch(i origin.Image) error {
	c, err := t.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	for _, reference := range []string{i.ManifestTag, i.Manifest.Digest} {
		if _, err := c.Get(manifestRequest(i, reference), &exactly{i.Manifest.Body}); err != nil {
			return err
		}
	}
	if _, err := c.Get(load.Request{Path: i.BlobPath(i.Config.Digest)}, &exactly{i.Config.Body}); err != nil {
		return err
	}
	for _, l := range i.Layers {
		if _, err := c.Get(load.Request{Path: i.BlobPath(l.Digest)}, l.Check(0)); err != nil {
			return err
		}
	}
	return nil
}

// requests asks for the same part of an image over and over, when the whole of it is in the cache: a mirror may well look
// whether it is.
func (t *trial) requests(part func(origin.Image) load.Request) (values, error) {
	i, err := t.small()
	if err != nil {
		return nil, err
	}
	if err := t.start(); err != nil {
		return nil, err
	}
	if err := t.fetch(i); err != nil {
		return nil, err
	}
	c, err := t.dial()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	r := part(i)
	a, err := c.Ask(r.Compile())
	if err != nil {
		return nil, err
	}
	if err := t.repeat(r, a, warmUp); err != nil {
		return nil, err
	}
	if err := t.settle(); err != nil {
		return nil, err
	}
	n := t.pick(hotRequests, quickHotRequests)
	if t.system.name == peerRegistry {
		n /= 8 // it takes fifty times as long for one
	}
	p, err := t.phase(func() error { return t.repeat(r, a, n) })
	return values{
		cpuPerRequest: p.cpu / float64(n) * 1e6,
		duration:      p.seconds,
		upstreamAsked: float64(p.sent.Requests()),
		peak:          inMiB(p.peak),
	}, err
}

// repeat asks n times, on all connections, each time for the same answer.
func (t *trial) repeat(r load.Request, want load.Answer, n int64) error {
	request := r.Compile()
	var asked atomic.Int64
	g, ctx := errgroup.WithContext(t.ctx)
	for range hotConnections {
		g.Go(func() error {
			c, err := load.Dial(ctx, t.address, 0)
			if err != nil {
				return err
			}
			defer c.Close()
			for asked.Add(1) <= n {
				a, err := c.Ask(request)
				if err != nil {
					return err
				}
				if a != want {
					return fmt.Errorf("%s: answer %+v, want %+v", r.Path, a, want)
				}
				if err := c.Body(nil, -1); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// reads reads one large blob. Every byte is compared before the measurement, and lengths are checked during it.
func (t *trial) reads(readers, passes int) (values, error) {
	i, err := t.onDisk("library/large", t.pick(256<<20, 64<<20))
	if err != nil {
		return nil, err
	}
	if err := t.start(); err != nil {
		return nil, err
	}
	blob := i.Layers[0]
	request := load.Request{Path: i.BlobPath(blob.Digest)}
	read := func(check bool) error {
		c, err := t.dial()
		if err != nil {
			return err
		}
		defer c.Close()
		if check {
			_, err := c.Get(request, blob.Check(0))
			return err
		}
		for range passes {
			if _, err := c.Get(request, nil); err != nil {
				return err
			}
		}
		return nil
	}
	for range 2 { // the second is from the cache
		if err := read(true); err != nil {
			return nil, err
		}
		if err := t.settle(); err != nil {
			return nil, err
		}
	}
	p, err := t.phase(func() error {
		var g errgroup.Group
		for range readers {
			g.Go(func() error { return read(false) })
		}
		return g.Wait()
	})
	gigabytes := float64(blob.Size) * float64(readers*passes) / 1e9
	return values{
		cpuPerGB: p.cpu / gigabytes, throughput: gigabytes / p.seconds, duration: p.seconds, peak: inMiB(p.peak),
	}, err
}

func inMiB(n int64) float64 { return float64(n) / (1 << 20) }

// pause lets time pass, such as that in which a tag is fresh.
func (t *trial) pause(d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-t.ctx.Done():
		return t.ctx.Err()
	}
}
