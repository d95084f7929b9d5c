package config

// TLS makes the listener for clients one of HTTPS. The files are read again when they change.
type TLS struct {
	// CertFile and KeyFile are the certificate, with those that it hangs from, and its key, in PEM. Default: none, plain HTTP.
	CertFile string `yaml:"cert_file,omitempty"`
	KeyFile  string `yaml:"key_file,omitempty"`
	// ClientCAFile holds the authorities, in PEM, whose certificates clients may show: the common name is the user. Default: none,
	// clients are not asked for certificates.
	ClientCAFile string `yaml:"client_ca_file,omitempty"`
}

// Access says who may pull, and what.
type Access struct {
	// AllowClients are the networks that clients may come from. Default: all.
	AllowClients []Network `yaml:"allow_clients,omitempty"`
	// Anonymous says whether clients that don't say who they are may pull what upstream shows to everybody, and what is exposed: allow,
	// deny, or auto, which denies it where they could say who they are: with HtpasswdFile or TLS.ClientCAFile. Default auto.
	Anonymous Anonymity `yaml:"anonymous"`
	// HtpasswdFile has a user:hash a line, by bcrypt, as htpasswd -B writes them. It is read again when it changes. Default: none.
	HtpasswdFile string `yaml:"htpasswd_file,omitempty"`
	// Users are those who may have more than everybody, by the name in HtpasswdFile or the common name of the client's certificate.
	// Default: none.
	Users map[string]User `yaml:"users,omitempty"`
}

// User is somebody who may have more than everybody.
type User struct {
	// Pull is what may be pulled, private or not: repositories, with all that is in them. A tag is refused: what it names is asked for
	// by digests, which are of no tag. It has no default.
	Pull []Pattern `yaml:"pull"`
}

// Match reports whether the user may have a repository.
func (u User) Match(registry, repository string) bool {
	for _, pattern := range u.Pull {
		if pattern.Match(registry, repository, "") {
			return true
		}
	}
	return false
}

// AnonymousAllowed reports whether clients that don't say who they are may pull.
func (c *Config) AnonymousAllowed() bool {
	return c.Access.Anonymous == "allow" || c.Access.Anonymous == "auto" && !c.identifies()
}

// identifies reports whether clients can say who they are.
func (c *Config) identifies() bool { return c.Access.HtpasswdFile != "" || c.TLS.ClientCAFile != "" }

// Anonymity says whether clients may pull without saying who they are: auto, allow or deny.
type Anonymity string

// UnmarshalText accepts the three.
func (a *Anonymity) UnmarshalText(text []byte) error {
	return oneOf(a, string(text), "auto", "allow", "deny")
}

// Authorization is who decides what a client may have of what is not public: mirror or client.
type Authorization string

// UnmarshalText accepts the two.
func (a *Authorization) UnmarshalText(text []byte) error {
	return oneOf(a, string(text), "mirror", "client")
}

// Deletion is what becomes of a tag that upstream no longer has: follow or keep.
type Deletion string

// UnmarshalText accepts the two.
func (d *Deletion) UnmarshalText(text []byte) error {
	return oneOf(d, string(text), "follow", "keep")
}
