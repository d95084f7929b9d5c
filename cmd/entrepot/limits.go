package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/entrepot/entrepot/config"
	"github.com/entrepot/entrepot/upstream/bandwidth"
)

// limits are the lines that transfers pass through, each by the name of its limit, and the plans that they follow: those of the
// configuration, or what the admin listener was given since that was read.
type limits struct {
	upstream, background *bandwidth.Line
	registries           map[string]*bandwidth.Line
	clients              *bandwidth.Clients

	lines map[string]rated

	mu sync.Mutex
	// guards following
	zone     *time.Location
	followed map[string]followed
}

// rated is what has a rate.
type rated interface{ SetRate(bytesPerSecond int64) }

// followed is a plan that a line follows until it is stopped.
type followed struct {
	plan config.Plan
	stop func()
}

func newLimits(c *config.Config) *limits {
	l := &limits{
		upstream: bandwidth.NewLine(0), background: bandwidth.NewLine(0), clients: bandwidth.NewClients(0, 0),
		registries: make(map[string]*bandwidth.Line), followed: make(map[string]followed),
	}
	l.lines = map[string]rated{
		"upstream": l.upstream, "background": l.background, "clients": l.clients.Total(), "per_client": l.clients,
	}
	for name := range c.Registries {
		l.registries[name] = bandwidth.NewLine(0)
		l.lines[limitOf(name)] = l.registries[name]
	}
	l.obey(c)
	return l
}

// limitOf is the name of a registry's limit.
func limitOf(registry string) string { return "registries." + registry + ".bandwidth" }

// obey has all lines follow the plans of a configuration. A registry that it does not have has no limit.
func (l *limits) obey(c *config.Config) {
	plans := map[string]config.Plan{
		"upstream": c.Bandwidth.Upstream, "background": c.Bandwidth.Background,
		"clients": c.Bandwidth.Clients, "per_client": c.Bandwidth.PerClient,
	}
	for name := range l.registries {
		plans[limitOf(name)] = c.Registries[name].Bandwidth
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.zone = c.Bandwidth.TimeZone.Location()
	l.followLocked(plans)
}

// Limits returns the plans, as they are configured.
func (l *limits) Limits() map[string]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make(map[string]string)
	for name, f := range l.followed {
		all[name] = f.plan.String()
	}
	return all
}

// SetLimits has the lines that are named follow other plans, until the configuration is read again.
func (l *limits) SetLimits(wanted map[string]string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	plans := make(map[string]config.Plan)
	for name, text := range wanted {
		if _, known := l.lines[name]; !known {
			return fmt.Errorf("%q is no limit; allowed: %s", name, strings.Join(slices.Sorted(maps.Keys(l.lines)), ", "))
		}
		var plan config.Plan
		if err := plan.UnmarshalText([]byte(text)); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		plans[name] = plan.In(l.zone)
	}
	l.followLocked(plans)
	return nil
}

// followLocked has lines follow plans, from now on: they have their rates when it returns.
func (l *limits) followLocked(plans map[string]config.Plan) {
	for name, plan := range plans {
		before, has := l.followed[name]
		if has && before.plan.Equal(plan) {
			continue
		}
		if has {
			before.stop()
		}
		rates := func(t time.Time) (int64, time.Time) {
			rate, until := plan.At(t)
			return int64(rate), until
		}
		line := l.lines[name]
		rate, _ := rates(time.Now())
		line.SetRate(rate)
		ctx, cancel := context.WithCancel(context.Background())
		var work sync.WaitGroup
		work.Go(func() { bandwidth.Follow(ctx, line, rates) })
		l.followed[name] = followed{plan, func() { cancel(); work.Wait() }}
	}
}

// close ends the following. The lines keep their rates.
func (l *limits) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.followed {
		f.stop()
	}
}
