// Package config is the configuration of entrepot: one YAML file as Go values that cannot be wrong.
//
// [Load] begins with [Default], lays the file over it, then the environment, then what the caller overrides by flags,
// and checks the whole. The result is complete: every registry has endpoints, one of them at least is trusted, every name
// is in its canonical spelling, and nothing downstream needs to ask whether a value was given.
//
//   - Nothing is guessed. A key that is unknown, given twice or of the wrong shape, a size without a unit, a registry
//     with two names: each is an error that says where it is, what is wrong and what is allowed. All of them are
//     reported at once, one line each.
//   - Every key has one environment variable: ENTREPOT_ and its path in upper case, with everything but letters and
//     digits as _. Lists are separated by commas. ENTREPOT_REGISTRIES adds registries by name, ENTREPOT_ACCESS_USERS users. What
//     is said of an endpoint besides its URL, and of one of several credentials, is for the file alone.
//   - Secrets do not show: not when printed, logged or marshalled, and not in an error.
//   - The only I/O is reading the file and the files that it names, to report those that can't be used.
//
// The whole file, with values that are typical, not default:
//
//	listen: :5000
//	tls: {cert_file: /etc/entrepot/cert.pem, key_file: /etc/entrepot/key.pem, client_ca_file: /etc/entrepot/ca.pem}
//	admin_listen: 127.0.0.1:5001
//	data_dir: /var/lib/entrepot
//	index_dir: /var/lib/entrepot-index
//	default_registry: docker.io
//	shutdown_grace: 30s
//	offline: false
//	log: {level: info, format: auto}
//	access:
//	  allow_clients: [10.0.0.0/8, 192.0.2.7]
//	  anonymous: auto
//	  htpasswd_file: /etc/entrepot/htpasswd
//	  users:
//	    alice: {pull: [ghcr.io/owner/**, docker.io/library/*]}
//	cache:
//	  max_size: 200GiB
//	  min_free: 5%
//	  pin: [docker.io/library/alpine:*, ghcr.io/owner/**]
//	  scrub_rate: 20MiB/s
//	  verify_after: 30d
//	  tag_ttl: 60s
//	  revalidate_timeout: 2s
//	  negative_ttl: 10s
//	  on_upstream_delete: follow
//	  fill: auto
//	  when_abandoned: finish
//	  read_ahead: config
//	registries:
//	  docker.io:
//	    endpoints: [{url: https://registry-1.docker.io, proxy: http://proxy.example:3128}]
//	    credentials:
//	    - {username: ci, password_file: /run/secrets/hub}
//	    - {docker_config: /etc/entrepot/config.json}
//	    expose: [library/**, corp/base-*]
//	    tag_ttl: ["**:latest 1m", "**:v[0-9]* 1d"]
//	    quota_reserve: 10%
//	  ghcr.io:
//	    endpoints: [{url: https://ghcr.io, trusted: true}, {url: https://ghcr.example}]
//	    prefer: speed
//	    connections: {per_blob: 4, per_endpoint: 24}
//	    credentials: {username: bot, password: s3cret}
//	    authorization: mirror
//	    hosts: [ghcr.mirror.example]
//	    token_realms: [auth.example]
//	    bandwidth: 100Mbit/s
//	  registry.corp.example:5443:
//	    endpoints:
//	    - url: https://registry.corp.example:5443
//	      ca_file: /etc/entrepot/ca.pem
//	      client_cert_file: /etc/entrepot/cert.pem
//	      client_key_file: /etc/entrepot/key.pem
//	      dial: 192.0.2.7:5443
//	    - {url: https://spare.corp.example, insecure: true, proxy: none, dns: 192.0.2.53}
//	    credentials: {exec: [vault, read, -field=password, secret/registry], username: ci, lifetime: 1h}
//	  123456789012.dkr.ecr.eu-central-1.amazonaws.com:
//	    credentials: {helper: ecr-login}
//	bandwidth:
//	  upstream: mon-fri 08:00-18:00 20Mbit/s, else 200Mbit/s
//	  background: 50Mbit/s
//	  clients: 1Gbit/s
//	  per_client: 40MB/s
//	  time_zone: Europe/Berlin
package config

import (
	"errors"
	"io"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// Config is the whole configuration. Values come from [Load] or [Default]; one made by hand goes through
// [Config.Validate].
type Config struct {
	// Listen is the address that clients pull from, [host]:port. Default ":5000".
	Listen string `yaml:"listen"`
	// TLS makes Listen one of HTTPS. Default: HTTP.
	TLS TLS `yaml:"tls"`
	// AdminListen is the address of metrics, health and the admin API, [host]:port. It has no authentication: keep it
	// private. "off" in the file, "" here, means none. Default "127.0.0.1:5001".
	AdminListen string `yaml:"admin_listen"`
	// DataDir is the directory that holds the cache, relative to the working directory. Default "./data".
	DataDir string `yaml:"data_dir"`
	// IndexDir is the directory that holds the index, relative to the working directory; it may be on another file system than
	// DataDir, which holds the content. Default: "", which is the directory index in DataDir.
	IndexDir string `yaml:"index_dir,omitempty"`
	// DefaultRegistry answers a request that names no registry; it is one of Registries. Default "docker.io".
	DefaultRegistry string `yaml:"default_registry"`
	// ShutdownGrace is how long running transfers may go on after a signal to stop. Default 30s.
	ShutdownGrace Duration `yaml:"shutdown_grace"`
	// Offline says that what is there is served, and nobody dialled. Default: false.
	Offline bool `yaml:"offline"`
	// Log says what is logged, and how.
	Log Log `yaml:"log"`
	// Access says who may pull, and what.
	Access Access `yaml:"access"`
	// Cache bounds what is kept, says what stays, for how long it is believed, and how it is fetched.
	Cache Cache `yaml:"cache"`
	// Registries is the closed table of upstream registries, by canonical name, host[:port]. What the file says of a
	// registry is laid over its defaults. docker.io is always in it.
	Registries map[string]Registry `yaml:"registries"`
	// Bandwidth limits transfers.
	Bandwidth Bandwidth `yaml:"bandwidth"`
}

// Log says what is logged, and how.
type Log struct {
	// Level is the least severe level that is logged: debug, info, warn or error. Default info.
	Level Level `yaml:"level"`
	// Format is console, json, or auto: console on a terminal, else json. Default auto.
	Format Format `yaml:"format"`
}

// Cache bounds what is kept, says what stays, for how long it is believed, and how it is fetched.
type Cache struct {
	// MaxSize is the most that the data directory may hold, as a size, 16MiB or more, or as a percentage of its file system.
	// Default: not set; only the free space limits the cache.
	MaxSize Space `yaml:"max_size,omitempty"`
	// MinFree is the space on the file system that is never filled, as a size or as a percentage of it; 0 is none.
	// Default 5%, as much as many file systems keep back for the administrator.
	MinFree Space `yaml:"min_free"`
	// Pin says which images are kept when others go to make room. Default: none.
	Pin []Pattern `yaml:"pin,omitempty"`
	// ScrubRate is how fast kept content is read again to see whether it is still right. Default weekly.
	ScrubRate ScrubRate `yaml:"scrub_rate"`
	// VerifyAfter is after how long content that was not read again meanwhile is verified while it is served, its last byte
	// held back; 0 is never. Default 30d.
	VerifyAfter Duration `yaml:"verify_after"`
	// TagTTL is how long a tag is answered without asking upstream; 0 asks each time. Default 60s.
	TagTTL Duration `yaml:"tag_ttl"`
	// RevalidateTimeout is how long a client waits for upstream's word on a tag that is known; then it gets the last good answer.
	// Default 2s.
	RevalidateTimeout Duration `yaml:"revalidate_timeout"`
	// NegativeTTL is how long upstream's word that something is not there is believed; 0 is not at all. Default 10s.
	NegativeTTL Duration `yaml:"negative_ttl"`
	// OnUpstreamDelete says what becomes of a tag that upstream no longer has: follow, it is gone here too, or keep, the last
	// good answer is served as stale. Default follow.
	OnUpstreamDelete Deletion `yaml:"on_upstream_delete"`
	// Fill says how much of a blob is fetched for clients that ask for parts of it: auto, these parts until they add up,
	// or whole, all of it for whoever asks for a part. Default auto.
	Fill FillMode `yaml:"fill"`
	// WhenAbandoned says what becomes of a blob's transfer when the last client that wanted it has left: finish, it goes
	// on in the background, or park, what is there is kept until somebody asks again. Default finish.
	WhenAbandoned Abandonment `yaml:"when_abandoned"`
	// ReadAhead says what is fetched before a client asks for it: off, nothing; manifests, the manifest of a tag that is asked for by
	// HEAD, and those that an index names for the platforms of the clients; config, the configuration of an image too; layers,
	// its layers too. Default config.
	ReadAhead ReadAhead `yaml:"read_ahead"`
}

// Bandwidth limits transfers.
type Bandwidth struct {
	// Upstream is the most that is fetched from all registries together. Default: unlimited.
	Upstream Plan `yaml:"upstream"`
	// Background is the most that is fetched of blobs that nobody waits for, within Upstream. Default: unlimited.
	Background Plan `yaml:"background"`
	// Clients is the most that is sent to all clients together. Default: unlimited.
	Clients Plan `yaml:"clients"`
	// PerClient is the most that is sent to one client's address, within Clients. Default: unlimited.
	PerClient Plan `yaml:"per_client"`
	// TimeZone is where the hours of plans are, those of registries included. Default: the machine's.
	TimeZone Zone `yaml:"time_zone,omitempty"`
}

// dockerHub is the canonical name of the registry that is always configured.
const dockerHub = "docker.io"

// Default returns the configuration that holds when nothing is configured: a mirror of Docker Hub.
func Default() *Config {
	return &Config{
		Listen:          ":5000",
		AdminListen:     "127.0.0.1:5001",
		DataDir:         "./data",
		DefaultRegistry: dockerHub,
		ShutdownGrace:   Duration(30 * time.Second),
		Log:             Log{Level: "info", Format: "auto"},
		Access:          Access{Anonymous: "auto"},
		Cache: Cache{
			MinFree: Space{Percent: 5}, ScrubRate: ScrubWeekly, VerifyAfter: Duration(30 * day),
			TagTTL: Duration(60 * time.Second), RevalidateTimeout: Duration(2 * time.Second), NegativeTTL: Duration(10 * time.Second),
			OnUpstreamDelete: "follow", Fill: "auto", WhenAbandoned: "finish", ReadAhead: "config",
		},
		Registries: map[string]Registry{dockerHub: defaultRegistry(dockerHub)},
	}
}

// CanonicalRegistry returns the one spelling of a registry's name: in lower case, and docker.io for each of the names
// that clients have for Docker Hub.
func CanonicalRegistry(name string) string {
	name = strings.ToLower(name)
	switch name {
	case "registry-1.docker.io", "index.docker.io":
		return dockerHub
	}
	return name
}

// normalize puts names into their canonical spelling and completes each registry.
func (c *Config) normalize() {
	if c.AdminListen == "off" {
		c.AdminListen = ""
	}
	c.DefaultRegistry = CanonicalRegistry(c.DefaultRegistry)
	b, zone := &c.Bandwidth, c.Bandwidth.TimeZone.Location()
	for _, plan := range []*Plan{&b.Upstream, &b.Background, &b.Clients, &b.PerClient} {
		plan.zone = zone
	}
	for name, registry := range c.Registries {
		registry.complete(name)
		registry.Bandwidth.zone = zone
		for _, hosts := range [][]string{registry.Hosts, registry.TokenRealms} {
			for i := range hosts {
				hosts[i] = strings.ToLower(hosts[i])
			}
		}
		c.Registries[name] = registry
	}
}

// WriteYAML writes the configuration as YAML that [Load] accepts once passwords are put back: secrets are hidden, and the
// "[hidden]" in the place of a password is refused.
func (c *Config) WriteYAML(w io.Writer) error {
	d, err := yaml.NewDumper(w)
	if err != nil {
		return err
	}
	return errors.Join(d.Dump(c), d.Close())
}
