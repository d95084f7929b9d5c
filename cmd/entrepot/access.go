package main

import (
	"fmt"

	"go.uber.org/zap"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/config"
	"github.com/entrepot/entrepot/proxy"
	"github.com/entrepot/entrepot/proxy/access"
)

// passwords are those of the file that the configuration names, which may be another after it was read again.
type passwords struct {
	log  *zap.Logger
	path string
	open *access.Passwords // nil: there is no file
}

// of returns the passwords of a configuration: those that are open, if the file is the same.
func (p passwords) of(c *config.Config) (passwords, error) {
	path := c.Access.HtpasswdFile
	switch path {
	case p.path:
		return p, nil
	case "":
		return passwords{log: p.log}, nil
	}
	open, err := access.OpenPasswords(path, func(err error) {
		if err != nil {
			p.log.Error("the users' passwords have changed and can't be used: those before hold on", zap.String("file", path), zap.Error(err))
			return
		}
		p.log.Info("the users' passwords have changed", zap.String("file", path))
	})
	if err != nil {
		return p, fmt.Errorf("access.htpasswd_file: %w", err)
	}
	return passwords{p.log, path, open}, nil
}

// newMirror is the handler for clients. Who may have what follows the settings.
func newMirror(settings *settings, opened *cache.Cache, limits *limits, metrics *proxy.Metrics, log *zap.Logger) (*proxy.Proxy, error) {
	c := settings.inForce()
	users, err := passwords{log: log.Named("access")}.of(c)
	if err != nil {
		return nil, err
	}
	mirror := proxy.New(proxy.Options{
		Cache: opened, Registries: registries(c), DefaultRegistry: c.DefaultRegistry, Canonical: config.CanonicalRegistry,
		Access: policy(c, c, users.open), Egress: limits.clients, Metrics: metrics, Log: log.Named("proxy"),
	})
	settings.unless(func(c *config.Config) (err error) {
		users, err = users.of(c)
		return err
	})
	settings.whenRead(func(c *config.Config) { mirror.SetAccess(policy(settings.started, c, users.open)) })
	return mirror, nil
}

// policy is what a configuration says of who may have what. Which registries there are and by which endpoints, and whether clients are
// asked for certificates, is for the one that the program has started with to say: others are not used before it starts again.
func policy(started, c *config.Config, open *access.Passwords) *access.Policy {
	inForce := *c
	inForce.TLS = started.TLS
	p := &access.Policy{
		Anonymous: inForce.AnonymousAllowed(), Htpasswd: open,
		Users: make(map[string]func(registry, repository string) bool), Registries: make(map[string]access.Registry),
	}
	for _, network := range c.Access.AllowClients {
		p.Networks = append(p.Networks, network.Prefix)
	}
	for name, user := range c.Access.Users {
		p.Users[name] = user.Match
	}
	for name, registry := range started.Registries {
		says := c
		if _, still := c.Registries[name]; !still { // it is served until the program starts again: not to others than before
			says = started
		}
		registry.Credentials = says.Registries[name].Credentials
		p.Registries[name] = access.Registry{
			Credentials: registry.Known(),
			Exposed:     func(repository string) bool { return says.Exposed(name, repository) },
			Client:      says.Registries[name].Authorization == "client",
		}
	}
	return p
}
