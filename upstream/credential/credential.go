// Package credential finds the logins that registries are asked with: in the configuration, in files, by way of
// docker's config.json and its helpers, and from programs.
//
// The life of a login: it is looked for when somebody asks first, by one look however many ask, and remembered. Ahead
// of its end (at 5/6 of its life) it is looked for again behind everybody's back; a look that fails leaves the old one in
// use until that ends, and is repeated at growing pauses. It is looked for at once when the file that it came from has changed,
// and when the registry refuses it, though not over and over: a wrong password must not have a program run in a loop.
//
// Its invariants:
//
//   - A login that is valid is never withheld because a newer one can't be had; one that its file does not hold any more,
//     for a minute.
//   - No error and no log line holds a password or a token: neither what a file or a program's output holds, nor what
//     looks like a secret in what a program says about its failure.
//   - A program has a time, and a measure for its output; it is ended, with all that it has started, when it exceeds them.
package credential

import (
	"context"
	"fmt"
	"io"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Login is who to be at a registry. The zero value is the anonymous user. However it is printed, its secrets are not.
type Login struct {
	Username, Password string

	// IdentityToken is what OAuth 2.0 calls a refresh token: it is exchanged for a token at the realm, in place of the
	// password.
	IdentityToken string
}

// String names the user alone.
func (l Login) String() string {
	if l == (Login{}) {
		return "anonymous"
	}
	return l.Username + ":[hidden]"
}

// Format prints String, whatever the verb: fmt would look inside for one that does not suit it.
func (l Login) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, l.String()) }

// MarshalText is String, for what prints by way of JSON or YAML.
func (l Login) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// MarshalLogObject writes the user's name to a log.
func (l Login) MarshalLogObject(e zapcore.ObjectEncoder) error {
	e.AddString("username", l.Username)
	return nil
}

type instead struct{}

// Instead returns a context under which Get waits for the look that a refusal has caused, if the login is still the one that was
// refused. Others are given that meanwhile: it may have been refused for one thing, and be good for all else.
func Instead(ctx context.Context, refused Login) context.Context {
	return context.WithValue(ctx, instead{}, refused)
}

// Source is where a login comes from. Its methods may be called from many goroutines.
type Source interface {
	// Get returns the login. It is cheap, but for the calls that have to wait for a look: the first, and those after a
	// change or a refusal. A caller that leaves disturbs nobody.
	Get(ctx context.Context) (Login, error)

	// Refused tells that the registry refused a login. If it is the one that is remembered, the next Get looks again,
	// unless that was done a moment ago.
	Refused(Login)
}

// Worker is a source that does work of its own and has something to tell about it. All sources of this package but Static are.
type Worker interface {
	Source

	// LogTo has the source tell of its troubles to a log. Without it, it is silent.
	LogTo(*zap.Logger)

	// Close ends a look under way and waits for that. What is remembered is still had; nothing is looked for again.
	Close() error
}

// Static is a login that does not change.
func Static(l Login) Source { return static(l) }

type static Login

func (s static) Get(context.Context) (Login, error) { return Login(s), nil }
func (s static) Refused(Login)                      {}

// String names the user alone.
func (s static) String() string { return Login(s).String() }

// Format prints String.
func (s static) Format(f fmt.State, verb rune) { Login(s).Format(f, verb) }
