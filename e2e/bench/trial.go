package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/entrepot/entrepot/e2e/bench/load"
	"github.com/entrepot/entrepot/e2e/bench/origin"
	"github.com/entrepot/entrepot/e2e/testbed"
)

// trial is one measurement: one system, started on an empty store, at one workload.
type trial struct {
	*scene
	ctx      context.Context
	system   system
	workload workload
	place    place
	// One of the two is upstream: the counting registry, or the road to the real one.
	origin *origin.Server
	road   *road
	subject
}

// measure runs w once on y.
func (s *scene) measure(ctx context.Context, w workload, y system) (v values, err error) {
	t := &trial{scene: s, ctx: ctx, system: y, workload: w, place: place{tagTTL: w.tagTTL}}
	defer func() { err = errors.Join(err, t.close()) }()
	if err := t.open(); err != nil {
		return nil, err
	}
	v, err = w.run(t)
	if t.process == nil {
		for _, m := range []metric{cpu, cpuPerGB, cpuPerRequest, peak} {
			delete(v, m)
		}
	}
	return v, err
}

// open gets the trial its directory and its upstream.
func (t *trial) open() (err error) {
	if t.place.dir, err = t.bed.Subdir(t.system.name); err != nil {
		return err
	}
	if t.workload.overRegistry {
		if err := t.needRegistry(t.ctx); err != nil {
			return err
		}
		if t.road, err = openRoad(t.registry.Address); err != nil {
			return err
		}
		t.road.perConnection.Store(int64(t.workload.line.PerConnection))
		t.place.upstream = t.road.address()
		return nil
	}
	if t.origin, err = origin.Serve(&t.store, t.workload.line); err != nil {
		return err
	}
	t.place.upstream = t.origin.Address
	return nil
}

// start starts the system. The workload does, when it has what it needs.
func (t *trial) start() (err error) {
	t.subject, err = t.scene.start(t.ctx, t.system, t.place)
	return err
}

func (t *trial) close() error {
	errs := []error{t.end()}
	if t.origin != nil {
		errs = append(errs, t.origin.Close())
	}
	if t.road != nil {
		errs = append(errs, t.road.close())
	}
	return errors.Join(append(errs, os.RemoveAll(t.place.dir))...)
}

// dial connects a client to the system.
func (t *trial) dial() (*load.Conn, error) { return load.Dial(t.ctx, t.address, 0) }

// phase is what a part of the work took.
type phase struct {
	// seconds are the clients'; cpu, in seconds, is the system's, with what it does after they have left.
	seconds, cpu float64
	// peak is in bytes.
	peak int64
	// sent is what upstream was asked and sent, crossed what came by the road.
	sent    origin.Count
	crossed crossed
}

// phase measures work, and what the system does behind it.
func (t *trial) phase(work func() error) (phase, error) { return t.phaseUntil(work, t.settle) }

// phaseUntil measures work, and then what the system does until rest returns.
func (t *trial) phaseUntil(work, rest func() error) (p phase, err error) {
	var before testbed.Spent
	if t.process != nil {
		if before, err = t.process.Spent(); err != nil {
			return p, err
		}
		if err := t.process.ForgetPeak(); err != nil {
			return p, err
		}
	}
	sent := t.sent()
	start := time.Now()
	if err := work(); err != nil {
		return p, err
	}
	p.seconds = time.Since(start).Seconds()
	if err := rest(); err != nil {
		return p, err
	}
	if t.process != nil {
		after, err := t.process.Spent()
		if err != nil {
			return p, err
		}
		p.cpu = after.Since(before).Seconds()
		if p.peak, err = t.process.PeakMemory(); err != nil {
			return p, err
		}
	}
	p.sent = t.sent().Since(sent)
	if t.road != nil {
		p.crossed = t.road.crossed()
	}
	return p, nil
}

func (t *trial) sent() origin.Count {
	if t.origin == nil {
		return origin.Count{}
	}
	return t.origin.Count()
}

const (
	// A system is at rest when it takes less than restShare of one processor for restFor. A look costs the clients nothing.
	restFor   = 50 * time.Millisecond
	restShare = 0.05
	// restWithin bounds the wait for it.
	restWithin = time.Minute
)

// settle waits until the system is at rest: what it does after the last client has its last byte has been done.
func (t *trial) settle() error {
	if t.process == nil {
		return nil
	}
	tick := time.NewTicker(restFor)
	defer tick.Stop()
	late := time.NewTimer(restWithin)
	defer late.Stop()
	last, err := t.process.Spent()
	for err == nil {
		select {
		case <-tick.C:
		case <-late.C:
			return fmt.Errorf("%s is not at rest after %v", t.system.name, restWithin)
		case <-t.ctx.Done():
			return t.ctx.Err()
		}
		var now testbed.Spent
		if now, err = t.process.Spent(); err == nil && now.Since(last).Seconds() < restShare*restFor.Seconds() {
			return nil
		}
		last = now
	}
	return err
}
