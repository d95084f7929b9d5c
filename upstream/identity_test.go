package upstream

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/entrepot/entrepot/upstream/credential"
)

// oauth is a token server that exchanges one identity token, and no password.
func oauth(t *testing.T, g *gate, identity string) http.HandlerFunc {
	return func(rw http.ResponseWriter, req *http.Request) {
		if req.Method != http.MethodPost || req.URL.RawQuery != "flavour=sweet" || req.Header.Get("Authorization") != "" {
			t.Errorf("token asked for by %s %s %v", req.Method, req.URL, req.Header)
		}
		if req.PostFormValue("refresh_token") != identity {
			rw.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(rw, `{"error":"invalid_grant","error_description":"expired"}`)
			return
		}
		for name, want := range map[string]string{"grant_type": "refresh_token", "client_id": "entrepot", "service": g.service} {
			if got := req.PostFormValue(name); got != want {
				t.Errorf("%s %q, want %q", name, got, want)
			}
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.issued == nil {
			g.issued = map[string]string{}
		}
		token := fmt.Sprintf("token-%d", len(g.issued)+1)
		g.issued[token] = req.PostFormValue("scope")
		fmt.Fprintf(rw, `{"access_token":%q,"expires_in":300,"refresh_token":"another"}`, token)
	}
}

func TestIdentityTokenIsExchanged(t *testing.T) {
	w, g := gated(t)
	w.serve("https://auth.test", oauth(t, g, "s3cret"))
	r := w.registry(Options{Logins: as(credential.Login{Username: "0000", IdentityToken: "s3cret"})}, "https://registry.test")
	for range 2 {
		if err := resolve(t, r, repo); err != nil {
			t.Fatal(err)
		}
	}
	if n := w.count("auth.test"); n != 1 {
		t.Errorf("%d token requests", n)
	}
}

func TestIdentityTokenThatHasEndedIsARefusalOfTheLogin(t *testing.T) {
	w, g := gated(t)
	w.serve("https://auth.test", oauth(t, g, "another"))
	log, logs := debugLog()
	r := w.registry(Options{Log: log, Logins: as(credential.Login{IdentityToken: "s3cret"})}, "https://registry.test")
	e := asError(t, resolve(t, r, repo))
	if e.Status != http.StatusUnauthorized || e.Answered() || !errors.Is(e, errRefused) || !strings.Contains(e.Error(), "POST token for library/redis from auth.test") {
		t.Errorf("%v, answered %t", e, e.Answered())
	}
	for _, entry := range logs.All() {
		if strings.Contains(fmt.Sprint(entry.Message, entry.ContextMap(), e), "s3cret") {
			t.Errorf("printed %s %v", entry.Message, entry.ContextMap())
		}
	}
}

func TestIdentityTokenFollowsNoRedirect(t *testing.T) {
	for _, to := range []string{"https://evil.test/", "https://auth.test/elsewhere"} {
		w, _ := gated(t)
		evil := func(rw http.ResponseWriter, req *http.Request) {
			if req.URL.Path != "/token" {
				t.Errorf("%s %s was sent %q", req.Method, to, req.PostFormValue("refresh_token"))
			}
			http.Redirect(rw, req, to, http.StatusTemporaryRedirect)
		}
		w.serve("https://auth.test", evil)
		w.serve("https://evil.test", evil)
		r := w.registry(Options{Logins: as(credential.Login{IdentityToken: "s3cret"})}, "https://registry.test")
		if e := asError(t, resolve(t, r, repo)); e.Answered() || !strings.Contains(e.Error(), "redirect of what is posted") {
			t.Error(e)
		}
	}
}

func TestIdentityTokenIsNoPassword(t *testing.T) {
	w := newWorld(t)
	w.serve("https://registry.test", wantBasic(serveContent))
	r := w.registry(Options{Logins: as(credential.Login{Username: "0000", IdentityToken: "s3cret"})}, "https://registry.test")
	if e := asError(t, resolve(t, r, repo)); e.Status != http.StatusUnauthorized || len(w.requests()) != 1 {
		t.Errorf("%v after %v", e, w.requests())
	}
}
