package config

import (
	"cmp"
	"slices"
)

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
	// Credentials are presented to the first endpoint alone; all others are asked anonymously. Several take turns, so that the
	// limits of each are spared. Default: none, pulls are anonymous.
	Credentials Logins `yaml:"credentials,omitempty"`
	// Authorization says who decides what a client may have of what is not public: mirror, what is written here of clients, or
	// client, the registry by the client's own credentials for it, which are passed on. Default mirror.
	Authorization Authorization `yaml:"authorization"`
	// Expose are the repositories that everybody may have, although they are fetched with the credentials. Default: none.
	Expose []Glob `yaml:"expose,omitempty"`
	// TagTTL is how long tags are answered without asking upstream; the first rule that is for a tag decides, and where none is,
	// Cache.TagTTL. Default: none.
	TagTTL []TagRule `yaml:"tag_ttl,omitempty"`
	// QuotaReserve is how much of the registry's rate limit is kept for what can't be done without: it is not spent on reading
	// ahead and on looking whether tags have moved. Default 10%.
	QuotaReserve Reserve `yaml:"quota_reserve"`
	// Bandwidth is the most that is fetched from this registry. Default: unlimited.
	Bandwidth Plan `yaml:"bandwidth,omitempty"`
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
	// CAFile holds certificates of authorities, in PEM, that are believed besides the system's. Default: none.
	CAFile string `yaml:"ca_file,omitempty"`
	// ClientCertFile and ClientKeyFile are the certificate, in PEM, that is shown to the endpoint. Default: none.
	ClientCertFile string `yaml:"client_cert_file,omitempty"`
	ClientKeyFile  string `yaml:"client_key_file,omitempty"`
	// Insecure says that whatever certificate the endpoint shows will do. Default: false.
	Insecure bool `yaml:"insecure,omitempty"`
	// Proxy is the proxy by which it is reached. Default: environment.
	Proxy Proxy `yaml:"proxy,omitempty"`
	// Dial is where connections go in place of the URL's host and port. Default: none.
	Dial Address `yaml:"dial,omitempty"`
	// DNS is the server that is asked for the address of the URL's host. Default: the system's.
	DNS Resolver `yaml:"dns,omitempty"`
}

// Connections bounds the connections by which a registry's blobs are fetched.
type Connections struct {
	// PerBlob is how many connections one large blob may use at once, up to 8; 1 is for one. Default 6.
	PerBlob Count `yaml:"per_blob"`
	// PerEndpoint is how many connections for blobs an endpoint has when no further ones are added to blobs, up to 1000:
	// a blob always gets its first. Default 24.
	PerEndpoint Count `yaml:"per_endpoint"`
}

// Logins are the credentials of a registry: a mapping in the file where there is one, a list where there are several.
type Logins []Login

// MarshalYAML returns the one login of one.
func (l Logins) MarshalYAML() (any, error) {
	if len(l) == 1 {
		return l[0], nil
	}
	return []Login(l), nil
}

// Login is one way to be somebody at a registry: a password, a file that holds one, docker's configuration, a helper or a command.
// It is of exactly one of these.
type Login struct {
	// Username goes with a password. Default: none.
	Username string `yaml:"username,omitempty"`
	// Password is the password or access token itself. Default: none.
	Password Secret `yaml:"password,omitempty"`
	// PasswordFile is a file that holds the password, relative to the working directory; one newline at its end is
	// not part of it. Default: none.
	PasswordFile string `yaml:"password_file,omitempty"`
	// DockerConfig is a config.json of docker's, whose passwords, helpers and stores are used. Default: none.
	DockerConfig string `yaml:"docker_config,omitempty"`
	// Helper is a credential helper of docker's by the end of its name: ecr-login for docker-credential-ecr-login. Default: none.
	Helper string `yaml:"helper,omitempty"`
	// Exec is a command, and its arguments, that prints the password. No shell is in between. Default: none.
	Exec []string `yaml:"exec,omitempty"`
	// Lifetime is how long what Helper or Exec has given may be used, unless what they print says otherwise. Default: not known; they are
	// run every ten minutes, and what they gave is used until it is refused.
	Lifetime Duration `yaml:"lifetime,omitempty"`
}

// isZero reports whether nothing is given.
func (l Login) isZero() bool {
	return l.Username == "" && l.Password.IsZero() && l.PasswordFile == "" && l.DockerConfig == "" && l.Helper == "" &&
		len(l.Exec) == 0 && l.Lifetime == 0
}

// Six connections at a time are what a browser opens to a server, so servers are used to them. An endpoint gives as many
// to four blobs, one more than dockerd and containerd pull at once, before it is spared.
const (
	defaultPerBlob     Count = 6
	defaultPerEndpoint Count = 24
)

// newRegistry is a registry before anything is given of it: it has what could be given as nothing, too.
func newRegistry() Registry { return Registry{QuotaReserve: Reserve{Percent: 10}} }

// defaultRegistry is a registry of which nothing but its name is given.
func defaultRegistry(name string) Registry {
	r := newRegistry()
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
	r.Authorization = cmp.Or(r.Authorization, "mirror")
	if name != dockerHub {
		return
	}
	for i, glob := range r.Expose {
		r.Expose[i] = Glob(official(string(glob)))
	}
	for i, rule := range r.TagTTL {
		r.TagTTL[i].Repository = Glob(official(string(rule.Repository)))
	}
}

// Known reports whether an endpoint may show more than it shows to everybody: it is told who asks.
func (r Registry) Known() bool {
	return len(r.Credentials) > 0 || slices.ContainsFunc(r.Endpoints, func(e Endpoint) bool { return e.ClientCertFile != "" })
}

// trusts reports whether an endpoint is trusted.
func (r *Registry) trusts() bool {
	return slices.ContainsFunc(r.Endpoints, func(e Endpoint) bool { return e.Trusted })
}
