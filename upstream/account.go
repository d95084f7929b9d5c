package upstream

import (
	"slices"
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
	number   int                    // among all logins that the endpoint has ever had, from 1 on; 0: nobody, or a client
	label    atomic.Pointer[string] // of its latest login; nil: it has had none yet

	// Guarded by the quotas of the endpoint:
	used             bool
	gone             bool // its source is closed
	budget           budget
	trouble          trouble
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

// adopt has an endpoint asked as these logins from now on. Those that it had before go on as they are; it returns those that it
// has no more.
func (e *endpoint) adopt(logins []credential.Source) (gone []*account) {
	if len(logins) == 0 && e.certified {
		logins = []credential.Source{nil} // who shows a certificate is somebody, by whatever name
	}
	e.quotas.mu.Lock()
	defer e.quotas.mu.Unlock()
	gone = slices.Clone(e.logins)
	var all []*account
	for _, source := range logins {
		if i := slices.IndexFunc(gone, func(a *account) bool { return a.source == source }); i >= 0 {
			all, gone = append(all, gone[i]), slices.Delete(gone, i, i+1)
			continue
		}
		e.numbered++
		all = append(all, &account{endpoint: e, source: source, number: e.numbered})
	}
	for _, a := range gone {
		a.gone = true
	}
	e.logins = all
	return gone
}

// identity is what the account is asked as: nobody, or somebody of the operator's.
func (a *account) identity() identity {
	if a.number == 0 {
		return nobody
	}
	return own
}

// id is unique within the registry, for ever: no account that comes later is taken for this one.
func (a *account) id() string { return strconv.Itoa(a.number) + " at " + a.endpoint.name }

// accounts are those that e may be asked as by an identity. Who a client is, is not remembered. The slice is not changed any more.
func (e *endpoint) accounts(as identity) []*account {
	if as.presented != "" && e.first {
		return []*account{{endpoint: e}}
	}
	e.quotas.mu.Lock()
	defer e.quotas.mu.Unlock()
	if as.nobody || len(e.logins) == 0 {
		return []*account{e.nobody}
	}
	return e.logins
}

// without returns those of all that are not among some.
func without(all, some []*account) []*account {
	if len(some) == 0 {
		return all
	}
	return slices.DeleteFunc(slices.Clone(all), func(a *account) bool { return slices.Contains(some, a) })
}

// tell has sources that work by themselves tell of it to the log.
func (r *Registry) tell(logins []credential.Source) {
	for _, source := range logins {
		if worker, ok := source.(credential.Worker); ok {
			worker.LogTo(r.log.With(zap.String("registry", r.name)))
		}
	}
}

// putAway closes the sources of accounts that are used no more.
func (r *Registry) putAway(gone []*account) {
	for _, a := range gone {
		worker, ok := a.source.(credential.Worker)
		if !ok {
			continue
		}
		if err := worker.Close(); err != nil {
			r.log.Warn("credentials that are not used any more could not be put away", zap.String("registry", r.name), zap.Error(err))
		}
	}
}
