package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/entrepot/entrepot/e2e/bench/load"
)

const (
	// aLittleLater is when a system that has nothing to do has come to rest.
	aLittleLater = 2 * time.Second
	// timedRequests are enough for the hundredth that is slowest to be two hundred.
	timedRequests, quickTimedRequests = 20_000, 5_000
	// The blobs that data directories are filled with belong to millionRepository, and are of stockedSize.
	millionRepository        = "library/million"
	aMillionBlobs, someBlobs = 1_000_000, 100_000
	stockedSize              = 4 << 10
)

// starts are how the program comes up.
var starts = []workload{
	{
		name:    "idle",
		what:    "a start on an empty store, and two seconds of nothing",
		systems: caches,
		columns: []metric{ready, resident},
		goals:   []goal{most(ready, 0.3), most(resident, 35)},
		long:    true,
		run: func(t *trial) (values, error) {
			if err := t.start(); err != nil {
				return nil, err
			}
			if err := t.pause(aLittleLater); err != nil {
				return nil, err
			}
			n, err := t.process.Memory()
			return values{ready: t.ready.Seconds(), resident: inMiB(n)}, err
		},
	},
	{
		name:    "restart",
		what:    "a start on a hundred thousand blobs, after a kill in the middle of cold pulls",
		systems: []string{mirror},
		columns: []metric{ready, resident},
		goals:   []goal{most(ready, 2)},
		run:     afterAKill,
	},
	{
		name: "million",
		what: "a start on a million blobs; then a manifest that is in the cache, and HEAD of random blobs, 20 000 times each on one " +
			"connection, the manifest beside an empty cache's",
		systems: []string{mirror},
		columns: []metric{ready, resident, manifestMedian, manifestSlowest, ofEmpty, headMedian, headSlowest, upstreamAsked},
		goals:   []goal{most(ready, 2), most(resident, 150), most(ofEmpty, 1.5), most(upstreamAsked, 0)},
		long:    true,
		run:     aMillion,
	},
	{
		name: "eviction",
		what: "a start on a million blobs under a cap that half of them fit: what it takes to evict the others, " +
			"and a manifest that is in the cache meanwhile, 20 000 times",
		systems: []string{mirror},
		columns: []metric{evictedRate, evicted, manifestMedian, manifestSlowest, peak},
		long:    true,
		run:     evictHalf,
	},
}

// aMillion measures a start on many blobs just after one on none.
func aMillion(t *trial) (values, error) {
	count := int(t.pick(aMillionBlobs, someBlobs))
	data, err := t.stock(t.ctx, count)
	if err != nil {
		return nil, err
	}
	if err := t.start(); err != nil {
		return nil, err
	}
	empty, err := t.manifestTimes()
	if err != nil {
		return nil, err
	}
	if err := t.end(); err != nil {
		return nil, err
	}
	t.place.data = data
	if err := t.start(); err != nil {
		return nil, err
	}
	if err := t.settle(); err != nil {
		return nil, err
	}
	memory, err := t.process.Memory()
	if err != nil {
		return nil, err
	}
	full, err := t.manifestTimes()
	if err != nil {
		return nil, err
	}
	before := t.sent()
	heads, err := t.headTimes(count)
	return values{
		ready: t.ready.Seconds(), resident: inMiB(memory),
		manifestMedian: full.at(0.5), manifestSlowest: full.at(0.99), ofEmpty: full.at(0.99) / empty.at(0.99),
		headMedian: heads.at(0.5), headSlowest: heads.at(0.99),
		upstreamAsked: float64(t.sent().Since(before).Requests()),
	}, err
}

// times are how long answers took, from the shortest to the longest, in microseconds.
type times []float64

func (t times) at(share float64) float64 { return t[int(share*float64(len(t)-1))] }

// manifestTimes asks for one manifest that is in the cache.
func (t *trial) manifestTimes() (times, error) {
	i, err := t.small()
	if err != nil {
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
	request := manifestRequest(i, i.Manifest.Digest).Compile()
	return t.times(c, func() []byte { return request }, int64(len(i.Manifest.Body)))
}

// headTimes asks for blobs of the data directory at random.
func (t *trial) headTimes(count int) (times, error) {
	c, err := t.dial()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	random := rand.New(rand.NewPCG(1, 2))
	return t.times(c, func() []byte {
		name := sha256.Sum256([]byte(strconv.Itoa(random.IntN(count))))
		path := "/v2/" + millionRepository + "/blobs/sha256:" + hex.EncodeToString(name[:])
		return load.Request{Method: "HEAD", Path: path}.Compile()
	}, stockedSize)
}

// times asks one request after the other and looks at the clock. All answers are of the same length.
func (t *trial) times(c *load.Conn, next func() []byte, length int64) (times, error) {
	n := t.pick(timedRequests, quickTimedRequests)
	all := make(times, 0, n)
	for range n {
		request := next()
		start := time.Now()
		a, err := c.Ask(request)
		if err == nil && (a.Status != 200 || a.Length != length) {
			err = fmt.Errorf("%s: answer %+v, want %d bytes", request, a, length)
		}
		if err == nil {
			err = c.Body(nil, -1)
		}
		if err != nil {
			return nil, err
		}
		all = append(all, float64(time.Since(start))/float64(time.Microsecond))
	}
	slices.Sort(all)
	return all, nil
}
