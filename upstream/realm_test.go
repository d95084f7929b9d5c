package upstream

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/entrepot/entrepot/upstream/credential"
)

func TestChallengeFromAnotherHostIsNotMet(t *testing.T) {
	for _, challenge := range []string{`Basic realm="x"`, `Bearer realm="https://evil.test/token"`} {
		w := newWorld(t)
		w.serve("https://registry.test", redirect("https://evil.test/"))
		w.serve("https://evil.test", func(rw http.ResponseWriter, req *http.Request) {
			if req.Header.Get("Authorization") != "" {
				t.Errorf("received %v", req.Header)
			}
			rw.Header().Set("WWW-Authenticate", challenge)
			status(401)(rw, req)
		})
		r := w.registry(Options{Logins: asUser}, "https://registry.test")
		for range 2 {
			if e := asError(t, resolve(t, r, repo)); e.Status != 401 {
				t.Error(e)
			}
		}
		if w.count("/token") != 0 || len(w.lines()) != 4 {
			t.Errorf("requests %q", w.lines())
		}
	}
}

func TestRefusedTokenIsRenewedOnce(t *testing.T) {
	w, g := gated(t)
	r := w.registry(Options{}, "https://registry.test")
	if err := resolve(t, r, repo); err != nil {
		t.Fatal(err)
	}
	g.revoke()
	if err := resolve(t, r, repo); err != nil {
		t.Errorf("after the token was revoked: %v", err)
	}
	if n := w.count("auth.test"); n != 2 {
		t.Errorf("%d token requests, want 2", n)
	}
	g.revoked = true
	before := len(w.lines())
	_, _, err := r.Manifest(t.Context(), repo, "7", nil)
	if e := asError(t, err); e.Status != 401 || !e.Answered() || e.Code != "UNAUTHORIZED" {
		t.Error(e)
	}
	if asked := w.lines()[before:]; len(asked) != 3 {
		t.Errorf("requests %q, want two and a token between", asked)
	}
}

func TestMovedRealmIsFound(t *testing.T) {
	w, g := gated(t)
	r := w.registry(Options{}, "https://registry.test")
	if err := resolve(t, r, repo); err != nil {
		t.Fatal(err)
	}
	w.serve("https://auth.test", status(404))
	w.serve("https://auth2.test", g.tokens)
	g.realm = "https://auth2.test/token"
	r.endpoints[0].roads.closeIdle()
	if e := asError(t, resolve(t, r, "library/nginx")); e.Answered() {
		t.Errorf("%v is taken for an answer", e)
	}
	if err := resolve(t, r, "library/nginx"); err != nil {
		t.Errorf("the next time: %v", err)
	}
}

func TestUnreadableCredentialsAreAnOutage(t *testing.T) {
	broken := errors.New("open /run/secrets/hub: no such file")
	for _, answer := range []http.HandlerFunc{(&gate{t: t, realm: "https://auth.test/", service: "x"}).guard(serveContent), wantBasic(serveContent)} {
		w := newWorld(t)
		w.serve("https://registry.test", answer)
		core, logs := observer.New(zap.ErrorLevel)
		r := w.registry(Options{Log: zap.New(core), Logins: []credential.Source{keyless{broken}}}, "https://registry.test")
		for n := range 2 {
			e := asError(t, resolve(t, r, repo))
			if e.Answered() || !strings.HasSuffix(e.Error(), "the credentials can't be read") || strings.Contains(fmt.Sprintf("%+v", *e), "/run") {
				t.Error(e)
			}
			if errors.Is(e, broken) {
				t.Errorf("%v holds the reason", e)
			}
			if logs.Len() != 1 || logs.All()[0].ContextMap()["error"] != broken.Error() {
				t.Errorf("failure %d: logged %v", n+1, logs.All())
			}
		}
		if w.count("auth.test") != 0 {
			t.Errorf("requests %q", w.lines())
		}
	}
}

func TestNoSecretIsPrinted(t *testing.T) {
	const secret = "s3cret"
	who := credential.Login{Username: "ci", Password: secret}
	challenge := func(realm string) http.HandlerFunc {
		return func(rw http.ResponseWriter, req *http.Request) {
			if req.Header.Get("Authorization") == "Bearer "+secret {
				redirect("https://cdn.test/"+secret+"/blob?signature="+secret)(rw, req)
				return
			}
			rw.Header().Set("WWW-Authenticate", `Bearer realm="`+realm+`",service="`+secret+`"`)
			rw.WriteHeader(401)
		}
	}
	grant := func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprintf(rw, `{"token":%q}`, secret) }
	for _, tt := range []struct {
		name       string
		realm      string
		token, cdn http.HandlerFunc
	}{
		{"all is well", "https://auth.test/?key=" + secret, grant, serveContent},
		{"signed URL fails", "https://auth.test/", grant, status(500)},
		{"signed URL is cut off", "https://auth.test/", grant, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }},
		{"redirects without end", "https://auth.test/", grant, redirect("https://cdn.test/" + secret + "?signature=" + secret)},
		{"redirect from https to http", "https://auth.test/", grant, redirect("http://dead.test/" + secret + "?signature=" + secret)},
		{"redirect to the dead", "https://auth.test/", grant, redirect("https://dead.test/" + secret)},
		{"redirect to no URL", "https://auth.test/", grant, redirect("https://cdn.test:" + secret + "/")},
		{"redirect with a user", "https://auth.test/", grant, redirect("https://" + secret + "@dead.test/")},
		{"realm is dead", "https://dead.test/?key=" + secret, nil, nil},
		{"realm is no URL", "https://auth.test:" + secret + "/", nil, nil},
		{"realm redirects to nowhere", "https://auth.test/", redirect("https://dead.test/?key=" + secret), nil},
		{"token is ill-formed", "https://auth.test/", func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprintf(rw, `{"token":"%s\n"}`, secret) }, nil},
		{"token is of another type", "https://auth.test/", func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprintf(rw, `{"token":["%s"]}`, secret) }, nil},
		{"token answer is no JSON", "https://auth.test/", func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprint(rw, secret) }, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.serve("https://registry.test", challenge(tt.realm))
			w.serve("https://auth.test", func(rw http.ResponseWriter, req *http.Request) { tt.token(rw, req) })
			w.serve("https://cdn.test", func(rw http.ResponseWriter, req *http.Request) { tt.cdn(rw, req) })
			log, logs := debugLog()
			r := w.registry(Options{Log: log, Logins: as(who)}, "https://registry.test")
			var printed strings.Builder
			for range 2 {
				_, _, err := r.Manifest(t.Context(), repo, "7", nil)
				for ; err != nil; err = errors.Unwrap(err) {
					fmt.Fprintf(&printed, "%v\n", err)
				}
			}
			for _, entry := range logs.All() {
				fmt.Fprintf(&printed, "%s %v\n", entry.Message, entry.ContextMap())
			}
			if logs.Len() == 0 || strings.Contains(printed.String(), secret) {
				t.Errorf("printed:\n%s", printed.String())
			}
		})
	}
}
