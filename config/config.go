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
//     digits as _. Lists are separated by commas. ENTREPOT_REGISTRIES adds registries by name.
//   - Secrets do not show: not when printed, logged or marshalled, and not in an error. A password file is read when the
//     password is used, see [Credentials.Resolve], so that a rotated one is seen.
//   - The only I/O is reading the file and the password files that it names.
//
// The whole file, with values that are typical, not default:
//
//	listen: :5000
//	admin_listen: 127.0.0.1:5001
//	data_dir: /var/lib/entrepot
//	index_dir: /var/lib/entrepot-index
//	default_registry: docker.io
//	shutdown_grace: 30s
//	log: {level: info, format: auto}
//	cache:
//	  max_size: 200GiB
//	  min_free: 5%
//	  pin: [docker.io/library/alpine:*, ghcr.io/owner/**]
//	  scrub_rate: 20MiB/s
//	  verify_after: 30d
//	  tag_ttl: 60s
//	  fill: auto
//	  when_abandoned: finish
//	  read_ahead: config
//	registries:
//	  docker.io:
//	    endpoints: [{url: https://registry-1.docker.io}]
//	    credentials: {username: ci, password_file: /run/secrets/hub}
//	  ghcr.io:
//	    endpoints: [{url: https://ghcr.io, trusted: true}, {url: https://ghcr.example}]
//	    prefer: speed
//	    connections: {per_blob: 4, per_endpoint: 24}
//	    credentials: {username: bot, password: s3cret}
//	    hosts: [ghcr.mirror.example]
//	    token_realms: [auth.example]
//	bandwidth: {upstream: 200Mbit/s, background: 50Mbit/s}
package config

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// Config is the whole configuration. Values come from [Load] or [Default]; one made by hand goes through
// [Config.Validate].
type Config struct {
	// Listen is the address that clients pull from, [host]:port. Default ":5000".
	Listen string `yaml:"listen"`
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
	// Log says what is logged, and how.
	Log Log `yaml:"log"`
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

// Registry is one upstream registry.
type Registry struct {
	// Endpoints serve the registry. What is named by digest comes from any of them, see Prefer; what a tag means is said
	// by those that are trusted. Default: https:// and the registry's name; for docker.io https://registry-1.docker.io.
	Endpoints []Endpoint `yaml:"endpoints"`
	// Prefer says in which order endpoints are asked for what is named by digest: order, as they are listed, or speed, the
	// fastest first. Default order.
	Prefer Preference `yaml:"prefer"`
	// Connections bounds the connections by which blobs are fetched.
	Connections Connections `yaml:"connections"`
	// Credentials are presented to the first endpoint alone; all others are asked anonymously. Default: none, pulls are
	// anonymous.
	Credentials Credentials `yaml:"credentials,omitempty"`
	// Hosts are the Host names, host[:port], by which clients reach this registry directly. Default: none.
	Hosts []string `yaml:"hosts,omitempty"`
	// TokenRealms are hosts, host[:port], that may receive the credentials as token servers over any scheme. The first
	// endpoint itself, and an https server that an https endpoint refers to, may without being listed. Default: none.
	TokenRealms []string `yaml:"token_realms,omitempty"`
}

// Endpoint is one place that serves a registry.
type Endpoint struct {
	// URL is where the endpoint's /v2/ hangs, without that /v2. It has no default.
	URL URL `yaml:"url"`
	// Trusted says that the endpoint knows what tags mean. Default: false, but true for the first endpoint of a registry
	// none of whose endpoints is marked.
	Trusted bool `yaml:"trusted"`
}

// Connections bounds the connections by which a registry's blobs are fetched.
type Connections struct {
	// PerBlob is how many connections one large blob may use at once, up to 8; 1 is for one. Default 6.
	PerBlob Count `yaml:"per_blob"`
	// PerEndpoint is how many connections for blobs an endpoint has when no further ones are added to blobs, up to 1000:
	// a blob always gets its first. Default 24.
	PerEndpoint Count `yaml:"per_endpoint"`
}

// Credentials are a user name and a password; the password is given here or in a file, not both.
type Credentials struct {
	// Username goes with a password. Default: none.
	Username string `yaml:"username,omitempty"`
	// Password is the password or access token itself. Default: none.
	Password Secret `yaml:"password,omitempty"`
	// PasswordFile is a file that holds the password, relative to the working directory; one newline at its end is
	// not part of it. Default: none.
	PasswordFile string `yaml:"password_file,omitempty"`
}

// Bandwidth limits transfers.
type Bandwidth struct {
	// Upstream is the most that is fetched from all registries together, in bytes or bits per second.
	// Default: unlimited.
	Upstream Rate `yaml:"upstream"`
	// Background is the most that is fetched of blobs that nobody waits for, within Upstream. Default: unlimited.
	Background Rate `yaml:"background"`
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
		Cache: Cache{
			MinFree: Space{Percent: 5}, ScrubRate: ScrubWeekly, VerifyAfter: Duration(30 * day),
			TagTTL: Duration(60 * time.Second), Fill: "auto", WhenAbandoned: "finish", ReadAhead: "config",
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

// Six connections at a time are what a browser opens to a server, so servers are used to them. An endpoint gives as many
// to four blobs, one more than dockerd and containerd pull at once, before it is spared.
const (
	defaultPerBlob     Count = 6
	defaultPerEndpoint Count = 24
)

// defaultRegistry is a registry of which nothing but its name is given.
func defaultRegistry(name string) (r Registry) {
	r.complete(name)
	return r
}

// complete gives a registry what was not given.
func (r *Registry) complete(name string) {
	if len(r.Endpoints) == 0 {
		r.Endpoints = []Endpoint{{URL: URL("https://" + name)}}
		if name == dockerHub {
			r.Endpoints[0].URL = "https://registry-1.docker.io"
		}
	}
	if !r.trusts() {
		r.Endpoints[0].Trusted = true
	}
	r.Prefer = cmp.Or(r.Prefer, "order")
	r.Connections.PerBlob = cmp.Or(r.Connections.PerBlob, defaultPerBlob)
	r.Connections.PerEndpoint = cmp.Or(r.Connections.PerEndpoint, defaultPerEndpoint)
}

// trusts reports whether an endpoint is trusted.
func (r *Registry) trusts() bool {
	return slices.ContainsFunc(r.Endpoints, func(e Endpoint) bool { return e.Trusted })
}

// normalize puts names into their canonical spelling and completes each registry.
func (c *Config) normalize() {
	if c.AdminListen == "off" {
		c.AdminListen = ""
	}
	c.DefaultRegistry = CanonicalRegistry(c.DefaultRegistry)
	for name, registry := range c.Registries {
		registry.complete(name)
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

// maxPassword bounds a password file. Access tokens are a few kilobytes; more is the wrong file.
const maxPassword = 64 << 10

// Resolve returns the user name and the password, both "" for anonymous. It reads the password file at each call, so
// that a replaced file is seen.
func (c Credentials) Resolve() (username, password string, err error) {
	if c.PasswordFile == "" {
		return c.Username, c.Password.Reveal(), nil
	}
	// A pipe or a device could block or never end, and can't be read again.
	info, err := os.Stat(c.PasswordFile)
	if err != nil {
		return "", "", fmt.Errorf("password file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return "", "", fmt.Errorf("password file: %s is not a regular file", c.PasswordFile)
	}
	text, err := readBounded(c.PasswordFile, maxPassword)
	if err != nil {
		return "", "", fmt.Errorf("password file: %w", err)
	}
	password = strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
	if password == "" {
		return "", "", fmt.Errorf("password file: %s is empty", c.PasswordFile)
	}
	return c.Username, password, nil
}

// readBounded reads a file of at most limit bytes.
func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s is larger than %s", path, Size(limit))
	}
	return data, nil
}
