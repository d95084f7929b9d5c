package upstream

import (
	"context"
	"strconv"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/entrepot/entrepot/upstream/credential"
)

// identity is whom a question is asked as. The zero value is whom the operator says: at an endpoint that may have the logins one
// of these, at any other nobody.
type identity struct {
	nobody    bool   // whatever logins there are
	presented string // an Authorization header that a client came with: the first endpoint gets it as it is, and the answer is the answer
}

var (
	own    = identity{}
	nobody = identity{nobody: true}
)

// presented is whoever a client says it is.
func presented(authorization string) identity { return identity{presented: authorization} }

// account is one of those that an endpoint may be asked as.
type account struct {
	endpoint *endpoint
	source   credential.Source      // nil: nobody
	number   int                    // among the logins of the endpoint, from 1 on; 0: nobody, or a client
	label    atomic.Pointer[string] // of its latest login; nil: it has had none yet

	// Guarded by the quotas of the endpoint:
	used             bool
	budget           budget
	waits, throttled int64
	waited           time.Duration
}

// name is for the operator; "" if it is not known yet.
func (a *account) name() string {
	if a.source == nil {
		return anonymous
	}
	if p := a.label.Load(); p != nil {
		return *p
	}
	return ""
}

const anonymous = "anonymous"

// called takes down who the account is.
func (a *account) called(who credential.Login) {
	name := anonymous
	if who != (credential.Login{}) {
		name = printable(who.Username, maxCode)
	}
	if a.name() != name {
		a.label.Store(&name)
	}
}

func newAccounts(e *endpoint, logins []credential.Source) (all []*account) {
	for i, source := range logins {
		all = append(all, &account{endpoint: e, source: source, number: i + 1})
	}
	return all
}

// identity is what the account is asked as: nobody, or somebody of the operator's.
func (a *account) identity() identity {
	if a.number == 0 {
		return nobody
	}
	return own
}

// id is unique within the registry.
func (a *account) id() string { return strconv.Itoa(a.number) + " at " + a.endpoint.name }

// accounts are those that e may be asked as by an identity. Who a client is, is not remembered.
func (e *endpoint) accounts(as identity) []*account {
	switch {
	case as.presented != "" && e.first:
		return []*account{{endpoint: e}}
	case as.nobody, len(e.logins) == 0:
		return []*account{e.nobody}
	}
	return e.logins
}

// login returns who an account is. Why that can't be told is for the log alone.
func (r *Registry) login(ctx context.Context, a *account) (credential.Login, error) {
	if a.source == nil {
		return credential.Login{}, nil
	}
	who, err := a.source.Get(ctx)
	if err != nil && ctx.Err() == nil {
		r.log.Error("credentials can't be read", zap.String("registry", r.name), zap.Error(err))
		return credential.Login{}, errCredentials
	}
	a.called(who)
	return who, err
}
