package upstream

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/entrepot/entrepot/upstream/credential"
)

// gate is a registry's token authority: guard lets through who bears a token that tokens has issued for the repository.
type gate struct {
	t              *testing.T
	realm, service string
	answer         func(token string) string // the token server's document; nil: the plain one
	revoked        bool                      // tokens are good for nothing

	mu sync.Mutex
	// guards following
	issued map[string]string // token to scope
}

func (g *gate) guard(h http.HandlerFunc) http.HandlerFunc {
	return func(rw http.ResponseWriter, req *http.Request) {
		name, _, _ := strings.Cut(strings.TrimPrefix(req.URL.Path, "/v2/"), "/manifests/")
		name, _, _ = strings.Cut(name, "/blobs/")
		name, _, _ = strings.Cut(name, "/tags/")
		token, _ := strings.CutPrefix(req.Header.Get("Authorization"), "Bearer ")
		g.mu.Lock()
		good := !g.revoked && g.issued[token] == "repository:"+name+":pull"
		g.mu.Unlock()
		if !good {
			rw.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s",service="%s",scope="repository:%s:pull"`, g.realm, g.service, name))
			rw.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(rw, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`)
			return
		}
		h(rw, req)
	}
}

func (g *gate) tokens(rw http.ResponseWriter, req *http.Request) {
	query := req.URL.Query()
	if req.Method != "GET" || query.Get("service") != g.service || len(query["scope"]) != 1 || req.Header.Get("Range") != "" {
		g.t.Errorf("token asked for by %s %s", req.Method, req.URL)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.issued == nil {
		g.issued = map[string]string{}
	}
	token := fmt.Sprintf("token-%d", len(g.issued)+1)
	g.issued[token] = query.Get("scope")
	if g.answer != nil {
		fmt.Fprint(rw, g.answer(token))
	} else {
		fmt.Fprintf(rw, `{"token":%q,"expires_in":300}`, token)
	}
}

// revoke makes all tokens issued so far worthless.
func (g *gate) revoke() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for token := range g.issued {
		g.issued[token] = "revoked"
	}
}

// gated is a world with a registry behind a gate, whose tokens come from auth.test.
func gated(t *testing.T) (*world, *gate) {
	w := newWorld(t)
	g := &gate{t: t, realm: "https://auth.test/token?flavour=sweet", service: "registry & co"}
	w.serve("https://auth.test", g.tokens)
	w.serve("https://registry.test", g.guard(serveContent))
	return w, g
}

func resolve(t *testing.T, r *Registry, repository string) error {
	t.Helper()
	_, err := r.Resolve(t.Context(), repository, "7", nil)
	return err
}

func TestTokenIsAskedForOnceAndAheadOfTheNextRequest(t *testing.T) {
	w, _ := gated(t)
	r := w.registry(Options{}, "https://registry.test")
	for _, name := range []string{"library/redis", "library/redis", "library/nginx"} {
		if err := resolve(t, r, name); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{
		"HEAD https://registry.test/v2/library/redis/manifests/7", // 401
		"GET https://auth.test/token?flavour=sweet&scope=repository%3Alibrary%2Fredis%3Apull&service=registry+%26+co",
		"HEAD https://registry.test/v2/library/redis/manifests/7",
		"HEAD https://registry.test/v2/library/redis/manifests/7",
		"GET https://auth.test/token?flavour=sweet&scope=repository%3Alibrary%2Fnginx%3Apull&service=registry+%26+co",
		"HEAD https://registry.test/v2/library/nginx/manifests/7",
	}
	if diff := cmp.Diff(want, w.lines()); diff != "" {
		t.Error(diff)
	}
	for _, h := range w.requests() {
		if strings.Contains(h.URL, "auth.test") && h.Header.Get("Authorization") != "" {
			t.Errorf("an anonymous user sends %s", h.Header.Get("Authorization"))
		}
	}
}

func TestAccessTokenServesAsWell(t *testing.T) {
	w, g := gated(t)
	g.answer = func(token string) string { return fmt.Sprintf(`{"access_token":%q}`, token) }
	if err := resolve(t, w.registry(Options{}, "https://registry.test"), repo); err != nil {
		t.Error(err)
	}
}

func TestCredentialsGoToTheRealmOfTheirRegistry(t *testing.T) {
	w, _ := gated(t)
	if err := resolve(t, w.registry(Options{Logins: asUser}, "https://registry.test"), repo); err != nil {
		t.Fatal(err)
	}
	for _, h := range w.requests() {
		atRealm := strings.HasPrefix(h.URL, "https://auth.test/")
		if got := h.Header.Get("Authorization"); strings.HasPrefix(got, "Basic ") != atRealm || atRealm && got != basicHeader(user) {
			t.Errorf("%s has Authorization %q", h.URL, got)
		}
	}
}

func TestTokenRealmsThatMayBeAsked(t *testing.T) {
	const refused = "list it in token_realms"
	for _, tt := range []struct {
		name            string
		endpoint, realm string
		listed          []string
		user, anonymous string // part of the error; empty: may be asked
	}{
		{"https anywhere", "https://registry.test", "https://auth.test", nil, "", ""},
		{"https for a plain endpoint", "http://registry.test", "https://auth.test", nil, refused, ""},
		{"https at the same host for a plain endpoint", "http://registry.test", "https://registry.test", nil, refused, ""},
		{"https for a plain endpoint, listed", "http://registry.test", "https://auth.test", []string{"auth.test"}, "", ""},
		{"plain for a plain endpoint, listed", "http://registry.test", "http://auth.test", []string{"auth.test"}, "", ""},
		{"its own origin", "http://registry.test", "http://registry.test", nil, "", ""},
		{"its own origin with the port", "http://registry.test", "http://REGISTRY.test:80", nil, "", ""},
		{"plain elsewhere for a plain endpoint", "http://registry.test", "http://auth.test", nil, refused, ""},
		{"another port of a plain endpoint", "http://registry.test", "http://registry.test:5001", nil, refused, ""},
		{"plain elsewhere", "https://registry.test", "http://auth.test", nil, refused, refused},
		{"plain at the same host", "https://registry.test", "http://registry.test", nil, refused, ""},
		{"plain elsewhere, host listed", "https://registry.test", "http://auth.test:8080", []string{"AUTH.test"}, "", ""},
		{"plain elsewhere, host and port listed", "https://registry.test", "http://auth.test:8080", []string{"auth.test:8080"}, "", ""},
		{"plain elsewhere, another port listed", "https://registry.test", "http://auth.test:8080", []string{"auth.test:80"}, refused, refused},
		{"another protocol", "https://registry.test", "ftp://auth.test", nil, "no plain http or https URL", "no plain http or https URL"},
		{"no host", "https://registry.test", "https://", nil, "no plain http or https URL", "no plain http or https URL"},
		{"a user of its own", "https://registry.test", "https://a:s3cret@auth.test", nil, "no plain http or https URL", "no plain http or https URL"},
		{"no URL", "https://registry.test", "https://a:s3cret", nil, "no plain http or https URL", "no plain http or https URL"},
	} {
		for who, want := range map[credential.Login]string{user: tt.user, {}: tt.anonymous} {
			t.Run(tt.name+"/"+who.String(), func(t *testing.T) {
				w := newWorld(t)
				g := &gate{t: t, realm: tt.realm + "/token", service: "registry"}
				answer := func(rw http.ResponseWriter, req *http.Request) {
					if req.URL.Path == "/token" {
						if got := req.Header.Get("Authorization"); got != basicHeader(who) {
							t.Errorf("the realm receives %q", got)
						}
						g.tokens(rw, req)
						return
					}
					g.guard(serveContent)(rw, req)
				}
				w.serve(tt.endpoint, answer)
				if !strings.EqualFold(strings.TrimSuffix(tt.realm, ":80"), tt.endpoint) && (tt.user == "" || tt.anonymous == "") {
					w.serve(tt.realm, answer)
				}
				r := w.registry(Options{TokenRealms: tt.listed, Logins: as(who)}, tt.endpoint)
				err := resolve(t, r, repo)
				if want == "" {
					if err != nil {
						t.Error(err)
					}
					return
				}
				e := asError(t, err)
				if e.Answered() || !strings.Contains(e.Error(), want) || strings.Contains(e.Error(), "s3cret") {
					t.Errorf("%v, want %s", e, want)
				}
				if want == refused && !strings.Contains(e.Error(), strings.TrimPrefix(strings.TrimPrefix(tt.realm, "http://"), "https://")) {
					t.Errorf("%v does not name the realm's host", e)
				}
				if w.count("/token") > 0 {
					t.Errorf("requests %q", w.lines())
				}
			})
		}
	}
}

func TestRealmsRedirectArrivesWithoutCredentials(t *testing.T) {
	w := newWorld(t)
	g := &gate{t: t, realm: "https://auth.test/token", service: "registry"}
	w.serve("https://registry.test", g.guard(serveContent))
	w.serve("https://auth.test", func(rw http.ResponseWriter, req *http.Request) {
		redirect("https://evil.test/token?"+req.URL.RawQuery)(rw, req)
	})
	w.serve("https://evil.test", g.tokens)
	if err := resolve(t, w.registry(Options{Logins: asUser}, "https://registry.test"), repo); err != nil {
		t.Fatal(err)
	}
	for _, h := range w.requests() {
		if strings.HasPrefix(h.URL, "https://evil.test") && h.Header.Get("Authorization") != "" {
			t.Errorf("the other host receives %v", h.Header)
		}
	}
	if w.count("evil.test") != 1 {
		t.Errorf("requests %q", w.lines())
	}
}

func TestMirrorsAreAskedAnonymously(t *testing.T) {
	w, g := gated(t) // registry.test hands out tokens to anybody
	w.serve("https://one.test", wantBasic(status(404)))
	w.serve("https://basic.test", wantBasic(serveContent))
	r := w.registry(Options{Logins: asUser, TokenRealms: []string{"auth.test"}},
		"https://one.test", "https://basic.test", "http://dead.test", "https://registry.test")
	if _, err := r.StatBlob(t.Context(), repo, contentDigest); err != nil {
		t.Fatal(err)
	}
	for _, h := range w.requests() {
		sent := strings.HasPrefix(h.Header.Get("Authorization"), "Basic ")
		if sent && !strings.HasPrefix(h.URL, "https://one.test/") {
			t.Errorf("%s receives the credentials", h.URL)
		}
	}
	if w.count("one.test") != 2 || w.count("basic.test") != 1 || len(g.issued) != 1 {
		t.Errorf("requests %q", w.lines())
	}
}

func TestMirrorNeedsNoCredentialsThatCanBeRead(t *testing.T) {
	w, _ := gated(t)
	w.serve("https://one.test", wantBasic(serveContent))
	r := w.registry(Options{Logins: []credential.Source{keyless{errors.New("gone")}}},
		"https://one.test", "https://registry.test")
	if _, err := r.StatBlob(t.Context(), repo, contentDigest); err != nil {
		t.Error(err)
	}
}

func TestBasicIsSentAfterAChallengeAndRemembered(t *testing.T) {
	w := newWorld(t)
	w.serve("https://one.test", wantBasic(status(404)))
	w.serve("https://two.test", serveContent)
	r := w.registry(Options{Logins: asUser}, "https://one.test", "https://two.test")
	for range 2 {
		if _, err := r.StatBlob(t.Context(), repo, contentDigest); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, h := range w.requests() {
		host, _, _ := strings.Cut(strings.TrimPrefix(h.URL, "https://"), "/")
		got = append(got, host+" "+h.Header.Get("Authorization"))
	}
	want := []string{"one.test ", "one.test " + basicHeader(user), "two.test ", "one.test " + basicHeader(user), "two.test "}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestRefusalOfNobodyIsTheAnswerAndOfALoginIsNone(t *testing.T) {
	wrong := credential.Login{Username: "ci", Password: "wrong"}
	for who, requests := range map[credential.Login]int{{}: 1, wrong: 3} { // with a look whether the login is good for anything
		w := newWorld(t)
		w.serve("https://registry.test", wantBasic(serveContent))
		r := w.registry(Options{Logins: as(who)}, "https://registry.test")
		e := asError(t, resolve(t, r, repo))
		if e.Status != 401 || e.Answered() != (who != wrong) || errors.Is(e, errRefused) != (who == wrong) || len(w.lines()) != requests {
			t.Errorf("%v: %v after %q", who, e, w.lines())
		}
	}
	w := newWorld(t)
	w.serve("https://registry.test", (&gate{t: t, realm: "https://auth.test/", service: "x"}).guard(serveContent))
	w.serve("https://auth.test", status(401))
	if e := asError(t, resolve(t, w.registry(Options{}, "https://registry.test"), repo)); e.Status != 401 || !e.Answered() {
		t.Errorf("a token server's word to nobody: %v", e)
	}
}

func TestChallengeThatCannotBeMetIsTheAnswer(t *testing.T) {
	for _, challenge := range []string{"", "Negotiate", `Digest realm="x", nonce="y"`, "Bearer", `Bearer service="x"`, `realm="x"`} {
		w := newWorld(t)
		w.serve("https://registry.test", func(rw http.ResponseWriter, req *http.Request) {
			rw.Header().Set("WWW-Authenticate", challenge)
			status(401)(rw, req)
		})
		r := w.registry(Options{Logins: asUser}, "https://registry.test")
		_, _, err := r.Manifest(t.Context(), repo, "7", nil)
		if e := asError(t, err); e.Status != 401 || !e.Answered() || e.Code != "CODE_401" || len(w.lines()) != 1 {
			t.Errorf("%q: %v after %q", challenge, e, w.lines())
		}
	}
}
