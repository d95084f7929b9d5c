package main

import (
	"context"
	"reflect"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/entrepot/entrepot/config"
	"github.com/entrepot/entrepot/upstream/credential"
)

// login is one of a registry's credentials. It can be exchanged for another while it is in use: those who ask for it meanwhile get the
// one or the other, and no error because of that.
type login struct {
	registry string

	mu sync.Mutex
	// guards following
	given  config.Login
	source credential.Source
	log    *zap.Logger // nil: nobody is told
	closed bool
}

func newLogin(registry string, given config.Login) *login {
	return &login{registry: registry, given: given, source: source(registry, given)}
}

// source is where a login of the configuration comes from.
func source(registry string, l config.Login) credential.Source {
	lifetime := time.Duration(l.Lifetime)
	switch {
	case l.PasswordFile != "":
		return credential.File(l.Username, l.PasswordFile)
	case l.DockerConfig != "":
		return credential.Docker(l.DockerConfig, registry)
	case l.Helper != "":
		return credential.Helper(l.Helper, registry, lifetime)
	case len(l.Exec) > 0:
		return credential.Exec(l.Exec, l.Username, lifetime)
	}
	return credential.Static(credential.Login{Username: l.Username, Password: l.Password.Reveal()})
}

// Get returns what the source has. One that was exchanged meanwhile may have been closed in the middle of that: then the other is asked.
func (l *login) Get(ctx context.Context) (credential.Login, error) {
	for asked := l.current(); ; {
		got, err := asked.Get(ctx)
		now := l.current()
		if err == nil || now == asked || ctx.Err() != nil {
			return got, err
		}
		asked = now
	}
}

// Refused tells the source.
func (l *login) Refused(refused credential.Login) { l.current().Refused(refused) }

// LogTo tells the source, and those that come after it.
func (l *login) LogTo(log *zap.Logger) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.log = log
	l.tellLocked()
}

// Close closes the source.
func (l *login) Close() error {
	l.mu.Lock()
	l.closed = true
	before := l.source
	l.mu.Unlock()
	return closeSource(before)
}

// obey exchanges the source for that of another login, if it is another.
func (l *login) obey(given config.Login) error {
	l.mu.Lock()
	if l.closed || reflect.DeepEqual(l.given, given) {
		l.mu.Unlock()
		return nil
	}
	before := l.source
	l.given, l.source = given, source(l.registry, given)
	l.tellLocked()
	l.mu.Unlock()
	return closeSource(before)
}

func (l *login) current() credential.Source {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.source
}

func (l *login) tellLocked() {
	if worker, ok := l.source.(credential.Worker); ok && l.log != nil {
		worker.LogTo(l.log)
	}
}

func closeSource(s credential.Source) error {
	if worker, ok := s.(credential.Worker); ok {
		return worker.Close()
	}
	return nil
}
