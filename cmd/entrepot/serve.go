package main

import (
	"context"
	"errors"
	"io"
	"maps"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/config"
	"github.com/entrepot/entrepot/proxy"
	"github.com/entrepot/entrepot/upstream"
	"github.com/entrepot/entrepot/upstream/bandwidth"
	"github.com/entrepot/entrepot/upstream/credential"
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
			c, err := f.load(cmd, environ)
			if err != nil {
				return err
			}
			logger, level, stop := newLogger(c.Log, log)
			defer func() { err = errors.Join(err, stop()) }()
			hangups := make(chan os.Signal, 1) // one more is enough: it is read after it came
			signal.Notify(hangups, syscall.SIGHUP)
			defer signal.Stop(hangups)
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
	upstreams, err := openUpstreams(c, metrics, log.Named("upstream"))
	if err != nil {
		return err
	}
	defer func() {
		for _, u := range upstreams {
			u.Close()
		}
	}()
	opened, err := openCache(ctx, c, upstreams, metrics, log.Named("cache"))
	if err != nil && ctx.Err() != nil {
		return nil // told to stop while it waited for another process to end
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, opened.Close()) }()
	metrics.Watch(opened.Stats)

	var ready atomic.Bool
	mirror := proxy.New(proxy.Options{
		Cache: opened, Registries: registries(c), DefaultRegistry: c.DefaultRegistry, Canonical: config.CanonicalRegistry,
		Egress: bandwidth.NewClients(0, 0), Metrics: metrics, Log: log.Named("proxy"),
	})
	certificates, err := newCertificates(c.TLS, log)
	if err != nil {
		return err
	}
	servers, err := listen(log, []endpoint{
		{"mirror", c.Listen, mirror, certificates.config()},
		{"admin", c.AdminListen, proxy.Admin(metrics, ready.Load, opened.Stats, nil), nil},
	})
	if err != nil {
		return err
	}
	log.Info("serving", zap.String("version", version()),
		zap.String("listen", addressOf(servers, "mirror")), zap.String("admin", addressOf(servers, "admin")),
		zap.String("data", c.DataDir), zap.Strings("registries", names(c)), zap.String("default", c.DefaultRegistry))
	ready.Store(true)
	following, stop := context.WithCancel(ctx)
	var followed sync.WaitGroup
	followed.Go(func() { settings.follow(following, hangups, metrics.Reloaded) })
	defer followed.Wait()
	defer stop()
	return run(ctx, servers, time.Duration(c.ShutdownGrace), func() { ready.Store(false) }, log)
}

func openUpstreams(c *config.Config, metrics *proxy.Metrics, log *zap.Logger) (map[string]*upstream.Registry, error) {
	rate := func(p config.Plan) int64 {
		rate, _ := p.At(time.Now())
		return int64(rate)
	}
	total, background := bandwidth.NewLine(rate(c.Bandwidth.Upstream)), bandwidth.NewLine(rate(c.Bandwidth.Background))
	opened := make(map[string]*upstream.Registry)
	for name, r := range c.Registries {
		opts := upstream.Options{
			Name: name, TokenRealms: r.TokenRealms, Lines: []*bandwidth.Line{total}, Background: background, Observer: metrics, Log: log,
			UserAgent: "entrepot/" + version(), BySpeed: r.Prefer == "speed",
			ConnectionsPerBlob: int(r.Connections.PerBlob), ConnectionsPerEndpoint: int(r.Connections.PerEndpoint),
			Logins: logins(r.Credentials, name),
		}
		for _, e := range r.Endpoints {
			u, err := url.Parse(e.URL.String())
			if err != nil {
				return nil, err
			}
			opts.Endpoints = append(opts.Endpoints, upstream.Endpoint{URL: u, Trusted: e.Trusted})
		}
		u, err := upstream.New(opts)
		if err != nil {
			return nil, err
		}
		opened[name] = u
		metrics.WatchEndpoints(name, u.Endpoints)
		metrics.WatchQuotas(name, u.Quotas)
	}
	return opened, nil
}

// logins are the sources of a registry's credentials.
func logins(all config.Logins, registry string) (sources []credential.Source) {
	for _, c := range all {
		sources = append(sources, source(c, registry))
	}
	return sources
}

func source(c config.Login, registry string) credential.Source {
	switch {
	case c.PasswordFile != "":
		return credential.File(c.Username, c.PasswordFile)
	case c.DockerConfig != "":
		return credential.Docker(c.DockerConfig, registry)
	case c.Helper != "":
		return credential.Helper(c.Helper, registry, time.Duration(c.Lifetime))
	case len(c.Exec) > 0:
		return credential.Exec(c.Exec, c.Username, time.Duration(c.Lifetime))
	}
	return credential.Static(credential.Login{Username: c.Username, Password: c.Password.Reveal()})
}

func openCache(ctx context.Context, c *config.Config, upstreams map[string]*upstream.Registry, metrics *proxy.Metrics, log *zap.Logger) (*cache.Cache, error) {
	maxSize, minFree, err := space(c, log)
	if err != nil {
		return nil, err
	}
	opts := cache.Options{
		DataDir: c.DataDir, IndexDir: c.IndexDir, MaxSize: maxSize, MinFree: minFree,
		TagTTL: func(cache.Repository, string) time.Duration { return time.Duration(c.Cache.TagTTL) },
		Pinned: pinned(c.Cache.Pin), ScrubRate: scrubRate(c.Cache.ScrubRate), VerifyAfter: time.Duration(c.Cache.VerifyAfter),
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
