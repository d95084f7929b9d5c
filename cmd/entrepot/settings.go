package main

import (
	"context"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/entrepot/entrepot/config"
)

// atOnce are the keys that hold as soon as they are read. Of all others, what the program has started with holds until it ends.
var atOnce = []string{
	"offline", "log.level", "access", "bandwidth",
	"cache.tag_ttl", "cache.revalidate_timeout", "cache.negative_ttl", "cache.on_upstream_delete",
	"registries.<name>.credentials", "registries.<name>.authorization", "registries.<name>.expose", "registries.<name>.tag_ttl", "registries.<name>.quota_reserve",
	"registries.<name>.bandwidth",
}

// settings are the configuration in force, which is read again while the program runs. Who can asks for it at each use; who can't is
// told.
type settings struct {
	load    func() (*config.Config, error)
	started *config.Config
	log     *zap.Logger

	read atomic.Pointer[config.Config]

	// In the order in which they were added; not added to once follow runs.
	refused []func(*config.Config) error
	obeyed  []func(*config.Config)
	last    []func(*config.Config)
}

// newSettings returns settings that begin with c and are read again by load.
func newSettings(c *config.Config, load func() (*config.Config, error), log *zap.Logger) *settings {
	s := &settings{load: load, started: c, log: log}
	s.read.Store(c)
	return s
}

// inForce returns the configuration that was read last. What it says of keys that are not in atOnce may not hold.
func (s *settings) inForce() *config.Config { return s.read.Load() }

// whenRead has obey told of each configuration that is read from now on.
func (s *settings) whenRead(obey func(*config.Config)) { s.obeyed = append(s.obeyed, obey) }

// afterwards is whenRead for what opens more than before, which comes after all else: by then it is known who may have that.
func (s *settings) afterwards(obey func(*config.Config)) { s.last = append(s.last, obey) }

// unless has a configuration that is read from now on refused, as one that can't be loaded is, if refuse returns an error.
func (s *settings) unless(refuse func(*config.Config) error) { s.refused = append(s.refused, refuse) }

// follow reads the settings again at each signal, until what it returns is called, which waits for that. Done is told of each time
// whether it went well.
func (s *settings) follow(signals <-chan os.Signal, done func(ok bool)) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-signals:
				done(s.reload())
			}
		}
	})
	return func() { cancel(); work.Wait() }
}

// reload reads the settings again. If there is anything wrong with them, those that hold go on to.
func (s *settings) reload() bool {
	c, err := s.load()
	for _, refuse := range s.refused {
		if err == nil {
			err = refuse(c)
		}
	}
	if err != nil {
		s.log.Error("the configuration was read again and has errors: nothing is changed",
			zap.Strings("errors", strings.Split(err.Error(), "\n")))
		return false
	}
	changed, _ := sorted(s.inForce(), c)
	_, later := sorted(s.started, c)
	s.read.Store(c)
	for _, obey := range slices.Concat(s.obeyed, s.last) {
		obey(c)
	}
	s.log.Info("the configuration was read again", zap.Strings("changed", changed))
	if len(later) > 0 {
		s.log.Warn("the configuration differs from the one that this process has started with in what needs a restart",
			zap.Strings("keys", later))
	}
	return true
}

// sorted returns the keys of what differs that holds at once, and of what does later.
func sorted(before, after *config.Config) (now, later []string) {
	for _, change := range config.Changes(before, after) {
		if slices.ContainsFunc(atOnce, change.Within) {
			now = append(now, change.Key)
		} else {
			later = append(later, change.Key)
		}
	}
	return now, later
}
