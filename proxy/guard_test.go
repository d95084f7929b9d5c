package proxy_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"github.com/entrepot/entrepot/proxy/access"
	"github.com/entrepot/entrepot/upstream/credential"
)

// guard is a registry with a token server, as strict as Docker Hub: to who may not see it, a private repository is as one that
// there is not.
type guard struct {
	*registry

	mu sync.Mutex
	// guards following
	public map[string]bool     // repositories that nobody in particular may see
	users  map[string][]string // who else may see what: repositories by user
	tokens map[string]ticket
	served map[string]int // answers by user and repository, "ci corp/private"
	issued int            // tokens, ever
	broken int            // the status that everything is answered with; 0: it works
}

// ticket is what a token was issued for.
type ticket struct{ user, scope string }

func newGuard(t testing.TB, public ...string) *guard {
	g := &guard{registry: newRegistry(t), public: map[string]bool{}, users: map[string][]string{}, tokens: map[string]ticket{}, served: map[string]int{}}
	for _, name := range public {
		g.public[name] = true
	}
	g.fail(g.refuses)
	return g
}

// refuses answers whom the registry does not let in, and who wants a token.
func (g *guard) refuses(w http.ResponseWriter, r *http.Request) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.broken != 0 {
		refuse(w, g.broken, "UNAVAILABLE", "out of order")
		return true
	}
	if r.URL.Path == "/token" {
		user, password, ok := r.BasicAuth()
		if ok && password != "password of "+user {
			refuse(w, 401, "UNAUTHORIZED", "incorrect username or password")
			return true
		}
		g.issued++
		token := fmt.Sprintf("token-%d-of-%s", g.issued, user)
		g.tokens[token] = ticket{user, r.URL.Query().Get("scope")}
		fmt.Fprintf(w, `{"token":%q,"expires_in":300}`, token)
		return true
	}
	name := nameIn(r.URL.Path)
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	has, known := g.tokens[token]
	seen := g.public[name]
	for _, also := range g.users[has.user] {
		seen = seen || also == name
	}
	if !known || has.scope != "repository:"+name+":pull" || !seen {
		challenge := fmt.Sprintf(`Bearer realm="%s/token",service="test"`, g.server.URL)
		if name != "" {
			challenge += fmt.Sprintf(`,scope="repository:%s:pull"`, name)
		}
		w.Header().Set("WWW-Authenticate", challenge)
		refuse(w, 401, "UNAUTHORIZED", "authentication required")
		return true
	}
	g.served[has.user+" "+name]++
	return false
}

func nameIn(path string) string {
	path = strings.TrimPrefix(path, "/v2/")
	for _, sep := range []string{"/manifests/", "/blobs/", "/tags/", "/referrers/"} {
		if name, _, ok := strings.Cut(path, sep); ok {
			return name
		}
	}
	return ""
}

// publish has nobody in particular see a repository, or not.
func (g *guard) publish(name string, public bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.public[name] = public
}

// goDown has everything answered with a status, until it is 0.
func (g *guard) goDown(status int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.broken = status
}

// servedTo is how much was shown of a repository to a user.
func (g *guard) servedTo(user, name string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.served[user+" "+name]
}

// token issues one as the token server would, for a repository.
func (g *guard) token(user, name string) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.issued++
	token := fmt.Sprintf("client-%d-of-%s", g.issued, user)
	g.tokens[token] = ticket{user, "repository:" + name + ":pull"}
	return "Authorization: Bearer " + token
}

// revoke has all tokens of a user good for nothing.
func (g *guard) revoke(user string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for token, has := range g.tokens {
		if has.user == user {
			delete(g.tokens, token)
		}
	}
}

// newGuardedMirror starts a mirror of docker.io, which it has credentials at that open what allowed says; policy says whom it
// answers itself.
func newGuardedMirror(t testing.TB, g *guard, policy *access.Policy, allowed ...string) *mirror {
	m := &mirror{t: t, extra: map[string]*registry{"docker.io": g.registry}, policy: policy}
	if len(allowed) > 0 {
		g.users["ci"] = allowed
		m.logins = []credential.Source{credential.Static(credential.Login{Username: "ci", Password: "password of ci"})}
	}
	m.begin()
	return m
}

// htpasswd is a file of these users, whose passwords are "password of" and their name.
func htpasswd(t testing.TB, users ...string) *access.Passwords {
	var lines string
	for _, user := range users {
		hash, err := bcrypt.GenerateFromPassword([]byte("password of "+user), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		lines += user + ":" + string(hash) + "\n"
	}
	path := filepath.Join(t.TempDir(), "htpasswd")
	if err := os.WriteFile(path, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := access.OpenPasswords(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// as is the header of a user of ours; none of nobody.
func as(user string) []string {
	if user == "" {
		return nil
	}
	r, _ := http.NewRequest("GET", "/", nil)
	r.SetBasicAuth(user, "password of "+user)
	return []string{"Authorization: " + r.Header.Get("Authorization")}
}

// below are the repositories whose name begins so.
func below(prefix string) func(registry, repository string) bool {
	return func(registry, repository string) bool {
		return registry == "docker.io" && strings.HasPrefix(repository, prefix)
	}
}
