package testbed

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/authn"
	"golang.org/x/crypto/bcrypt"
)

// Credentials are a user name and password.
type Credentials struct {
	Username, Password string
}

// Registry is a running registry: the upstream.
type Registry struct {
	// Address is its host and port.
	Address string
	auth    authn.Authenticator
}

// StartRegistry starts a registry with an empty store on disk. With credentials it refuses everything, reading
// included, to those who do not know them.
func (b *Bed) StartRegistry(ctx context.Context, c *Credentials) (*Registry, error) {
	dir, err := b.Subdir("registry")
	if err != nil {
		return nil, err
	}
	address, err := FreeAddress()
	if err != nil {
		return nil, err
	}
	r := &Registry{Address: address, auth: authn.Anonymous}
	config := fmt.Sprintf(`version: 0.1
log: {level: warn, accesslog: {disabled: true}}
storage:
  filesystem: {rootdirectory: %q}
http: {addr: %q}
`, filepath.Join(dir, "store"), address)
	if c != nil {
		passwords := filepath.Join(dir, "htpasswd")
		if err := writePasswords(passwords, *c); err != nil {
			return nil, err
		}
		config += fmt.Sprintf("auth:\n  htpasswd: {realm: e2e, path: %q}\n", passwords)
		r.auth = &authn.Basic{Username: c.Username, Password: c.Password}
	}
	file := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	p, err := Start(ctx, Command{
		Name:  "the registry",
		Path:  b.Programs.Registry,
		Args:  []string{"serve", file},
		Env:   []string{"OTEL_TRACES_EXPORTER=none"}, // it would look for a collector otherwise
		Log:   filepath.Join(dir, "log"),
		Ready: answers("http://"+address+"/v2/", http.StatusOK, http.StatusUnauthorized),
	})
	if err != nil {
		return nil, err
	}
	b.OnClose(p.Stop)
	return r, nil
}

// writePasswords writes an htpasswd file. The hash is as cheap as bcrypt allows: the registry computes it anew for
// each request, and the password is nobody's.
func writePasswords(path string, c Credentials) error {
	hash, err := bcrypt.GenerateFromPassword([]byte(c.Password), bcrypt.MinCost)
	if err != nil {
		return err
	}
	return os.WriteFile(path, fmt.Appendf(nil, "%s:%s\n", c.Username, hash), 0o600)
}
