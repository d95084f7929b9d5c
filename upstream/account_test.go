package upstream

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/entrepot/entrepot/upstream/credential"
)

// head asks for a tag as somebody.
func head(ctx context.Context, r *Registry, as identity) error {
	q := question{kind: kindManifest, method: http.MethodHead, op: "HEAD", as: as}
	return r.inTurn(ctx, q, func(e *endpoint, q question) error {
		return r.whole(ctx, e, q, repo, "manifests/7", nil, func(*http.Response, []byte) error { return nil })
	})
}

func TestNobodyIsNobodyThoughThereAreLogins(t *testing.T) {
	w, _ := gated(t)
	r := w.registry(Options{Logins: asUser}, "https://registry.test")
	for _, as := range []identity{own, nobody, own, nobody} {
		if err := head(t.Context(), r, as); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, h := range w.requests() {
		if strings.Contains(h.URL, "auth.test") {
			got = append(got, h.Header.Get("Authorization"))
		} else if h.Header.Get("Authorization") != "" {
			got = append(got, h.Header.Get("Authorization"))
		}
	}
	// One token each, and neither is used for the other.
	want := []string{basicHeader(user), "Bearer token-1", "", "Bearer token-2", "Bearer token-1", "Bearer token-2"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestPresentedHeaderIsSentAsItIs(t *testing.T) {
	w, g := gated(t)
	r := w.registry(Options{Logins: asUser}, "https://registry.test")
	if err := head(t.Context(), r, own); err != nil { // the challenge is known now, and a token is at hand
		t.Fatal(err)
	}
	issued := len(g.issued)
	if e := asError(t, head(t.Context(), r, presented("Bearer stranger"))); e.Status != 401 || !e.Answered() {
		t.Errorf("a header that opens nothing: %v", e)
	}
	if err := head(t.Context(), r, presented("Bearer token-1")); err != nil {
		t.Errorf("a header that opens: %v", err)
	}
	all := w.requests()
	if got := all[len(all)-2].Header.Get("Authorization"); got != "Bearer stranger" || len(g.issued) != issued {
		t.Errorf("sent %q, and %d tokens were issued", got, len(g.issued)-issued)
	}
	if err := head(t.Context(), r, own); err != nil || len(g.issued) != issued {
		t.Errorf("afterwards: %v, %d tokens", err, len(g.issued)-issued)
	}
}

func TestPresentedHeaderGoesToTheFirstEndpointAlone(t *testing.T) {
	w := newWorld(t)
	w.serve("https://one.test", status(503))
	w.serve("https://two.test", redirect("https://cdn.test/"))
	w.serve("https://cdn.test", serveContent)
	var both []Endpoint
	for _, host := range []string{"one.test", "two.test"} {
		both = append(both, Endpoint{URL: &url.URL{Scheme: "https", Host: host}, Trusted: true})
	}
	r := w.registry(Options{Endpoints: both})
	if err := head(t.Context(), r, presented("Basic c2VjcmV0")); err != nil {
		t.Fatal(err)
	}
	for _, h := range w.requests() {
		if got := h.Header.Get("Authorization"); (got != "") != strings.Contains(h.URL, "one.test") {
			t.Errorf("%s receives %q", h.URL, got)
		}
	}
}

// fickle is a source whose login is replaced when it is refused.
type fickle struct {
	mu sync.Mutex
	// guards following
	logins  []credential.Login
	refused int
}

func (f *fickle) Get(context.Context) (credential.Login, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.logins[0], nil
}

func (f *fickle) Refused(l credential.Login) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refused++
	if l == f.logins[0] && len(f.logins) > 1 {
		f.logins = f.logins[1:]
	}
}

func TestReplacedPasswordIsLookedUpAfterARefusal(t *testing.T) {
	old := credential.Login{Username: "ci", Password: "old"}
	for _, scheme := range []string{"Basic", "Bearer"} {
		w := newWorld(t)
		w.serve("https://registry.test", func(rw http.ResponseWriter, req *http.Request) {
			switch got := req.Header.Get("Authorization"); {
			case req.URL.Path == "/token" && got == basicHeader(user):
				fmt.Fprint(rw, `{"token":"good"}`)
			case req.URL.Path == "/token":
				status(401)(rw, req)
			case got == "Bearer good", scheme == "Basic" && got == basicHeader(user):
				serveContent(rw, req)
			default:
				rw.Header().Set("WWW-Authenticate", scheme+` realm="https://registry.test/token"`)
				status(401)(rw, req)
			}
		})
		source := &fickle{logins: []credential.Login{old, user}}
		r := w.registry(Options{Logins: []credential.Source{source}}, "https://registry.test")
		// The challenge is met first with a password that is good, as it was when the last was replaced.
		source.logins = []credential.Login{user}
		if err := resolve(t, r, repo); err != nil {
			t.Fatal(err)
		}
		source.logins = []credential.Login{old, user}
		if err := resolve(t, r, "library/nginx"); err != nil || source.refused != 1 {
			t.Errorf("%s: %v after %d refusals: %q", scheme, err, source.refused, w.lines())
		}
	}
}

// TestPresentedHeaderThatIsThrottledIsNotAskedOver has an endpoint that would answer each of many requests by a 429.
func TestPresentedHeaderThatIsThrottledIsNotAskedOver(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w.serve("https://registry.test", func(rw http.ResponseWriter, req *http.Request) {
		if len(w.requests()) > 5 {
			cancel()
		}
		rw.Header().Set("Retry-After", "60")
		status(429)(rw, req)
	})
	r := w.registry(Options{}, "https://registry.test")
	e := asError(t, head(ctx, r, presented("Bearer abc")))
	if !e.Throttled() || len(w.requests()) != 1 {
		t.Errorf("%v after %d requests", e, len(w.requests()))
	}
}
