package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/entrepot/entrepot/e2e/bench/load"
	"github.com/entrepot/entrepot/e2e/bench/origin"
)

const (
	slowRate   = 1_000_000
	slowPiece  = 16 << 10
	sharedLine = 100_000_000
	rangeSize  = 1 << 20
)

// parts are clients of one blob that don't read it like everybody else.
var parts = []workload{
	{
		name: "beside-slow",
		what: "a client reads a cold blob of 64 MiB beside one that takes 1 MB/s and has begun before; all of upstream's " +
			"connections share 100 MB/s",
		systems: every,
		columns: []metric{duration, firstByte, upstreamGets, peak},
		goals:   []goal{most(duration, 1.02).of(nobody), most(firstByte, 5), most(upstreamGets, 1).by(mirrorSingle)},
		line:    origin.Line{Total: sharedLine},
		run:     besideSlow,
	},
	{
		name:    "ranges",
		what:    "one client reads 200 random ranges of 1 MiB of a cold blob of 256 MiB, one after the other",
		systems: filled,
		columns: []metric{duration, firstRange, upstreamShare, cpu},
		goals: []goal{
			most(upstreamShare, 1.05), most(firstRange, 4).of(nobody), most(duration, 1.5).of(nobody),
		},
		run: ranges,
	},
}

// besideSlow times the fast one. The slow one is cut off when that is done.
func besideSlow(t *trial) (values, error) {
	i, err := t.store.Image("library/slow", false, t.pick(64<<20, 32<<20))
	if err != nil {
		return nil, err
	}
	if err := t.start(); err != nil {
		return nil, err
	}
	blob := i.Layers[0]
	request := load.Request{Path: i.BlobPath(blob.Digest)}
	ctx, cancel := context.WithCancel(t.ctx)
	defer cancel()
	began := make(chan struct{})
	var g errgroup.Group
	g.Go(func() error { return t.crawl(ctx, request, blob, began) })
	select {
	case <-began:
	case <-time.After(connectTimeout):
		cancel()
		return nil, errors.Join(fmt.Errorf("the slow client has no first byte after %v", connectTimeout), g.Wait())
	}
	var waited time.Duration
	p, err := t.phase(func() error {
		c, err := t.dial()
		if err != nil {
			return err
		}
		defer c.Close()
		waited, err = c.Get(request, blob.Check(0))
		return err
	})
	if err != nil {
		return nil, err
	}
	cancel()
	return values{
		duration:     p.seconds,
		firstByte:    milliseconds(waited),
		upstreamGets: float64(t.sent().Gets[origin.Layers]),
		peak:         inMiB(p.peak),
	}, g.Wait()
}

// crawl reads slowly until ctx ends, and closes began at the first byte. The system holds little of what it does not read.
func (t *trial) crawl(ctx context.Context, r load.Request, blob origin.Blob, began chan<- struct{}) error {
	c, err := load.Dial(ctx, t.address, 2*slowPiece)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Ask(r.Compile()); err != nil {
		return err
	}
	check := blob.Check(0)
	tick := time.NewTicker(time.Second * slowPiece / slowRate)
	defer tick.Stop()
	for piece := 0; ; piece++ {
		if err := c.Body(check, slowPiece); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("the slow client: %w", err)
		}
		if piece == 0 {
			close(began)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// ranges reads the same ranges in each run.
func ranges(t *trial) (values, error) {
	n := t.pick(200, 50)
	i, err := t.store.Image("library/ranges", false, t.pick(256<<20, 64<<20))
	if err != nil {
		return nil, err
	}
	if err := t.start(); err != nil {
		return nil, err
	}
	blob := i.Layers[0]
	random := rand.New(rand.NewPCG(1, 2))
	var firstTook time.Duration
	p, err := t.phase(func() error {
		start := time.Now()
		c, err := t.dial()
		if err != nil {
			return err
		}
		defer c.Close()
		for k := range n {
			from := random.Int64N(blob.Size - rangeSize)
			r := load.Request{Path: i.BlobPath(blob.Digest), Range: fmt.Sprintf("bytes=%d-%d", from, from+rangeSize-1)}
			if err := readRange(c, r, blob, from); err != nil {
				return err
			}
			if k == 0 {
				firstTook = time.Since(start)
			}
		}
		return nil
	})
	return values{
		duration:      p.seconds,
		firstRange:    milliseconds(firstTook),
		upstreamShare: float64(p.sent.Bytes[origin.Layers]) / float64(n*rangeSize),
		cpu:           p.cpu,
	}, err
}

// readRange reads one range. A system that answers with all of the blob has the client read all of it.
func readRange(c *load.Conn, r load.Request, blob origin.Blob, from int64) error {
	a, err := c.Ask(r.Compile())
	switch {
	case err != nil:
		return err
	case a.Status == http.StatusOK && a.Length == blob.Size:
		return c.Body(blob.Check(0), -1)
	case a.Status == http.StatusPartialContent && a.Length == rangeSize:
		return c.Body(blob.Check(from), -1)
	}
	return fmt.Errorf("%s of %s: answer %+v", r.Range, r.Path, a)
}
