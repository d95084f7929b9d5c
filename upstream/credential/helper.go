package credential

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Helper is what a credential helper of docker's has for a registry: the program docker-credential-NAME, found in PATH. The
// registry is the host[:port] that users log in at; Docker Hub goes by any of its names. A lifetime of 0 is not known: then the
// helper is asked every ten minutes, and what it said is used until the registry refuses it.
func Helper(name, registry string, lifetime time.Duration) Source {
	return remember(helper{name, serverOf(registry), lifetime})
}

type helper struct {
	name, server string
	lifetime     time.Duration
}

func (helper) version() int { return 0 }

func (h helper) look(ctx context.Context) (found, error) {
	since := time.Now()
	l, err := askHelper(ctx, h.name, h.server)
	if err != nil {
		return found{}, err
	}
	return lasting(l, since, h.lifetime), nil
}

// errNoEntry is the error of a helper that has nothing for a registry.
var errNoEntry = errors.New("no credentials for this registry")

// askHelper asks a helper for what it has for a server.
func askHelper(ctx context.Context, name, server string) (Login, error) {
	if name == "" || strings.ContainsAny(name, `/\`) {
		return Login{}, fmt.Errorf("credential helper %q: not the name of a program after docker-credential-", name)
	}
	program := "docker-credential-" + name
	stdout, stderr, err := run(ctx, server, program, "get")
	// By the protocol, what went wrong is told on the standard output.
	if said := strings.ToLower(string(stdout)); err != nil && strings.Contains(said, "credentials not found in native keychain") {
		return Login{}, fmt.Errorf("%s %s: %w", program, server, errNoEntry)
	}
	if err != nil {
		return Login{}, fmt.Errorf("%s: %w", program, withReason(err, stderr, string(stdout)))
	}
	var doc struct{ Username, Secret string }
	// The decoder's error is left out: it may quote what it has read.
	if json.Unmarshal(stdout, &doc) != nil {
		return Login{}, fmt.Errorf("%s: its output is not the JSON document of a credential helper", program)
	}
	secret, err := passwordOf(doc.Secret)
	if err != nil {
		return Login{}, fmt.Errorf("%s: its Secret is no password: %w", program, err)
	}
	if doc.Username == "<token>" {
		return Login{IdentityToken: secret}, nil
	}
	return Login{Username: doc.Username, Password: secret}, nil
}

// Exec is what a program prints: the password of the named user, or a JSON document {"username", "password", "expires_at"},
// of which the password alone is required, and the time is as of RFC 3339. No shell has a part in it. A lifetime of 0 that the document
// does not state either is not known: then the program is run every ten minutes, and what it said is used until the
// registry refuses it.
func Exec(argv []string, username string, lifetime time.Duration) Source {
	return remember(program{argv, username, lifetime})
}

type program struct {
	argv     []string
	username string
	lifetime time.Duration
}

func (program) version() int { return 0 }

func (p program) look(ctx context.Context) (found, error) {
	if len(p.argv) == 0 {
		return found{}, errors.New("exec: no program is named")
	}
	since := time.Now()
	stdout, stderr, err := run(ctx, "", p.argv[0], p.argv[1:]...)
	if err != nil {
		// What it has printed may be the password all the same.
		if printed := strings.TrimSpace(string(stdout)); printed != "" {
			stderr = strings.ReplaceAll(stderr, printed, "[hidden]")
		}
		return found{}, fmt.Errorf("exec %s: %w", p.argv[0], withReason(err, stderr))
	}
	f, err := p.read(string(stdout), since)
	if err != nil {
		return found{}, fmt.Errorf("exec %s: its output: %w", p.argv[0], err)
	}
	return f, nil
}

// read reads what the program has printed. Its errors quote none of that.
func (p program) read(output string, since time.Time) (found, error) {
	output = strings.TrimSpace(output)
	l, lifetime := Login{Username: p.username, Password: output}, p.lifetime
	if strings.HasPrefix(output, "{") {
		var doc struct {
			Username, Password string
			ExpiresAt          string `json:"expires_at"`
		}
		if json.Unmarshal([]byte(output), &doc) != nil {
			return found{}, errors.New(`not a JSON document of "username", "password" and "expires_at"`)
		}
		l.Password = doc.Password
		if doc.Username != "" {
			l.Username = doc.Username
		}
		if doc.ExpiresAt != "" {
			end, err := time.Parse(time.RFC3339, doc.ExpiresAt)
			if err != nil {
				return found{}, errors.New("expires_at is not a time like 2006-01-02T15:04:05Z")
			}
			if lifetime = end.Sub(since); lifetime <= 0 {
				return found{}, fmt.Errorf("it has expired at %s", end.UTC().Format(time.RFC3339))
			}
		}
	}
	var err error
	l.Password, err = passwordOf(l.Password)
	return lasting(l, since, lifetime), err
}
