package credential

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/entrepot/entrepot/upstream/watched"
)

const (
	// hub is what docker calls Docker Hub in its config.json, and to helpers.
	hub = "https://index.docker.io/v1/"

	maxDockerConfig = 4 << 20
)

// Docker is what docker's config.json, a Kubernetes secret of type dockerconfigjson or podman's auth.json has for a registry:
// the host[:port] that users log in at; Docker Hub goes by any of its names. A helper that the file names for the registry
// comes before the store that it names for all, and that before what is in the file itself. The file is read again when it
// changes, and helpers are asked every ten minutes. A file without an entry is an error, as is one that is cut short; that
// leaves the login before it in use for a minute, whereas a helper that fails leaves it in use to its end.
func Docker(path, registry string) Source {
	return remember(dockerConfig{watched.New(path, maxDockerConfig), registry})
}

type dockerConfig struct {
	file     *watched.File
	registry string
}

// dockerEntry is what config.json holds of a registry.
type dockerEntry struct {
	Auth, Username, Password string
	IdentityToken            string
}

func (d dockerConfig) version() int {
	_, version, _ := d.file.Read()
	return version
}

func (d dockerConfig) look(ctx context.Context) (found, error) {
	content, _, err := d.file.Read()
	if err != nil {
		return found{}, gone{fmt.Errorf("docker_config: %w", err)}
	}
	f, err := d.find(ctx, content)
	if err != nil {
		return found{}, fmt.Errorf("docker_config %s: %w", d.file.Path(), err)
	}
	return f, nil
}

// find looks for the registry in a config.json. Its errors quote no secret of it.
func (d dockerConfig) find(ctx context.Context, content []byte) (found, error) {
	var doc struct {
		Auths       map[string]dockerEntry
		CredHelpers map[string]string
		CredsStore  string
	}
	if json.Unmarshal(content, &doc) != nil {
		return found{}, gone{errors.New("not a JSON document of the expected form")}
	}
	helper, listed := entry(doc.CredHelpers, d.registry)
	if !listed {
		helper = doc.CredsStore
	}
	if helper != "" {
		since := time.Now()
		l, err := askHelper(ctx, helper, serverOf(d.registry))
		if !errors.Is(err, errNoEntry) {
			return lasting(l, since, 0), err
		}
	}
	own, _ := entry(doc.Auths, d.registry)
	l, err := own.login()
	if err == nil && l == (Login{}) {
		err = fmt.Errorf("it has no credentials for %s: docker login %s makes some", d.registry, d.registry)
	}
	if err != nil {
		return found{}, gone{err}
	}
	return found{login: l}, nil
}

// login reads an entry; the zero one is the anonymous user.
func (e dockerEntry) login() (Login, error) {
	l := Login{Username: e.Username, Password: e.Password, IdentityToken: e.IdentityToken}
	if e.Auth == "" {
		return l, nil
	}
	text, err := base64.StdEncoding.DecodeString(e.Auth)
	username, password, ok := strings.Cut(string(text), ":")
	if err != nil || !ok {
		return Login{}, errors.New("an auth is not the base64 of a user's name, a colon and a password")
	}
	l.Username, l.Password = username, strings.TrimRight(password, "\x00") // docker pads it so
	return l, nil
}

// entry returns what a map of config.json has for a registry, under whichever of its spellings.
func entry[T any](all map[string]T, registry string) (T, bool) {
	if exact, ok := all[serverOf(registry)]; ok {
		return exact, true
	}
	for _, key := range slices.Sorted(maps.Keys(all)) {
		if hostOf(key) == hostOf(registry) {
			return all[key], true
		}
	}
	var none T
	return none, false
}

// serverOf is what docker calls a registry.
func serverOf(registry string) string {
	if host := hostOf(registry); host != "docker.io" {
		return host
	}
	return hub
}

// hostOf is the host[:port] that a key of config.json is about: old ones are URLs. Those of podman that are about part of
// a registry are no host's.
func hostOf(key string) string {
	host := strings.ToLower(key)
	if _, after, ok := strings.Cut(host, "://"); ok {
		host, _, _ = strings.Cut(after, "/")
	}
	for _, path := range []string{"/", "/v1", "/v2"} {
		host = strings.TrimSuffix(host, path)
	}
	switch host {
	case "index.docker.io", "registry-1.docker.io":
		return "docker.io"
	}
	return host
}
