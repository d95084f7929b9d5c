package testbed

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"syscall"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"golang.org/x/crypto/bcrypt"
)

// Credentials are a user name and password.
type Credentials struct {
	Username, Password string
}

// Registry is a running registry: the upstream.
type Registry struct {
	// CAFile is the certificate of the authority behind its own, in PEM; "": it speaks plain HTTP.
	CAFile string
	// Address is its host and port.
	Address   string
	auth      authn.Authenticator
	transport http.RoundTripper // of those who push
	passwords string            // the htpasswd file, if there is one
	process   *Process
}

// StartRegistry starts a registry with an empty store on disk. With credentials it refuses everything, reading
// included, to those who do not know them.
func (b *Bed) StartRegistry(ctx context.Context, c *Credentials) (*Registry, error) {
	return b.startRegistry(ctx, c, nil)
}

// StartSecureRegistry is StartRegistry by HTTPS, with a certificate of an authority that nobody knows: it is in the file
// Registry.CAFile.
func (b *Bed) StartSecureRegistry(ctx context.Context, c *Credentials) (*Registry, error) {
	a, err := b.newAuthority()
	if err != nil {
		return nil, err
	}
	return b.startRegistry(ctx, c, a)
}

func (b *Bed) startRegistry(ctx context.Context, c *Credentials, a *authority) (*Registry, error) {
	dir, err := b.Subdir("registry")
	if err != nil {
		return nil, err
	}
	address, err := FreeAddress()
	if err != nil {
		return nil, err
	}
	r := &Registry{Address: address, auth: authn.Anonymous, transport: remote.DefaultTransport}
	scheme, security := "http", ""
	if a != nil {
		scheme, security = "https", fmt.Sprintf(", tls: {certificate: %q, key: %q}", a.certFile, a.keyFile)
		r.CAFile = a.caFile
		trusting := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: a.pool}}
		b.OnClose(func() error { trusting.CloseIdleConnections(); return nil })
		r.transport = trusting
	}
	config := fmt.Sprintf(`version: 0.1
log: {level: warn, accesslog: {disabled: true}}
storage:
  filesystem: {rootdirectory: %q}
http: {addr: %q%s}
`, filepath.Join(dir, "store"), address, security)
	if c != nil {
		r.passwords = filepath.Join(dir, "htpasswd")
		if err := r.SetPasswords(*c); err != nil {
			return nil, err
		}
		config += fmt.Sprintf("auth:\n  htpasswd: {realm: e2e, path: %q}\n", r.passwords)
		r.auth = &authn.Basic{Username: c.Username, Password: c.Password}
	}
	file := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	r.process, err = Start(ctx, Command{
		Name:  "the registry",
		Path:  b.Programs.Registry,
		Args:  []string{"serve", file},
		Env:   []string{"OTEL_TRACES_EXPORTER=none"}, // it would look for a collector otherwise
		Log:   filepath.Join(dir, "log"),
		Ready: answersOver(r.transport, scheme+"://"+address+"/v2/", http.StatusOK, http.StatusUnauthorized),
	})
	if err != nil {
		return nil, err
	}
	b.OnClose(r.process.Stop)
	return r, nil
}

// SetPasswords changes who the registry lets in, from the next request on. The hashes are as cheap as bcrypt allows: the registry
// computes one anew for each request, and the passwords are nobody's.
func (r *Registry) SetPasswords(all ...Credentials) error {
	var text []byte
	for _, c := range all {
		hash, err := bcrypt.GenerateFromPassword([]byte(c.Password), bcrypt.MinCost)
		if err != nil {
			return err
		}
		text = fmt.Appendf(text, "%s:%s\n", c.Username, hash)
	}
	// It looks at the time of change, and must not see half a file.
	if err := os.WriteFile(r.passwords+"~", text, 0o600); err != nil {
		return err
	}
	return os.Rename(r.passwords+"~", r.passwords)
}

// Freeze stops the registry, with all requests that it has not answered, until Thaw.
func (r *Registry) Freeze() error { return r.process.cmd.Process.Signal(syscall.SIGSTOP) }

// Thaw lets it go on.
func (r *Registry) Thaw() error { return r.process.cmd.Process.Signal(syscall.SIGCONT) }
