// Package access tells who a request is from, and what that one may have.
//
// A request comes from somewhere, as somebody or as nobody in particular. The order of the questions is that of the constants of
// Reason: what the network is refused is refused whatever comes with it, a password that is wrong is refused whatever nobody
// may have. Of a repository somebody may have everything, or what nobody in particular may have: what that is, is for the
// registry to say, and asked elsewhere.
//
// The package knows no registry and no cache. Which names fit which patterns it is told by functions.
package access

import (
	"errors"
	"net"
	"net/http"
	"net/netip"
)

// Policy says who may have what. It is not changed once it is in use: another takes its place. The zero value, with
// Anonymous, lets everybody have what a registry shows to everybody.
type Policy struct {
	Networks  []netip.Prefix // from where requests are answered; none: from everywhere
	Anonymous bool           // who does not say who it is may have what nobody in particular may have
	Htpasswd  *Passwords     // nil: there are none, and who sends one is not listened to
	// Users are by their name in Htpasswd or the common name of their certificate. The function says whether a repository is one of
	// those that the user may have all of. Who is not among them may have what nobody in particular may have.
	Users map[string]func(registry, repository string) bool

	Registries map[string]Registry // by name; of one that is not here, everybody may have everything
}

// Registry is how a registry matters to who may have what of it.
type Registry struct {
	Credentials bool                         // entrepot has some there: it may be shown what nobody in particular is
	Exposed     func(repository string) bool // what everybody may have all the same; nil: nothing
	Client      bool                         // the client's own Authorization there decides, in place of one here
}

// Reason is why a request is refused.
type Reason string

// The reasons of this package, and those of the answers to what is asked elsewhere.
const (
	Network   Reason = "network"   // comes from where nobody is allowed
	Password  Reason = "password"  // the user or the password is wrong
	Anonymous Reason = "anonymous" // does not say who it is
	Pattern   Reason = "pattern"   // asks for what its user may not have
	Private   Reason = "private"   // asks for what the registry does not show to everybody
	Client    Reason = "client"    // the registry does not take what the client has presented, or that is nothing
)

// Reasons are all of them.
var Reasons = []Reason{Network, Password, Anonymous, Pattern, Private, Client}

// Refusal is the error of who may not.
type Refusal struct {
	Reason    Reason
	Challenge string // what would help, as the value of a WWW-Authenticate header; "": nothing does
}

func (r *Refusal) Error() string { return "refused: " + string(r.Reason) }

// challenge asks for a password. Its realm tells people whose: some clients answer any challenge with the one that they have for
// Docker Hub.
const challenge = `Basic realm="entrepot", charset="UTF-8"`

// Enter answers whether a request may come in, and as whom: user "" is nobody in particular. With forRegistry the registry is to judge
// it by its Authorization, which is returned as presented then: unless that is a user and a password and there are Htpasswd, for it
// is they who these are for. Two empty ones are what some clients answer to any challenge: nobody. The error is a *Refusal, or says
// why it can't be told now.
func (p *Policy) Enter(r *http.Request, forRegistry bool) (user, presented string, err error) {
	if !p.near(r.RemoteAddr) {
		return "", "", &Refusal{Reason: Network}
	}
	name, password, isBasic := r.BasicAuth()
	switch anybody := name == "" && password == ""; {
	case isBasic && anybody:
	case isBasic && p.Htpasswd != nil:
		right, err := p.Htpasswd.Check(r.Context(), hostOf(r.RemoteAddr), name, password)
		if err == nil && !right {
			err = &Refusal{Password, challenge}
		}
		if err != nil {
			return "", "", err
		}
		return name, "", nil
	case forRegistry:
		presented = r.Header.Get("Authorization")
	}
	if user = commonName(r); user != "" || p.Anonymous {
		return user, presented, nil
	}
	if forRegistry && p.Htpasswd != nil { // it can't say who it is here and there
		return "", presented, nil
	}
	return "", "", p.Unknown()
}

// Unknown is the refusal of who does not say who it is, and has to.
func (p *Policy) Unknown() error {
	if p.Htpasswd == nil {
		return &Refusal{Reason: Anonymous}
	}
	return &Refusal{Anonymous, challenge}
}

// Invite is the refusal of a question how to come in, by who does not say who it is, and could: some clients show their passwords
// only to who has asked for them then. Nobody in particular is let in later all the same; nil: there are no passwords.
func (p *Policy) Invite() error {
	if p.Htpasswd == nil {
		return nil
	}
	return &Refusal{Anonymous, challenge}
}

// Grant is what of a repository somebody may have.
type Grant int

const (
	Nothing    Grant = iota
	Everything       // private or not
	Open             // everything, if the registry was never asked for more than it shows to nobody in particular
	Shown            // what the registry shows to nobody in particular
	Presented        // what it shows to who presents what the client does
)

// May returns what of a repository a user may have. The error is a *Refusal: nothing.
func (p *Policy) May(user, registry, repository string) (Grant, error) {
	matches, named := p.Users[user]
	mine := named && user != "" && matches(registry, repository)
	if named && user != "" && !mine && !p.Anonymous {
		return Nothing, &Refusal{Reason: Pattern}
	}
	of := p.Registries[registry]
	known := user != "" || p.Anonymous // who is for the registry to judge came in without a word on who it is
	exposed := known && (of.Credentials || !of.Client) && of.Exposed != nil && of.Exposed(repository)
	switch {
	case exposed, mine && of.Credentials:
		return Everything, nil
	case of.Client:
		return Presented, nil
	case mine:
		return Everything, nil
	case !of.Credentials:
		return Open, nil
	}
	return Shown, nil
}

// Hidden is the refusal of what the registry does not show to everybody: somebody might still be shown it.
func (p *Policy) Hidden(user string) *Refusal {
	if user == "" && p.Htpasswd != nil {
		return &Refusal{Private, challenge}
	}
	return &Refusal{Reason: Private}
}

// near reports whether requests from an address are answered.
func (p *Policy) near(remote string) bool {
	if len(p.Networks) == 0 {
		return true
	}
	at, err := netip.ParseAddrPort(remote)
	if err != nil {
		return false
	}
	// A listener for both IPv4 and IPv6 has the former mapped into the latter; and a zone is a link of ours, not of theirs.
	address := at.Addr().Unmap().WithZone("")
	for _, network := range p.Networks {
		if network.Contains(address) {
			return true
		}
	}
	return false
}

// hostOf is the address that a request comes from, without its port.
func hostOf(remote string) string {
	host, _, _ := net.SplitHostPort(remote) // all whose address can't be told are one
	return host
}

// commonName is the name in the certificate that a client has shown, and that was verified.
func commonName(r *http.Request) string {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 || len(r.TLS.VerifiedChains[0]) == 0 {
		return ""
	}
	return r.TLS.VerifiedChains[0][0].Subject.CommonName
}

// ErrBusy says that so many passwords are being checked that one more would wait for too long.
var ErrBusy = errors.New("too many passwords are being checked")
