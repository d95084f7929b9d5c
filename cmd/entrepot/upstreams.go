package main

import (
	"net/http"
	"net/url"

	"go.uber.org/zap"

	"github.com/entrepot/entrepot/config"
	"github.com/entrepot/entrepot/proxy"
	"github.com/entrepot/entrepot/upstream"
	"github.com/entrepot/entrepot/upstream/bandwidth"
)

// openUpstreams opens the registries. Their credentials, reserves and whether they are asked at all follow the settings.
func openUpstreams(settings *settings, limits *limits, metrics *proxy.Metrics, log *zap.Logger) (map[string]*upstream.Registry, error) {
	c := settings.inForce()
	opened := make(map[string]*upstream.Registry)
	for name, r := range c.Registries {
		endpoints, err := endpointsOf(r)
		if err != nil {
			return nil, err
		}
		asked := logins{host: endpoints[0].URL.Host}.of(r.Credentials)
		u, err := upstream.New(upstream.Options{
			Name: name, Endpoints: endpoints, TokenRealms: r.TokenRealms, BySpeed: r.Prefer == "speed",
			Logins:  asked.sources,
			Reserve: func(limit int64) int64 { return settings.inForce().Registries[name].QuotaReserve.Of(limit) },
			Lines:   []*bandwidth.Line{limits.registries[name], limits.upstream}, Background: limits.background,
			ConnectionsPerBlob: int(r.Connections.PerBlob), ConnectionsPerEndpoint: int(r.Connections.PerEndpoint),
			Observer: metrics, Log: log, UserAgent: "entrepot/" + version(),
		})
		if err != nil {
			return nil, err
		}
		opened[name] = u
		u.SetOffline(c.Offline)
		settings.whenRead(func(c *config.Config) { u.SetOffline(c.Offline) })
		settings.afterwards(func(c *config.Config) {
			if r, ok := c.Registries[name]; ok { // else it is served as before, until the program starts again
				asked = asked.of(r.Credentials)
				u.SetLogins(asked.sources)
			}
		})
		metrics.WatchEndpoints(name, u.Endpoints)
		metrics.WatchQuotas(name, u.Quotas)
	}
	return opened, nil
}

// endpointsOf are the endpoints of a registry as they are reached.
func endpointsOf(r config.Registry) (all []upstream.Endpoint, err error) {
	for _, e := range r.Endpoints {
		u, err := url.Parse(e.URL.String())
		if err != nil {
			return nil, err
		}
		all = append(all, upstream.Endpoint{
			URL: u, Trusted: e.Trusted, CAFile: e.CAFile, ClientCertFile: e.ClientCertFile, ClientKeyFile: e.ClientKeyFile,
			Insecure: e.Insecure, Proxy: proxyOf(e.Proxy), Dial: string(e.Dial), DNS: string(e.DNS),
		})
	}
	return all, nil
}

// proxyOf is how net/http is told by which proxy to go; nil: by that of the environment.
func proxyOf(p config.Proxy) func(*http.Request) (*url.URL, error) {
	switch u := p.URL(); {
	case p.None():
		return upstream.NoProxy
	case u != nil:
		return http.ProxyURL(u)
	}
	return nil
}

// watchLimits has the metrics tell of all limits.
func watchLimits(metrics *proxy.Metrics, l *limits) {
	metrics.WatchBandwidth("upstream", l.upstream.Stats)
	metrics.WatchBandwidth("background", l.background.Stats)
	metrics.WatchBandwidth("clients", l.clients.Total().Stats)
	metrics.WatchBandwidth("per_client", l.clients.Stats)
	for name, line := range l.registries {
		metrics.WatchBandwidth(limitOf(name), line.Stats)
	}
}
