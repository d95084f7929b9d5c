package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/entrepot/entrepot/e2e/bench/origin"
)

const (
	crowdSize = 32
	// farAway is another continent, farTTL short enough to wait for its end.
	farAway = 40 * time.Millisecond
	farTTL  = time.Second
)

// images are pulls of whole images.
var images = []workload{
	{
		name:    "cold-image",
		what:    "one client pulls a cold image of 600 MiB in 6 layers",
		systems: filled,
		columns: []metric{duration, cpu, peak, upstreamShare, firstByte},
		goals:   []goal{most(cpu, 1.4).of(peerNginx), most(duration, 1.1).of(peerNginx)},
		run:     func(t *trial) (values, error) { return t.coldImage("library/cold", 1, t.pick(100<<20, 20<<20)) },
	},
	{
		name:    "herd",
		what:    "32 clients at once pull a cold image of 120 MiB in 6 layers",
		systems: append([]string{peerSquid}, every...),
		columns: []metric{duration, firstByte, cpuPerGB, upstreamShare, peak},
		goals: []goal{
			most(upstreamShare, 1.001),
			most(firstByte, 1).of(peerSquid).or(27),
			most(duration, 0.8).of(peerNginx),
			most(cpuPerGB, 1.1).of(peerNginx),
		},
		run: func(t *trial) (values, error) { return t.coldImage("library/herd", crowdSize, t.pick(20<<20, 5<<20)) },
	},
	{
		name:    "capped-1",
		what:    "one client pulls a cold image of 120 MiB in 6 layers; upstream gives each connection 20 MB/s",
		systems: every,
		columns: []metric{duration, upstreamShare, peak},
		goals:   []goal{most(duration, 0.35).of(nobody)},
		line:    origin.Line{PerConnection: perConnection},
		run:     func(t *trial) (values, error) { return t.coldImage("library/herd", 1, t.pick(20<<20, 5<<20)) },
	},
	{
		name:    "capped-32",
		what:    "the same by 32 clients at once, beside one direct pull",
		systems: every,
		columns: []metric{duration, upstreamShare, firstByte, peak},
		goals:   []goal{most(duration, 0.5).of(nobody)},
		line:    origin.Line{PerConnection: perConnection},
		run: func(t *trial) (values, error) {
			clients := crowdSize
			if t.system.name == nobody {
				clients = 1
			}
			return t.coldImage("library/herd", clients, t.pick(20<<20, 5<<20))
		},
	},
	{
		name: "far-cold",
		what: "one client pulls a small cold image in 5 layers by its tag; each of upstream's answers takes 40 ms to begin, " +
			"and connecting nothing",
		systems: append([]string{mirrorLayers}, cold...),
		columns: []metric{duration, upstreamAsked},
		goals:   []goal{most(duration, 0.85).of(nobody), most(duration, 0.65).of(nobody).by(mirrorLayers)},
		line:    origin.Line{Away: farAway},
		run: func(t *trial) (values, error) {
			i, err := t.far()
			if err != nil {
				return nil, err
			}
			if err := t.start(); err != nil {
				return nil, err
			}
			p, err := t.pulled(i)
			return values{duration: p.seconds, upstreamAsked: float64(p.sent.Requests())}, err
		},
	},
	{
		name:    "far-warm",
		what:    "the same, warm, while the tag is fresh; and once it is not (fresh for 1 s)",
		systems: cold,
		columns: []metric{duration, upstreamAsked, requestsLater},
		goals:   []goal{most(upstreamAsked, 0), most(requestsLater, 1)},
		line:    origin.Line{Away: farAway},
		tagTTL:  farTTL,
		long:    true,
		run:     farWarm,
	},
}

func (t *trial) far() (origin.Image, error) {
	const layer = 64 << 10
	return t.store.Image("library/far", false, layer, layer, layer, layer, layer)
}

// pulled measures one client's pull.
func (t *trial) pulled(i origin.Image) (phase, error) {
	return t.phase(func() error {
		_, err := t.pull(t.ctx, i)
		return err
	})
}

// coldImage has clients pull an image of six layers that nobody has asked for yet.
func (t *trial) coldImage(repository string, clients int, layer int64) (values, error) {
	i, err := t.store.Image(repository, false, layer, layer, layer, layer, layer, layer)
	if err != nil {
		return nil, err
	}
	if err := t.start(); err != nil {
		return nil, err
	}
	var firsts []float64
	p, err := t.phase(func() (err error) {
		firsts, err = t.crowd(clients, i)
		return err
	})
	return values{
		duration:      p.seconds,
		firstByte:     median(firsts),
		cpu:           p.cpu,
		cpuPerGB:      p.cpu / (float64(i.Bytes()) * float64(clients) / 1e9),
		upstreamShare: float64(p.sent.Bytes[origin.Layers]) / float64(i.Bytes()),
		upstreamAsked: float64(p.sent.Requests()),
		peak:          inMiB(p.peak),
	}, err
}

// farWarm pulls twice from a warm cache: just after the tag was looked up, and when it has ceased to be fresh.
func farWarm(t *trial) (values, error) {
	i, err := t.far()
	if err != nil {
		return nil, err
	}
	if err := t.start(); err != nil {
		return nil, err
	}
	if _, err := t.pulled(i); err != nil {
		return nil, err
	}
	if err := t.lookUp(i); err != nil {
		return nil, err
	}
	fresh, err := t.pulled(i)
	if err != nil {
		return nil, err
	}
	if err := t.pause(2*farTTL + farTTL/5); err != nil {
		return nil, err
	}
	stale, err := t.pulled(i)
	return values{
		duration: fresh.seconds, upstreamAsked: float64(fresh.sent.Requests()), requestsLater: float64(stale.sent.Requests()),
	}, err
}

// lookUp asks for the tag until upstream is asked for it: it is fresh from now on.
func (t *trial) lookUp(i origin.Image) error {
	c, err := t.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	before := t.sent().Requests()
	for late := time.Now().Add(10 * farTTL); t.sent().Requests() == before; {
		if time.Now().After(late) {
			return errors.New("the tag does not cease to be fresh")
		}
		r := manifestRequest(i, i.Tag)
		if _, err := c.Get(r, &exactly{i.Index.Body}); err != nil {
			return fmt.Errorf("looking the tag up: %w", err)
		}
		if err := t.pause(5 * time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}
