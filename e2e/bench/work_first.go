package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/entrepot/entrepot/e2e/bench/load"
	"github.com/entrepot/entrepot/e2e/bench/origin"
)

// first are pulls that are given up at the first byte of a layer. Upstream gives each connection so much that the first
// byte does not wait, and so little that what a system goes on with behind the client does not weigh.
var first = []workload{
	firstBytes("first-byte-1M", "1 MiB", 1<<20, 20),
	firstBytes("first-byte-4G", "4 GiB", 4<<30, 4),
}

func firstBytes(name, size string, layer int64, times int) workload {
	return workload{
		name: name,
		what: fmt.Sprintf("a new client asks for the manifest of a cold image by digest, and then for its one layer of %s, and "+
			"hangs up at its first byte; median of %d images; upstream gives each connection 20 MB/s", size, times),
		systems: filled,
		columns: []metric{firstByte},
		goals:   []goal{most(firstByte, 1.5).of(nobody)},
		line:    origin.Line{PerConnection: perConnection},
		run: func(t *trial) (values, error) {
			if err := t.start(); err != nil {
				return nil, err
			}
			var all []float64
			for n := range times {
				i, err := t.store.Image(fmt.Sprintf("library/%s-%d", strings.ToLower(name), n), true, layer)
				if err != nil {
					return nil, err
				}
				took, err := t.glance(i)
				if err != nil {
					return nil, err
				}
				all = append(all, milliseconds(took))
			}
			return values{firstByte: median(all)}, nil
		},
	}
}

// glance reads the first byte of an image's layer and hangs up.
func (t *trial) glance(i origin.Image) (time.Duration, error) {
	start := time.Now()
	c, err := t.dial()
	if err != nil {
		return 0, err
	}
	if _, err := c.Get(manifestRequest(i, i.Manifest.Digest), &exactly{i.Manifest.Body}); err != nil {
		return 0, errors.Join(err, c.Close())
	}
	l := i.Layers[0]
	a, err := c.Ask(load.Request{Path: i.BlobPath(l.Digest)}.Compile())
	if err == nil && (a.Status != 200 || a.Length != l.Size) {
		err = fmt.Errorf("%s: answer %+v", i.BlobPath(l.Digest), a)
	}
	if err == nil {
		err = c.Body(l.Check(0), 1)
	}
	return time.Since(start), errors.Join(err, c.Close())
}
