package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/entrepot/entrepot/e2e/bench/load"
	"github.com/entrepot/entrepot/e2e/bench/origin"
)

// accept is what clients accept of manifests.
const accept = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, " +
	"application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json"

// layersAtOnce is what dockerd and containerd fetch of an image at the same time.
const layersAtOnce = 3

// exactly is an io.Writer that refuses what is not the rest of a document.
type exactly struct{ rest []byte }

func (e *exactly) Write(p []byte) (int, error) {
	if !bytes.HasPrefix(e.rest, p) {
		return 0, fmt.Errorf("a wrong document: %q", p)
	}
	e.rest = e.rest[len(p):]
	return len(p), nil
}

func manifestRequest(i origin.Image, reference string) load.Request {
	return load.Request{Path: i.ManifestPath(reference), Accept: accept}
}

// pull fetches an image by its tag as dockerd and containerd do: the ping, HEAD of the tag, the index, the manifest, the
// configuration, and then the layers, three at once. Every byte is compared with what is right. It returns the time from
// its beginning to the first byte of a layer.
func (t *trial) pull(ctx context.Context, i origin.Image) (firstLayerByte time.Duration, err error) {
	start := time.Now()
	c, err := load.Dial(ctx, t.address, 0)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	head := manifestRequest(i, i.Tag)
	head.Method = "HEAD"
	if _, err := c.Get(load.Request{Path: "/v2/"}, nil); err != nil {
		return 0, err
	}
	if a, err := c.Ask(head.Compile()); err != nil {
		return 0, err
	} else if a.Status != http.StatusOK {
		return 0, fmt.Errorf("HEAD %s: status %d", head.Path, a.Status)
	}
	for _, d := range []origin.Document{i.Index, i.Manifest} {
		if _, err := c.Get(manifestRequest(i, d.Digest), &exactly{d.Body}); err != nil {
			return 0, err
		}
	}
	if _, err := c.Get(load.Request{Path: i.BlobPath(i.Config.Digest)}, &exactly{i.Config.Body}); err != nil {
		return 0, err
	}
	return t.layers(ctx, start, c, i)
}

// layers fetches the layers, on c and two more connections, which take the next when they are done with one.
func (t *trial) layers(ctx context.Context, start time.Time, c *load.Conn, i origin.Image) (firstByte time.Duration, err error) {
	next := make(chan origin.Blob, len(i.Layers))
	for _, l := range i.Layers {
		next <- l
	}
	close(next)
	firsts := make(chan time.Duration, len(i.Layers))
	g, ctx := errgroup.WithContext(ctx)
	fetch := func(c *load.Conn) error {
		for l := range next {
			asked := time.Since(start)
			first, err := c.Get(load.Request{Path: i.BlobPath(l.Digest)}, l.Check(0))
			if err != nil {
				return err
			}
			firsts <- asked + first
		}
		return nil
	}
	g.Go(func() error { return fetch(c) })
	for range min(layersAtOnce, len(i.Layers)) - 1 {
		g.Go(func() error {
			c, err := load.Dial(ctx, t.address, 0)
			if err != nil {
				return err
			}
			defer c.Close()
			return fetch(c)
		})
	}
	if err := g.Wait(); err != nil {
		return 0, err
	}
	close(firsts)
	firstByte = time.Hour
	for f := range firsts {
		firstByte = min(firstByte, f)
	}
	return firstByte, nil
}

// crowd has n clients pull at once and returns what each waited for its first layer byte, in milliseconds.
func (t *trial) crowd(n int, i origin.Image) ([]float64, error) {
	firsts := make([]float64, n)
	g, ctx := errgroup.WithContext(t.ctx)
	for client := range n {
		g.Go(func() error {
			first, err := t.pull(ctx, i)
			firsts[client] = milliseconds(first)
			return err
		})
	}
	return firsts, g.Wait()
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
