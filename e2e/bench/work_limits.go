package main

import (
	"context"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/entrepot/entrepot/e2e/bench/load"
	"github.com/entrepot/entrepot/e2e/bench/origin"
)

// limits are blobs that wait for bandwidth, and manifests that don't.
var limits = []workload{
	limited("limited-in", "64 clients pull 64 distinct cold blobs, which come from upstream at 20 MB/s all together",
		limit{"UPSTREAM", 20, false}, (*trial).coldBlobs),
	limited("limited-out", "64 clients read a blob that is in the cache, and all answers together get 100 MB/s",
		limit{"CLIENTS", 100, true}, (*trial).warmBlob),
}

// limit is one of entrepot's.
type limit struct {
	setting string
	// rate is in MB/s. Little of the machine is needed for it.
	rate int
	// ofManifests is whether these count too.
	ofManifests bool
}

func limited(name, what string, l limit, blobs func(*trial) ([]origin.Image, error)) workload {
	return workload{
		name:    name,
		what:    what + "; meanwhile a manifest that is in the cache, 20 000 times on one connection, beside before",
		systems: []string{mirror},
		columns: []metric{ofIdle, manifestMedian, manifestSlowest, ofLimit, upstreamAsked},
		goals:   []goal{most(ofIdle, 2), least(ofLimit, 0.95), most(ofLimit, 1.05)},
		run: func(t *trial) (values, error) {
			t.place.settings = []string{"ENTREPOT_BANDWIDTH_" + l.setting + "=" + strconv.Itoa(l.rate) + "MB/s"}
			if err := t.start(); err != nil {
				return nil, err
			}
			images, err := blobs(t)
			if err != nil {
				return nil, err
			}
			return t.besideBlobs(images, l)
		},
	}
}

// coldBlobs are images whose layers nobody has asked for, as many as there are clients, of which none is done in time.
func (t *trial) coldBlobs() ([]origin.Image, error) {
	var images []origin.Image
	for k := range manyBlobs {
		i, err := t.store.Image(fmt.Sprintf("library/limited-%d", k), true, 64<<20)
		if err != nil {
			return nil, err
		}
		images = append(images, i)
	}
	return images, nil
}

// warmBlob is an image whose layer is in the cache, for each client.
func (t *trial) warmBlob() ([]origin.Image, error) {
	i, err := t.onDisk("library/limited", 64<<20)
	if err != nil {
		return nil, err
	}
	if err := t.fetch(i); err != nil {
		return nil, err
	}
	images := make([]origin.Image, manyBlobs)
	for k := range images {
		images[k] = i
	}
	return images, t.settle()
}

// besideBlobs measures what a manifest takes while nothing else is done, and while each of the images' layers is read.
func (t *trial) besideBlobs(images []origin.Image, l limit) (values, error) {
	idle, err := t.manifestTimes()
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(t.ctx)
	defer stop()
	g, ctx := errgroup.WithContext(ctx)
	var came counter
	begun := make(chan struct{}, len(images))
	for _, i := range images {
		g.Go(func() error {
			err := t.readOn(ctx, i, &came, begun)
			if ctx.Err() != nil {
				return nil // it was told to stop, or another one failed
			}
			return err
		})
	}
	for range images {
		select {
		case <-begun:
		case <-ctx.Done():
			return nil, g.Wait()
		}
	}
	asked, before, start := t.sent(), came.Load(), time.Now()
	busy, err := t.manifestTimes()
	took, after := time.Since(start), came.Load()
	stop()
	if failed := g.Wait(); err == nil {
		err = failed
	}
	if err != nil {
		return nil, err
	}
	sent := after - before
	if l.ofManifests {
		i, err := t.small()
		if err != nil {
			return nil, err
		}
		sent += int64(len(busy) * len(i.Manifest.Body))
	}
	return values{
		ofIdle: busy.at(0.99) / idle.at(0.99), manifestMedian: busy.at(0.5), manifestSlowest: busy.at(0.99),
		ofLimit:       float64(sent) / took.Seconds() / float64(l.rate*1_000_000),
		upstreamAsked: float64(t.sent().Since(asked).Requests()),
	}, nil
}

// readOn reads an image's layer, and says when the first of it is there.
func (t *trial) readOn(ctx context.Context, i origin.Image, came *counter, begun chan<- struct{}) error {
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
	if err == nil {
		err = c.Body(came, 1)
	}
	if err != nil {
		return err
	}
	begun <- struct{}{}
	if err := c.Body(came, -1); err != nil {
		return err
	}
	return fmt.Errorf("%s came to its end", i.BlobPath(l.Digest))
}

// counter is a writer that counts.
type counter struct{ atomic.Int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.Add(int64(len(p)))
	return len(p), nil
}
