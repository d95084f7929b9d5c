package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

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
127.0.0.1:5001. Every key of the configuration file is also an environment variable: ENTREPOT_CACHE_TAG_TTL=5m.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			c, err := f.load(cmd, environ)
			if err != nil {
				return err
			}
			logger, stop := newLogger(c.Log, log)
			defer func() { err = errors.Join(err, stop()) }()
			return serve(cmd.Context(), c, logger)
		},
	}
	f.register(cmd)
	return cmd
}

// serve runs the mirror until ctx ends.
func serve(ctx context.Context, c *config.Config, log *zap.Logger) (err error) {
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
		Metrics: metrics, Log: log.Named("proxy"),
	})
	servers, err := listen(log, []endpoint{
		{"mirror", c.Listen, mirror},
		{"admin", c.AdminListen, proxy.Admin(metrics, ready.Load, opened.Stats)},
	})
	if err != nil {
		return err
	}
	log.Info("serving", zap.String("version", version()),
		zap.String("listen", addressOf(servers, "mirror")), zap.String("admin", addressOf(servers, "admin")),
		zap.String("data", c.DataDir), zap.Strings("registries", names(c)), zap.String("default", c.DefaultRegistry))
	ready.Store(true)
	return run(ctx, servers, time.Duration(c.ShutdownGrace), func() { ready.Store(false) }, log)
}

func openUpstreams(c *config.Config, metrics *proxy.Metrics, log *zap.Logger) (map[string]*upstream.Registry, error) {
	rate := func(p config.Plan) int64 {
		rate, _ := p.At(time.Now())
		return int64(rate)
	}
	limiter, background := bandwidth.New(rate(c.Bandwidth.Upstream)), bandwidth.New(rate(c.Bandwidth.Background))
	opened := make(map[string]*upstream.Registry)
	for name, r := range c.Registries {
		opts := upstream.Options{
			Name: name, TokenRealms: r.TokenRealms, Limiter: limiter, Background: background, Observer: metrics, Log: log,
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

// endpoint is an address and what is served on it.
type endpoint struct {
	name, address string
	handler       http.Handler
}

// server is an endpoint that listens.
type server struct {
	endpoint
	http     *http.Server
	listener net.Listener
	gate     *gate
	cut      context.CancelFunc // ends the context of every request
}

// gate lets requests through until it is closed. http.Server.Close returns while handlers still run, and what they use is
// closed next; so who closes the gate waits for those within. A request that comes later, on a connection that was
// accepted just before, does not get in: TryRLock fails as soon as close waits.
type gate struct {
	http.Handler
	mu sync.RWMutex // held for reading by each request, and from close on for ever
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !g.mu.TryRLock() {
		panic(http.ErrAbortHandler)
	}
	defer g.mu.RUnlock()
	g.Handler.ServeHTTP(w, r)
}

func (g *gate) close() { g.mu.Lock() }

// listen opens all addresses, or none. An empty address is left out.
func listen(log *zap.Logger, endpoints []endpoint) (servers []server, err error) {
	for _, e := range endpoints {
		if e.address == "" {
			continue
		}
		l, err := net.Listen("tcp", e.address)
		if err != nil {
			for _, s := range servers {
				s.listener.Close()
				s.cut()
			}
			return nil, fmt.Errorf("%s: %w", e.name, err)
		}
		e.address = l.Addr().String()
		g := &gate{Handler: e.handler}
		ctx, cut := context.WithCancel(context.Background())
		s := &http.Server{
			Handler:     g,
			BaseContext: func(net.Listener) context.Context { return ctx },
			// No time-outs over whole bodies: a podman that unpacks while it downloads reads for as long as that takes.
			ReadHeaderTimeout: 10 * time.Second,
			IdleTimeout:       2 * time.Minute,
			MaxHeaderBytes:    64 << 10,
			ErrorLog:          errorLog(log.Named(e.name)),
		}
		servers = append(servers, server{endpoint: e, http: s, listener: proxy.Listener(s, l), gate: g, cut: cut})
	}
	return servers, nil
}

// addressOf is where a server listens, for the log.
func addressOf(servers []server, name string) string {
	for _, s := range servers {
		if s.name == name {
			return s.address
		}
	}
	return "off"
}

// run serves until ctx ends or a server fails; then bodies in flight may finish within grace. The servers stop one after
// the other, in their order: while the first, the mirror, sends its last bodies, the admin listener still tells of it. No
// handler runs any more when run returns.
func run(ctx context.Context, servers []server, grace time.Duration, stopping func(), log *zap.Logger) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, s := range servers {
		group.Go(func() error {
			if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			return nil
		})
	}
	group.Go(func() error {
		<-ctx.Done()
		stopping()
		log.Info("stopping", zap.Duration("grace", grace))
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer cancel()
		var errs []error
		for _, s := range servers {
			errs = append(errs, s.stop(limited, log))
		}
		return errors.Join(errs...)
	})
	return group.Wait()
}

// stop lets requests finish until grace ends, cuts off those that have not, and waits until their handlers have noticed.
func (s server) stop(grace context.Context, log *zap.Logger) error {
	err := s.http.Shutdown(grace)
	if err != nil {
		log.Warn("bodies in flight were cut off: shutdown_grace is over", zap.String("listener", s.name))
		err = s.http.Close()
	}
	s.cut()
	s.gate.close()
	return err
}
