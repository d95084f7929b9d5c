package main

import (
	"reflect"
	"slices"
	"time"

	"github.com/entrepot/entrepot/config"
	"github.com/entrepot/entrepot/upstream/credential"
)

// logins are where a registry's credentials come from.
type logins struct {
	host    string // where users log in
	given   []config.Login
	sources []credential.Source // of each of these
}

// of returns the logins of a configuration: the sources that are in use, where these are the same.
func (l logins) of(given []config.Login) logins {
	next := logins{host: l.host, given: given}
	taken := make([]bool, len(l.given))
	for _, g := range given {
		same := slices.IndexFunc(l.given, func(had config.Login) bool { return reflect.DeepEqual(had, g) })
		if same >= 0 && !taken[same] {
			taken[same] = true
			next.sources = append(next.sources, l.sources[same])
			continue
		}
		next.sources = append(next.sources, source(l.host, g))
	}
	return next
}

// source is where a login of the configuration comes from.
func source(host string, l config.Login) credential.Source {
	lifetime := time.Duration(l.Lifetime)
	switch {
	case l.PasswordFile != "":
		return credential.File(l.Username, l.PasswordFile)
	case l.DockerConfig != "":
		return credential.Docker(l.DockerConfig, host)
	case l.Helper != "":
		return credential.Helper(l.Helper, host, lifetime)
	case len(l.Exec) > 0:
		return credential.Exec(l.Exec, l.Username, lifetime)
	}
	return credential.Static(credential.Login{Username: l.Username, Password: l.Password.Reveal()})
}
