package proxy_test

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy/access"
)

// clientMirror starts a mirror whose clients are judged by the registry itself. It has credentials there for what allowed says.
func (e *estate) clientMirror(allowed ...string) *mirror {
	e.users["alice"] = []string{"corp/private"}
	e.users["bob"] = []string{"corp/exposed"}
	return newGuardedMirror(e.t, e.guard, &access.Policy{Anonymous: true,
		Registries: map[string]access.Registry{"docker.io": {Client: true, Credentials: len(allowed) > 0}}}, allowed...)
}

// TestPromiseTheClientsOwnTokenDecides has clients with tokens of their own, in front of an entrepot that has credentials and of one
// that has none.
func TestPromiseTheClientsOwnTokenDecides(t *testing.T) {
	for _, credentials := range [][]string{nil, estateNames} {
		for _, warm := range []bool{true, false} {
			for _, tt := range []struct {
				name   string
				header func(e *estate, name string) []string
				wants  []int // of estateNames
			}{
				{"nothing presented", func(*estate, string) []string { return nil }, []int{401, 401, 401}},
				{"token of nobody", func(e *estate, name string) []string { return []string{e.token("", name)} }, []int{200, 401, 401}},
				{"token of alice", func(e *estate, name string) []string { return []string{e.token("alice", name)} }, []int{200, 200, 401}},
				{"token of bob", func(e *estate, name string) []string { return []string{e.token("bob", name)} }, []int{200, 401, 200}},
				{"token for something else", func(e *estate, _ string) []string { return []string{e.token("alice", "corp/other")} }, []int{401, 401, 401}},
				{"token that is none", func(*estate, string) []string { return []string{"Authorization: Bearer none"} }, []int{401, 401, 401}},
				{"password", func(*estate, string) []string { return as("alice") }, []int{401, 401, 401}},
			} {
				for i, name := range estateNames {
					t.Run(fmt.Sprintf("credentials %t/warm %t/%s/%s", credentials != nil, warm, tt.name, name), func(t *testing.T) {
						e := newEstate(t)
						m := e.clientMirror(credentials...)
						if warm {
							e.users["root"] = estateNames
							for kind, path := range e.paths(name, name) {
								if a := m.get(path, e.token("root", name), acceptAll()); a.status != 200 {
									t.Fatalf("%s: %d %s", kind, a.status, a.body)
								}
							}
							m.settled()
						}
						served := e.servedTo("ci", name)
						for _, method := range []string{"HEAD", "GET"} {
							for kind, path := range e.paths(name, name) {
								a := m.ask(method, path, append(tt.header(e, name), acceptAll())...)
								challenge := fmt.Sprintf(`Bearer realm="%s/token",service="test",scope="repository:%s:pull"`, e.server.URL, name)
								if got := a.header.Get("WWW-Authenticate"); a.status != tt.wants[i] || a.status == 401 && got != challenge {
									t.Errorf("%s %s: %d %q %s", method, kind, a.status, got, a.body)
								}
								if a.status != 200 && (a.header.Get("Docker-Content-Digest") != "" || a.header.Get("Cache-Status") != "entrepot; detail=local") {
									t.Errorf("%s %s: %v", method, kind, a.header)
								}
							}
						}
						if now := e.servedTo("ci", name); tt.wants[i] != 200 && now != served || credentials == nil && now != 0 {
							t.Errorf("upstream showed us %d things", now)
						}
					})
				}
			}
		}
	}
}

func TestPingsTellWhereToGetAToken(t *testing.T) {
	e := newEstate(t)
	m := e.clientMirror()
	challenge := fmt.Sprintf(`Bearer realm="%s/token",service="test"`, e.server.URL)
	for _, path := range []string{"/v2/", "/docker.io/v2/"} {
		for range 2 {
			a := m.get(path)
			a.expectError(t, 401, "UNAUTHORIZED")
			if got := a.header.Get("WWW-Authenticate"); got != challenge {
				t.Errorf("%s: %q", path, got)
			}
		}
		m.get(path, e.token("alice", "")).expect(t, 200, []byte("{}"))
	}
	if n := e.count("GET /v2/"); n != 1 {
		t.Errorf("upstream was asked %d times", n)
	}
	m.get("/v2/", "Host: ghcr.io.mirror.test") // names nothing: the default's
	e.goDown(503)
	m.restart()
	m.get("/v2/").expectError(t, 503, "UNAVAILABLE")
}

func TestAVerdictOnATokenEndsWithIt(t *testing.T) {
	e := newEstate(t)
	m := e.clientMirror()
	token := e.token("alice", "corp/private")
	layer := blobPath("corp/private", digest.FromBytes(e.layers["corp/private"]))
	m.get(layer, token).expect(t, 200, e.layers["corp/private"])
	m.settled()
	e.forget()
	a := m.get(layer, token)
	a.expect(t, 200, e.layers["corp/private"])
	a.expectVerdict(t, "hit")
	if len(e.log) != 0 {
		t.Errorf("upstream was asked %q", e.log)
	}
	e.revoke("alice")
	m.get(layer, token).expect(t, 200, e.layers["corp/private"])
	m.pass(5 * time.Minute)
	if a := m.get(layer, token); a.status != 401 {
		t.Errorf("%d", a.status)
	}
	e.goDown(503)
	m.get(layer, token).expectError(t, 401, "UNAUTHORIZED") // what is known holds
	m.get(layer, e.token("alice", "corp/private")).expectError(t, 503, "UNAVAILABLE")
	m.restart()
	m.get(layer, token).expectError(t, 503, "UNAVAILABLE") // nothing of it was kept
}

// TestClientsShareTransfers has two clients with tokens of their own get a blob of which the first began the transfer, and left.
func TestClientsShareTransfers(t *testing.T) {
	e := newEstate(t)
	e.users["carol"] = []string{"corp/private"}
	m := e.clientMirror()
	content := random(4 << 20)
	d := e.blob(content, "corp/private")
	open := make(chan struct{})
	e.fail(func(w http.ResponseWriter, r *http.Request) bool {
		if e.refuses(w, r) {
			return true
		}
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			e.serve(&holding{w, 1 << 20, open}, r)
			return true
		}
		return false
	})
	first := m.open(t.Context(), "GET", blobPath("corp/private", d), e.token("alice", "corp/private"))
	if err := same(first.Body, content[:1<<20]); err != nil {
		t.Fatal(err)
	}
	second := m.open(t.Context(), "GET", blobPath("corp/private", d), e.token("carol", "corp/private"))
	defer second.Body.Close()
	if a := m.get(blobPath("corp/private", d), e.token("bob", "corp/private")); a.status != 401 {
		t.Errorf("who may not have it gets %d", a.status)
	}
	first.Body.Close()
	close(open)
	if got, err := io.ReadAll(second.Body); err != nil || !slices.Equal(got, content) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	m.settled()
	if n := e.count("GET /v2/corp/private/blobs/"); n != 1 {
		t.Errorf("%d transfers", n)
	}
	// The one is asked about, sized up and transferred; the other asked about.
	if e.servedTo("alice", "corp/private") != 3 || e.servedTo("carol", "corp/private") != 1 {
		t.Errorf("asked as alice %d times, as carol %d times", e.servedTo("alice", "corp/private"), e.servedTo("carol", "corp/private"))
	}
}

// TestReadAheadGoesByTheClientsToken has all of an image read ahead for who may have it.
func TestReadAheadGoesByTheClientsToken(t *testing.T) {
	e := newEstate(t)
	e.users["alice"] = []string{"corp/private"}
	m := &mirror{t: t, extra: map[string]*registry{"docker.io": e.registry}, policy: &access.Policy{Anonymous: true,
		Registries: map[string]access.Registry{"docker.io": {Client: true}}}}
	m.begin(func(o *cache.Options) { o.ReadAhead = cache.ReadLayers })
	token := e.token("alice", "corp/private")
	if a := m.get(manifestPath("corp/private", "1"), token, acceptAll()); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	for deadline := time.Now().Add(time.Minute); m.cache.Stats().Content < 3; { // manifest, config and layer
		if time.Now().After(deadline) {
			t.Fatalf("not read ahead: %q", e.log)
		}
		<-time.After(time.Millisecond)
	}
}

func TestPresentedIsNowhereToBeFound(t *testing.T) {
	e := newEstate(t)
	m := e.clientMirror()
	token := e.token("alice", "corp/private")
	for _, header := range []string{token, "Authorization: Bearer some-bad-token", as("alice")[0]} {
		for _, path := range e.paths("corp/private", "corp/private") {
			m.get(path, header, acceptAll())
		}
	}
	e.goDown(503)
	m.pass(time.Hour)
	for _, path := range e.paths("corp/private", "corp/private") {
		m.get(path, token, acceptAll())
	}
	m.settled()
	said := m.exposition()
	for _, line := range m.logs.All() {
		said += fmt.Sprintln(line.Message, line.ContextMap())
	}
	for _, secret := range []string{"of-alice", "some-bad-token", "password of", "YWxpY2U"} {
		if strings.Contains(said, secret) {
			t.Errorf("%s is in the log", secret)
		}
	}
	if !strings.Contains(said, `entrepot_access_refused_total{reason="client"} 10`) {
		t.Error("refusals are not counted")
	}
}

// What came by a token that its owner presented is private, also when the registry is one that entrepot has no credentials for and the
// clients' are not asked for any more. Nothing but the digest has to be known then.
func TestPromiseWhatTokensBroughtStaysPrivate(t *testing.T) {
	e := newEstate(t)
	m := e.clientMirror()
	paths := e.paths("corp/private", "corp/private")
	for kind, path := range paths {
		if a := m.get(path, e.token("alice", "corp/private"), acceptAll()); a.status != 200 {
			t.Fatalf("%s: %d %s", kind, a.status, a.body)
		}
	}
	m.settled()
	m.proxy.SetAccess(&access.Policy{Anonymous: true, Registries: map[string]access.Registry{"docker.io": {}}})
	for _, method := range []string{"HEAD", "GET"} {
		for kind, path := range paths {
			if a := m.ask(method, path, acceptAll()); a.status != 401 && a.status != 404 {
				t.Errorf("%s %s of it: %d", method, kind, a.status)
			}
		}
	}
}

// Who has lost the right to see a repository, and was admitted a moment before, is told by some registries that there is nothing. That is
// no word to who may see it.
func TestPromiseARefusalIsOfItsClientAlone(t *testing.T) {
	e := newEstate(t)
	e.users["alice"], e.users["bob"] = []string{"corp/private"}, []string{"corp/private"}
	m := &mirror{t: t, extra: map[string]*registry{"docker.io": e.registry}, policy: &access.Policy{Anonymous: true,
		Registries: map[string]access.Registry{"docker.io": {Client: true}}}}
	m.begin(func(o *cache.Options) { o.NegativeTTL = func() time.Duration { return 10 * time.Second } })
	alice, bob := e.token("alice", "corp/private"), e.token("bob", "corp/private")
	path, other := manifestPath("corp/private", "1"), manifestPath("corp/private", "2")
	e.image("corp/private", "2", random(5000))
	if a := m.get(path, alice, acceptAll()); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	m.settled()
	e.fail(func(w http.ResponseWriter, r *http.Request) bool {
		if "Authorization: "+r.Header.Get("Authorization") == alice {
			refuse(w, 404, "NAME_UNKNOWN", "there is no such repository")
			return true
		}
		return e.refuses(w, r)
	})
	m.pass(2 * time.Minute) // the tag is looked at again
	for _, path := range []string{path, other} {
		if a := m.get(path, alice, acceptAll()); a.status != 404 {
			t.Errorf("alice: %s: %d", path, a.status)
		}
	}
	for _, path := range []string{path, other} {
		if a := m.get(path, bob, acceptAll()); a.status != 200 {
			t.Errorf("%s: %d %s %s", path, a.status, a.header.Get("Cache-Status"), a.body)
		}
	}
}

// A registry that asks nobody who it is, and takes any token for one, is no judge of who may come in.
func TestPromiseTheAnonymousAreDeniedWhereTheRegistryAsksForNothing(t *testing.T) {
	e := newEstate(t)
	m := &mirror{t: t, extra: map[string]*registry{"docker.io": e.registry}, policy: &access.Policy{Htpasswd: htpasswd(t, "alice"),
		Registries: map[string]access.Registry{"docker.io": {Client: true}}}}
	m.begin()
	e.fail(func(w http.ResponseWriter, r *http.Request) bool { return r.URL.Path == "/v2/" }) // a 200, and nothing is guarded
	for name, tt := range map[string]struct {
		headers []string
		status  int
	}{
		"nobody": {nil, 401}, "any token": {[]string{"Authorization: Bearer any"}, 401}, "a user": {as("alice"), 200},
	} {
		paths := e.paths("library/public", "library/public")
		paths["ping"] = "/v2/"
		for kind, path := range paths {
			a := m.get(path, append(tt.headers, acceptAll())...)
			if got := a.header.Get("WWW-Authenticate"); a.status != tt.status || tt.status == 401 && !strings.HasPrefix(got, "Basic ") {
				t.Errorf("%s, %s: %d %q %s", name, kind, a.status, got, a.body)
			}
		}
	}
}
