package upstream

import (
	"maps"
	"slices"

	"github.com/entrepot/entrepot/upstream/credential"
)

// SetLogins has the registry asked as other logins than before, in the place of Options.Logins. A source that is among those before
// (sources are compared by ==) goes on, with what is known of its budget; those that are not any more are closed.
//
// No question fails because of that. One that is asked as a login that is gone goes on with it, for what a closed source remembers is
// still had; and where that is refused, or there is none, its next turn finds the accounts that have come meanwhile.
func (r *Registry) SetLogins(logins []credential.Source) {
	r.tell(logins)
	// Under the lock that Close takes first: either it finds these to close, or they are closed here.
	r.mu.Lock()
	gone, closed := r.endpoints[0].adopt(logins), r.closed
	r.mu.Unlock()
	r.tokens.dropOf(gone)
	r.putAway(gone)
	if closed {
		r.putAway(r.endpoints[0].accounts(own))
	}
}

// dropOf forgets the tokens of accounts.
func (ts *tokens) dropOf(gone []*account) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	maps.DeleteFunc(ts.kept, func(key tokenKey, _ token) bool { return slices.Contains(gone, key.account) })
}
