package proxy_test

import (
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/proxy/access"
)

// estate is a registry with three repositories: one that everybody may see, one that only entrepot may, and one like that which
// it exposes. Each has an image "1" of one layer.
type estate struct {
	*guard
	t         testing.TB
	layers    map[string][]byte
	manifests map[string]digest.Digest
}

var estateNames = []string{"library/public", "corp/private", "corp/exposed"}

func newEstate(t testing.TB) *estate {
	e := &estate{guard: newGuard(t, "library/public"), t: t, layers: map[string][]byte{}, manifests: map[string]digest.Digest{}}
	for i, name := range estateNames {
		e.layers[name] = random(5000 + i)
		e.manifests[name] = e.image(name, "1", e.layers[name])
		for _, query := range []string{"?n=1", "?"} {
			e.lists[name+"/tags/list"+query] = list{body: fmt.Sprintf(`{"name":%q,"tags":["1"]}`, name)}
		}
		e.lists[name+"/referrers/"+e.manifests[name].String()+"?"] = list{body: `{"schemaVersion":2,"manifests":[]}`}
	}
	return e
}

// mirror starts one before the estate: with credentials for all of it, and users alice, for all below corp/, bob, for what there is
// not, and root, for everything.
func (e *estate) mirror(change func(*access.Policy)) *mirror {
	p := &access.Policy{Anonymous: true, Htpasswd: htpasswd(e.t, "alice", "bob", "root"),
		Users: map[string]func(registry, repository string) bool{"alice": below("corp/"), "bob": below("bobs/"), "root": below("")},
		Registries: map[string]access.Registry{"docker.io": {Credentials: true,
			Exposed: func(repository string) bool { return repository == "corp/exposed" }}}}
	if change != nil {
		change(p)
	}
	return newGuardedMirror(e.t, e.guard, p, estateNames...)
}

// paths are all that can be asked of a repository, under another name if one is given.
func (e *estate) paths(of, name string) map[string]string {
	d, layer := e.manifests[of], digest.FromBytes(e.layers[of])
	return map[string]string{
		"tag": manifestPath(name, "1"), "digest": digestPath(name, d), "blob": blobPath(name, layer),
		"tags/list": "/v2/" + name + "/tags/list", "referrers": "/v2/" + name + "/referrers/" + d.String(),
	}
}

// warm has all of a repository in the cache.
func (e *estate) warm(m *mirror, name string) {
	e.t.Helper()
	for kind, path := range e.paths(name, name) {
		if a := m.get(path, append(as("root"), acceptAll())...); a.status != 200 {
			e.t.Fatalf("%s of %s: %d %s", kind, name, a.status, a.body)
		}
	}
	m.settled()
}

func TestPromiseWhoGetsWhat(t *testing.T) {
	type want struct{ public, private, exposed int }
	for _, house := range []struct {
		name   string
		change func(*access.Policy)
		wants  map[string]want
	}{
		{"with the anonymous", nil, map[string]want{
			"":      {200, 401, 200},
			"bob":   {200, 404, 200},
			"alice": {200, 200, 200},
		}},
		{"without passwords", func(p *access.Policy) { p.Htpasswd = nil }, map[string]want{
			"":      {200, 404, 200},
			"alice": {200, 404, 200}, // nobody listens to who says so
		}},
		{"without the anonymous", func(p *access.Policy) { p.Anonymous = false }, map[string]want{
			"":      {401, 401, 401},
			"bob":   {403, 403, 403},
			"alice": {403, 200, 200},
		}},
	} {
		for user, wants := range house.wants {
			for i, name := range estateNames {
				status := []int{wants.public, wants.private, wants.exposed}[i]
				for _, warm := range []bool{true, false} {
					t.Run(fmt.Sprintf("%s/%s/%s/warm %t", house.name, user, name, warm), func(t *testing.T) {
						e := newEstate(t)
						m := e.mirror(house.change)
						if warm {
							m.proxy.SetAccess(nil)
							e.warm(m, name)
							m.proxy.SetAccess(m.policy)
						}
						e.forget()
						served := e.servedTo("ci", name)
						for _, method := range []string{"HEAD", "GET"} {
							for kind, path := range e.paths(name, name) {
								e.expect(t, m, user, method, kind, path, status)
							}
						}
						if now := e.servedTo("ci", name); status != 200 && now != served {
							t.Errorf("upstream showed us %d things on behalf of who may not have them", now-served)
						}
						if !warm && status != 200 { // nothing was fetched for who may not have it: all is to be fetched now
							m.settled()
							if m.cache.Stats().Content != 0 {
								t.Errorf("%d things are kept", m.cache.Stats().Content)
							}
						}
					})
				}
			}
		}
	}
}

// expect asks for something as a user. A refusal is to be as that of what there is not.
func (e *estate) expect(t *testing.T, m *mirror, user, method, kind, path string, status int) {
	t.Helper()
	a := m.ask(method, path, append(as(user), acceptAll())...)
	if a.status != status {
		t.Errorf("%s %s: %d %s", method, kind, a.status, a.body)
		return
	}
	if status == 200 {
		if method == "GET" && len(a.body) == 0 {
			t.Errorf("%s: no body", kind)
		}
		return
	}
	nothing := m.ask(method, strings.Replace(strings.Replace(path, "/corp/", "/corp/no-", 1), "/library/", "/library/no-", 1), append(as(user), acceptAll())...)
	for _, h := range []http.Header{a.header, nothing.header} {
		h.Del("Date")
	}
	if nothing.status != a.status || string(nothing.body) != string(a.body) || !maps.EqualFunc(nothing.header, a.header, func(a, b []string) bool {
		return strings.Join(a, ",") == strings.Join(b, ",")
	}) {
		t.Errorf("%s %s tells that it exists:\n%d %v %s\n%d %v %s", method, kind, a.status, a.header, a.body, nothing.status, nothing.header, nothing.body)
	}
	if got := a.header.Get("WWW-Authenticate"); (status == 401) != strings.HasPrefix(got, `Basic realm="entrepot"`) {
		t.Errorf("%s %s: %d with the challenge %q", method, kind, status, got)
	}
}

// TestKnownDigestsOpenNothing asks for what is private through what is public, where its digests are known.
func TestKnownDigestsOpenNothing(t *testing.T) {
	e := newEstate(t)
	m := e.mirror(nil)
	e.warm(m, "corp/private")
	e.warm(m, "library/public")
	for user, through := range map[string][]string{"": {"library/public", "corp/exposed", "corp/no"}, "bob": {"library/public", "corp/exposed", "corp/no"}} {
		for _, name := range through {
			for kind, path := range e.paths("corp/private", name) {
				if kind != "digest" && kind != "blob" {
					continue
				}
				for _, method := range []string{"GET", "HEAD"} {
					if a := m.ask(method, path, append(as(user), acceptAll())...); a.status != 404 && a.status != 401 || a.header.Get("Docker-Content-Digest") != "" {
						t.Errorf("%s %s through %s as %q: %d", method, kind, name, user, a.status)
					}
				}
			}
		}
	}
}

func TestVerdictsOnRepositoriesEnd(t *testing.T) {
	e := newEstate(t)
	m := e.mirror(nil)
	e.warm(m, "library/public")
	e.warm(m, "corp/private")
	expect := func(name string, status int) {
		t.Helper()
		if a := m.get(blobPath(name, digest.FromBytes(e.layers[name]))); a.status != status {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	expect("library/public", 200)
	expect("corp/private", 401)
	e.publish("library/public", false)
	e.publish("corp/private", true)
	expect("library/public", 200)
	expect("corp/private", 401)
	m.pass(5 * time.Minute)
	expect("library/public", 200)
	expect("corp/private", 200)
	m.pass(time.Hour)
	expect("library/public", 401)
}

func TestPublicIsServedWhileUpstreamIsDown(t *testing.T) {
	e := newEstate(t)
	m := e.mirror(nil)
	e.warm(m, "library/public")
	e.warm(m, "corp/private")
	layer := func(name string) string { return blobPath(name, digest.FromBytes(e.layers[name])) }
	m.get(layer("library/public")).expect(t, 200, e.layers["library/public"])
	e.goDown(503)
	m.pass(2 * time.Hour)
	m.restart()
	for range 2 {
		m.get(layer("library/public")).expect(t, 200, e.layers["library/public"])
		a := m.get(layer("corp/private"))
		a.expectError(t, 503, "UNAVAILABLE")
		if a.header.Get("Retry-After") == "" {
			t.Error("nothing is said of when to come back")
		}
		m.get(layer("corp/private"), as("alice")...).expect(t, 200, e.layers["corp/private"])
	}
	e.goDown(0)
	m.pass(time.Minute)
	a := m.get(layer("corp/private"))
	for a.status == 503 { // until a probe has found that upstream is back
		<-time.After(10 * time.Millisecond)
		a = m.get(layer("corp/private"))
	}
	if a.status != 401 {
		t.Errorf("%d %s", a.status, a.body)
	}
}

func TestManyAskersAreOneQuestion(t *testing.T) {
	e := newEstate(t)
	m := e.mirror(nil)
	e.warm(m, "library/public")
	e.forget()
	var askers sync.WaitGroup
	for range 100 {
		askers.Go(func() {
			a := m.get(manifestPath("library/public", "1"), acceptAll())
			if a.status != 200 {
				t.Errorf("%d %s", a.status, a.body)
			}
		})
	}
	askers.Wait()
	if heads, tokens := e.count("HEAD /v2/library/public/"), e.count("GET /token"); heads > 2 || tokens > 1 { // one to be challenged, one with a token
		t.Errorf("%d HEADs, %d tokens", heads, tokens)
	}
}

func TestNetworksComeFirst(t *testing.T) {
	e := newEstate(t)
	m := e.mirror(func(p *access.Policy) { p.Networks = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")} })
	for _, request := range []string{"GET /v2/", "GET /", "GET /nowhere", "GET /none.example/v2/", "POST /v2/x/blobs/uploads/", "PUT /v2/",
		"GET /v2/library/public/manifests/1", "GET /v2/library/public/manifests/1?ns=none.example", "GET /v2/x/blobs/nonsense"} {
		method, path, _ := strings.Cut(request, " ")
		a := m.ask(method, path, as("root")...)
		a.expectError(t, 403, "DENIED")
		if a.header.Get("WWW-Authenticate") != "" || a.header.Get("Oci-Namespace") != "" || a.header.Get("Allow") != "" {
			t.Errorf("%s: %v", request, a.header)
		}
	}
	if !strings.Contains(m.exposition(), `entrepot_access_refused_total{reason="network"} 9`) {
		t.Error("the metric tells something else")
	}
	if len(e.log) != 0 {
		t.Errorf("upstream was asked: %q", e.log)
	}
	m.proxy.SetAccess(&access.Policy{Anonymous: true, Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}) // from the next on
	if a := m.get("/v2/"); a.status != 200 {
		t.Errorf("%d", a.status)
	}
}

func TestPingsAreChallengedOnlyForPasswords(t *testing.T) {
	e := newEstate(t)
	for _, tt := range []struct {
		name      string
		change    func(*access.Policy)
		headers   []string
		status    int
		challenge bool
	}{
		{"anonymous", nil, nil, 200, false},
		{"user", nil, as("alice"), 200, false},
		{"wrong password", nil, []string{"Authorization: Basic eDp5"}, 401, true},
		{"no user and no password", nil, []string{"Authorization: Basic Og=="}, 200, false},
		{"who shows a password only when asked here", nil, []string{"Docker-Distribution-Api-Version: registry/2.0"}, 401, true},
		{"the same, after it was asked", nil, []string{"Docker-Distribution-Api-Version: registry/2.0", "Authorization: Basic Og=="}, 200, false},
		{"the same, where there are no passwords", func(p *access.Policy) { p.Htpasswd = nil }, []string{"Docker-Distribution-Api-Version: registry/2.0"}, 200, false},
		{"nobody", func(p *access.Policy) { p.Anonymous = false }, nil, 401, true},
		{"known", func(p *access.Policy) { p.Anonymous = false }, as("bob"), 200, false},
		{"nobody where certificates count", func(p *access.Policy) { p.Anonymous, p.Htpasswd = false, nil }, as("bob"), 403, false},
		{"Docker Hub's password", func(p *access.Policy) { p.Htpasswd = nil }, []string{"Authorization: Basic aHViOnNlY3JldA=="}, 200, false},
	} {
		m := e.mirror(tt.change)
		a := m.get("/v2/", tt.headers...)
		if got := a.header.Get("WWW-Authenticate"); a.status != tt.status || (got != "") != tt.challenge {
			t.Errorf("%s: %d, %q", tt.name, a.status, got)
		}
	}
}

func TestTheLogHasTheUserAndNothingMore(t *testing.T) {
	e := newEstate(t)
	m := e.mirror(nil)
	m.get(manifestPath("corp/private", "1"), append(as("alice"), acceptAll())...)
	m.get(manifestPath("corp/private", "1"), acceptAll())
	m.get(manifestPath("corp/private", "1"), "Authorization: Basic YWxpY2U6c2VjcmV0LWd1ZXNz")
	for deadline := time.Now().Add(time.Minute); m.logs.FilterMessage("request").Len() < 3; {
		if time.Now().After(deadline) {
			t.Fatal("no lines")
		}
		<-time.After(time.Millisecond)
	}
	var users, errors []string
	for _, line := range m.logs.All() {
		text := fmt.Sprint(line.ContextMap())
		for _, secret := range []string{"password of", "secret-guess", "Basic ", "YWxp", "token-"} {
			if strings.Contains(text, secret) {
				t.Errorf("%s is in the log: %s", secret, text)
			}
		}
		if line.Message == "request" {
			users = append(users, fmt.Sprint(line.ContextMap()["user"]))
			errors = append(errors, fmt.Sprint(line.ContextMap()["error"]))
		}
	}
	if got := strings.Join(users, ","); got != "alice,<nil>,<nil>" {
		t.Errorf("users %s", got)
	}
	if !strings.HasPrefix(errors[1], "refused: private: docker.io: HEAD manifests/1 of corp/private: 401 Unauthorized") || errors[2] != "refused: password" {
		t.Errorf("errors %q", errors)
	}
	for _, want := range []string{`{reason="private"} 1`, `{reason="password"} 1`, `{reason="network"} 0`} {
		if !strings.Contains(m.exposition(), "entrepot_access_refused_total"+want) {
			t.Errorf("no %s", want)
		}
	}
}
