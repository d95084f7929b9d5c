package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/entrepot/entrepot/e2e/bench/load"
	"github.com/entrepot/entrepot/e2e/bench/origin"
	"github.com/entrepot/entrepot/e2e/testbed"
)

// stock returns a data directory with so many blobs, filling one if that has not been done yet.
func (s *scene) stock(ctx context.Context, count int) (string, error) {
	if data, ok := s.stocks[count]; ok {
		return data, nil
	}
	program, err := s.bed.BuildBench(ctx, "million")
	if err != nil {
		return "", err
	}
	dir, err := s.bed.Subdir("stock")
	if err != nil {
		return "", err
	}
	data := filepath.Join(dir, "data")
	if _, err := testbed.Run(ctx, nil, program, data, "docker.io", millionRepository, strconv.Itoa(count)); err != nil {
		return "", err
	}
	s.stocks[count] = data
	return data, nil
}

// afterAKill measures a start on what a killed process left.
func afterAKill(t *trial) (_ values, err error) {
	if t.place.data, err = t.stock(t.ctx, someBlobs); err != nil {
		return nil, err
	}
	if err := t.start(); err != nil {
		return nil, err
	}
	i, err := t.store.Image("library/killed", true, 64<<20, 64<<20, 64<<20, 64<<20)
	if err != nil {
		return nil, err
	}
	for _, l := range i.Layers {
		if err := t.begin(i, l); err != nil {
			return nil, err
		}
	}
	if err := t.process.Kill(); err != nil {
		return nil, err
	}
	if err := t.start(); err != nil {
		return nil, err
	}
	n, err := t.process.Memory()
	return values{ready: t.ready.Seconds(), resident: inMiB(n)}, err
}

// begin reads the first megabyte of a layer and hangs up: the rest is fetched behind that.
func (t *trial) begin(i origin.Image, l origin.Blob) error {
	c, err := t.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	a, err := c.Ask(load.Request{Path: i.BlobPath(l.Digest)}.Compile())
	if err == nil && (a.Status != 200 || a.Length != l.Size) {
		err = fmt.Errorf("%s: answer %+v", i.BlobPath(l.Digest), a)
	}
	if err != nil {
		return err
	}
	return c.Body(l.Check(0), 1<<20)
}

const (
	evictedTotal = "entrepot_cache_evicted_total"
	// lookEvery is how often the count of what was evicted is asked for, and evictedWithin bounds the wait for its end.
	lookEvery, evictedWithin = 50 * time.Millisecond, 5 * time.Minute
	// evictedAll is how many looks in a row see nothing more evicted when all is done, evictedNone when nothing will be.
	evictedAll, evictedNone = 40, 600
)

// evictHalf measures eviction alone: nothing is fetched.
func evictHalf(t *trial) (_ values, err error) {
	count := int(t.pick(aMillionBlobs, someBlobs))
	if t.place.data, err = t.stock(t.ctx, count); err != nil {
		return nil, err
	}
	// The next who wants so many makes them anew.
	delete(t.stocks, count)
	defer func() { err = errors.Join(err, os.RemoveAll(filepath.Dir(t.place.data))) }()
	t.place.settings = []string{fmt.Sprintf("ENTREPOT_CACHE_MAX_SIZE=%dKiB", count/2*stockedSize>>10)}
	if err := t.start(); err != nil {
		return nil, err
	}
	var (
		v         values
		manifests times
		g         errgroup.Group
	)
	g.Go(func() (err error) { v, err = t.evictions(); return err })
	g.Go(func() (err error) { manifests, err = t.manifestTimes(); return err })
	if err := g.Wait(); err != nil {
		return nil, err
	}
	n, err := t.process.PeakMemory()
	maps.Copy(v, values{manifestMedian: manifests.at(0.5), manifestSlowest: manifests.at(0.99), peak: inMiB(n)})
	return v, err
}

// evictions looks until nothing more is evicted, and tells the rate from the first to the last.
func (t *trial) evictions() (values, error) {
	var (
		begun, last  time.Time
		first, now   float64
		still, looks int
		tick         = time.NewTicker(lookEvery)
		late         = time.NewTimer(evictedWithin)
	)
	defer tick.Stop()
	defer late.Stop()
	for now == 0 && looks < evictedNone || now > 0 && still < evictedAll {
		select {
		case <-tick.C:
		case <-late.C:
			return nil, fmt.Errorf("after %v %v are evicted, and there is no end", evictedWithin, now)
		case <-t.ctx.Done():
			return nil, t.ctx.Err()
		}
		m, err := testbed.Scrape(t.ctx, t.admin)
		if err != nil {
			return nil, err
		}
		looks++
		still++
		n := m.Of(evictedTotal).Sum()
		if n > now && now == 0 {
			first, begun = n, time.Now()
		}
		if n > now {
			now, last, still = n, time.Now(), 0
		}
	}
	if now == 0 {
		return nil, errors.New("nothing is evicted")
	}
	return values{evicted: now, evictedRate: (now - first) / last.Sub(begun).Seconds()}, nil
}
