package main

import (
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/config"
	"github.com/entrepot/entrepot/proxy"
	"github.com/entrepot/entrepot/upstream"
)

func serveCommand(environ []string, log io.Writer) *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve the mirror",
		Long: `Serve the mirror until SIGTERM or SIGINT; bodies in flight may then finish within shutdown_grace (30s).

It needs no configuration: it mirrors Docker Hub on :5000, keeps content in ./data, and serves metrics and health on
127.0.0.1:5001. Every key of the configuration file is also an environment variable: ENTREPOT_CACHE_TAG_TTL=5m.

SIGHUP has it read the file again. Limits, credentials, who may pull, how long things are believed, offline and the log's level hold
at once, also for what is under way; what needs a restart is named in the log. A file with errors changes nothing.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			hangups := make(chan os.Signal, 1)     // one more is enough: it is read after it came
			signal.Notify(hangups, syscall.SIGHUP) // before anything that takes its time: until then it would end the program
			defer signal.Stop(hangups)
			c, err := f.load(cmd, environ)
			if err != nil {
				return err
			}
			logger, level, stop := newLogger(c.Log, log)
			defer func() { err = errors.Join(err, stop()) }()
			settings := newSettings(c, func() (*config.Config, error) { return f.load(cmd, environ) }, logger)
			settings.whenRead(func(c *config.Config) { setLevel(level, c.Log) })
			return serve(cmd.Context(), settings, hangups, logger)
		},
	}
	f.register(cmd)
	return cmd
}

// serve runs the mirror until ctx ends. Each signal of hangups has it read its settings again.
func serve(ctx context.Context, settings *settings, hangups <-chan os.Signal, log *zap.Logger) (err error) {
	c := settings.inForce()
	metrics := proxy.NewMetrics(names(c), version())
	limits := newLimits(c)
	defer limits.close()
	settings.whenRead(limits.obey)
	watchLimits(metrics, limits)
	upstreams, err := openUpstreams(settings, limits, metrics, log.Named("upstream"))
	if err != nil {
		return err
	}
	defer func() {
		for _, u := range upstreams {
			u.Close()
		}
	}()
	opened, err := openCache(ctx, settings, upstreams, metrics, log.Named("cache"))
	if err != nil && ctx.Err() != nil {
		return nil // told to stop while it waited for another process to end
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, opened.Close()) }()
	metrics.Watch(opened.Stats)

	mirror, err := newMirror(settings, opened, limits, metrics, log)
	if err != nil {
		return err
	}
	certificates, err := newCertificates(c.TLS, log)
	if err != nil {
		return err
	}
	var ready atomic.Bool
	servers, err := listen(log, []endpoint{
		{"mirror", c.Listen, mirror, certificates.config()},
		{"admin", c.AdminListen, proxy.Admin(metrics, ready.Load, opened.Stats, limits), nil},
	})
	if err != nil {
		return err
	}
	log.Info("serving", zap.String("version", version()),
		zap.String("listen", addressOf(servers, "mirror")), zap.String("admin", addressOf(servers, "admin")),
		zap.String("data", c.DataDir), zap.Strings("registries", names(c)), zap.String("default", c.DefaultRegistry))
	ready.Store(true)
	defer settings.follow(hangups, metrics.Reloaded)()
	return run(ctx, servers, time.Duration(c.ShutdownGrace), func() { ready.Store(false) }, log)
}

// openCache opens the cache. Its policy is asked of the settings at each use.
func openCache(ctx context.Context, settings *settings, upstreams map[string]*upstream.Registry, metrics *proxy.Metrics,
	log *zap.Logger) (*cache.Cache, error) {
	c := settings.inForce()
	maxSize, minFree, err := space(c, log)
	if err != nil {
		return nil, err
	}
	opts := cache.Options{
		DataDir: c.DataDir, IndexDir: c.IndexDir, MaxSize: maxSize, MinFree: minFree,
		TagTTL: func(repo cache.Repository, tag string) time.Duration {
			return settings.inForce().TagTTL(repo.Registry, repo.Name, tag)
		},
		RevalidateTimeout: func() time.Duration { return time.Duration(settings.inForce().Cache.RevalidateTimeout) },
		NegativeTTL:       func() time.Duration { return time.Duration(settings.inForce().Cache.NegativeTTL) },
		KeepDeleted:       func(string) bool { return settings.inForce().Cache.OnUpstreamDelete == "keep" },
		Pinned:            pinned(c.Cache.Pin), ScrubRate: scrubRate(c.Cache.ScrubRate), VerifyAfter: time.Duration(c.Cache.VerifyAfter),
		FillWhole: c.Cache.Fill == "whole", ParkAbandoned: c.Cache.WhenAbandoned == "park",
		ReadAhead: readAhead[c.Cache.ReadAhead],
		Upstreams: make(map[string]cache.Upstream), FillDone: metrics.FillDone, AheadDone: metrics.AheadDone,
		Healed: metrics.Healed, Log: log,
	}
	for name, u := range upstreams {
		opts.Upstreams[name] = u
	}
	opened, err := cache.Open(ctx, opts)
	if err != nil {
		return nil, unusable(err)
	}
	return opened, nil
}

// readAhead says what the modes of the configuration are to the cache.
var readAhead = map[config.ReadAhead]cache.ReadAhead{
	"off": cache.ReadNothing, "manifests": cache.ReadManifests, "config": cache.ReadConfig, "layers": cache.ReadLayers,
}

func names(c *config.Config) []string { return slices.Sorted(maps.Keys(c.Registries)) }

// registries are the configured registries as the proxy routes to them.
func registries(c *config.Config) []proxy.Registry {
	var all []proxy.Registry
	for _, name := range names(c) {
		all = append(all, proxy.Registry{Name: name, Hosts: c.Registries[name].Hosts})
	}
	return all
}
