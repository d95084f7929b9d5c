package upstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
)

// TestShowsAsksAsNobody has a registry whose login opens what nobody is shown.
func TestShowsAsksAsNobody(t *testing.T) {
	for _, tt := range []struct {
		name, resource string
		answer         http.HandlerFunc
		asked          string // "" as in the resource, by HEAD
		status         int    // of the error; 0: none
		answered       bool
	}{
		{"manifest", "manifests/7", serveContent, "", 0, false},
		{"manifest by digest", "manifests/" + contentDigest.String(), serveContent, "", 0, false},
		{"blob", "blobs/" + contentDigest.String(), answer(200, content), "", 0, false},
		{"tags", "tags/list", answer(200, []byte(`{"name":"library/redis","tags":["7"]}`)), "GET tags/list?n=1", 0, false},
		{"refused", "manifests/7", status(401), "", 401, true},
		{"denied", "manifests/7", status(403), "", 403, true},
		{"not there", "manifests/7", status(404), "", 404, true},
		{"blob that only another endpoint has", "blobs/" + contentDigest.String(), status(404), "", 404, true},
		{"throttled", "manifests/7", status(429), "", 429, false},
		{"out of order", "manifests/7", status(503), "", 503, false},
		{"a page to log in", "manifests/7", answer(200, []byte("<html>"), "Content-Type", "text/html"), "", 200, false},
		{"no manifest", "manifests/7", untyped, "", 200, false},
		{"a front's word", "manifests/7", answer(200, []byte("hello"), "Content-Type", "text/plain"), "", 200, false},
		{"a front's document", "manifests/7", answer(200, []byte("{}"), "Content-Type", "application/json"), "", 200, false},
		{"a front's word for a blob", "blobs/" + contentDigest.String(), answer(200, []byte("hello"), "Content-Type", "text/plain"), "", 200, false},
		{"a front's document for a blob", "blobs/" + contentDigest.String(), answer(200, []byte("{}"), "Content-Type", "application/json"), "", 200, false},
		{"nothing for a blob", "blobs/" + contentDigest.String(), answer(200, nil, "Content-Type", "application/octet-stream"), "", 200, false},
		{"another digest", "blobs/" + contentDigest.String(), answer(200, content, "Docker-Content-Digest", digest.FromString("other").String()), "", 200, false},
		{"a list of nothing", "tags/list", answer(200, []byte(`{}`)), "GET tags/list?n=1", 200, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.serve("https://registry.test", func(rw http.ResponseWriter, req *http.Request) {
				if req.Header.Get("Authorization") != "" {
					t.Errorf("asked as %s", req.Header.Get("Authorization"))
				}
				tt.answer(rw, req)
			})
			w.serve("https://other.test", serveContent)
			r := w.registry(Options{Logins: asUser}, "https://registry.test", "https://other.test")
			_, err := r.Shows(t.Context(), repo, tt.resource, "")
			if tt.status == 0 && err != nil {
				t.Fatal(err)
			}
			if tt.status != 0 {
				if e := asError(t, err); e.Status != tt.status || e.Answered() != tt.answered {
					t.Errorf("%v (answered %t)", e, e.Answered())
				}
			}
			want := "HEAD https://registry.test/v2/library/redis/" + tt.resource
			if tt.asked != "" {
				want = strings.Replace(tt.asked, " ", " https://registry.test/v2/library/redis/", 1)
			}
			if lines := w.lines(); len(lines) != 1 || lines[0] != want {
				t.Errorf("%q, want %q", lines, want)
			}
		})
	}
}

func TestShowsFetchesATokenForNobody(t *testing.T) {
	w := newWorld(t)
	g := &gate{t: t, realm: "https://auth.test/token", service: "registry"}
	w.serve("https://registry.test", g.guard(serveContent))
	w.serve("https://auth.test", g.tokens)
	r := w.registry(Options{Logins: asUser}, "https://registry.test")
	if _, err := r.Resolve(t.Context(), repo, "7", nil); err != nil { // by a token of the login's
		t.Fatal(err)
	}
	if _, err := r.Shows(t.Context(), repo, "manifests/7", ""); err != nil {
		t.Fatal(err)
	}
	var authorizations []string
	for _, h := range w.requests() {
		if strings.Contains(h.URL, "auth.test") {
			authorizations = append(authorizations, h.Header.Get("Authorization"))
		}
	}
	if len(authorizations) != 2 || authorizations[0] == "" || authorizations[1] != "" {
		t.Errorf("tokens were asked for with %q", authorizations)
	}
}

// TestShowsFollowsBlobs has storage whose signatures are for GET alone, and a registry that sends who is not known to log in.
func TestShowsFollowsBlobs(t *testing.T) {
	d := digest.FromBytes(content)
	for _, tt := range []struct {
		name    string
		storage http.HandlerFunc
		shown   bool
	}{
		{"signed for GET", func(rw http.ResponseWriter, req *http.Request) {
			if req.Method != http.MethodGet {
				status(403)(rw, req)
				return
			}
			rw.Header().Set("Content-Range", fmt.Sprintf("bytes 0-0/%d", len(content)))
			rw.WriteHeader(http.StatusPartialContent)
			rw.Write(content[:1])
		}, true},
		{"for both", answer(200, content), true},
		{"a login that refuses", status(403), false},
		{"a page to log in", answer(200, []byte("<html>"), "Content-Type", "text/html"), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.serve("https://registry.test", func(rw http.ResponseWriter, req *http.Request) {
				http.Redirect(rw, req, "https://storage.test/x?signature=s", http.StatusTemporaryRedirect)
			})
			w.serve("https://storage.test", tt.storage)
			_, err := w.registry(Options{}, "https://registry.test").Shows(t.Context(), repo, "blobs/"+d.String(), "")
			if shown := err == nil; shown != tt.shown {
				t.Errorf("%v", err)
			}
			if err != nil && asError(t, err).Answered() {
				t.Errorf("%v is taken for the registry's word", err)
			}
		})
	}
}

func TestPresentedGoesToTheFirstEndpointAlone(t *testing.T) {
	const header = "Bearer of-a-client"
	w := newWorld(t)
	first := func(rw http.ResponseWriter, req *http.Request) {
		if req.Header.Get("Authorization") != header {
			t.Errorf("first: asked as %q", req.Header.Get("Authorization"))
		}
		if strings.Contains(req.URL.Path, "/blobs/") {
			http.Redirect(rw, req, "https://storage.test/x", http.StatusTemporaryRedirect)
			return
		}
		status(404)(rw, req)
	}
	w.serve("https://first.test", first)
	others := func(rw http.ResponseWriter, req *http.Request) {
		if a := req.Header.Get("Authorization"); a != "" {
			t.Errorf("%s: asked as %q", req.Host, a)
		}
		serveContent(rw, req)
	}
	w.serve("https://other.test", others)
	w.serve("https://storage.test", others)
	log, logs := debugLog()
	r := w.registry(Options{Logins: asUser, Log: log}, "https://first.test", "https://other.test")
	ctx := PresentedIn(WithAuthorization(t.Context(), header)).In(t.Context())
	if _, _, err := r.Manifest(ctx, repo, contentDigest.String(), nil); err != nil {
		t.Error(err)
	}
	stream, err := r.OpenBlob(ctx, BlobRequest{Repository: repo, Digest: contentDigest})
	if err != nil {
		t.Fatal(err)
	}
	stream.Close()
	if _, err := r.Shows(t.Context(), repo, "manifests/7", header); asError(t, err).Status != 404 {
		t.Error(err)
	}
	if w.count("other.test") != 1 || w.count("storage.test") != 1 {
		t.Errorf("%q", w.lines())
	}
	entries, err := json.Marshal(logs.All())
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(entries), "of-a-client") || !strings.Contains(string(entries), "first.test") {
		t.Errorf("the log: %s", entries)
	}
}

func TestPresentedIsHidden(t *testing.T) {
	p := PresentedIn(WithAuthorization(t.Context(), "Bearer secret"))
	type holder struct {
		P Presented
		p Presented
	}
	encoded, err := json.Marshal(holder{P: p, p: p})
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("%v %+v %#v %s %q %v %+v %#v %s %v", p, p, p, p, p, holder{p, p}, holder{p, p}, holder{p, p}, encoded, p.In(context.Background()))
	if strings.Contains(text, "secret") {
		t.Error(text)
	}
	if PresentedIn(WithAuthorization(t.Context(), "")) != (Presented{}) || PresentedIn(t.Context()).In(t.Context()) != t.Context() {
		t.Error("nothing is something")
	}
}

func TestChallenge(t *testing.T) {
	for _, tt := range []struct {
		name, given, want string
		status            int // of the error; 0: none
		answer            int // of the registry
	}{
		{"token", `Bearer realm="https://auth.test/token",service="registry.test",scope="repository:x:pull"`,
			`Bearer realm="https://auth.test/token",service="registry.test",scope="repository:library/redis:pull"`, 0, 401},
		{"password", `Basic realm="the registry"`, `Basic realm="docker.io"`, 0, 401},
		{"nothing", "", "", 0, 200},
		{"out of order", "", "", 503, 503},
		{"nobody knows how", `Negotiate`, "", 401, 401},
		{"hostile", `Bearer realm="https://a\"b\\c",service="x` + "\x01" + `y"`,
			`Bearer realm="https://a\"b\\c",service="x y",scope="repository:library/redis:pull"`, 0, 401},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.name == "hostile" { // such a header does not get through net/http
				c := choose([]string{tt.given})
				if got := c.header("docker.io", repo); got != tt.want {
					t.Errorf("%q, want %q", got, tt.want)
				}
				return
			}
			w := newWorld(t)
			w.serve("https://registry.test", func(rw http.ResponseWriter, req *http.Request) {
				if req.URL.Path != "/base/v2/" || req.Header.Get("Authorization") != "" {
					t.Errorf("%s as %q", req.URL, req.Header.Get("Authorization"))
				}
				if tt.given != "" {
					rw.Header().Set("WWW-Authenticate", tt.given)
				}
				status(tt.answer)(rw, req)
			})
			r := w.registry(Options{Logins: asUser}, "https://registry.test/base")
			for range 2 {
				got, err := r.Challenge(t.Context(), repo)
				if got != tt.want || tt.status == 0 && err != nil || tt.status != 0 && asError(t, err).Status != tt.status {
					t.Errorf("%q, %v; want %q", got, err, tt.want)
				}
			}
			if tt.given != "" && tt.status == 0 && len(w.lines()) != 1 {
				t.Errorf("asked %d times", len(w.lines()))
			}
		})
	}
}

func TestRefusalHoldsTheChallenge(t *testing.T) {
	const given = `Bearer realm="https://auth.test/token",service="registry.test",scope="repository:library/redis:pull",error="invalid_token"`
	w := newWorld(t)
	w.serve("https://registry.test", func(rw http.ResponseWriter, req *http.Request) {
		rw.Header().Add("WWW-Authenticate", `Basic realm="x"`)
		rw.Header().Add("WWW-Authenticate", given)
		status(401)(rw, req)
	})
	_, err := w.registry(Options{}, "https://registry.test").Shows(t.Context(), repo, "manifests/7", "Bearer old")
	if e := asError(t, err); e.Challenge != given || strings.Contains(e.Error(), "old") {
		t.Errorf("%q, %v", e.Challenge, e)
	}
}

// FuzzPassedChallenge writes challenges that it has read: what a client reads of them must be what we did.
func FuzzPassedChallenge(f *testing.F) {
	f.Add(`Bearer realm="https://a\"b",service=x, Basic realm="y"`)
	f.Add(`Basic`)
	f.Fuzz(func(t *testing.T, header string) {
		written := passed([]string{header})
		if strings.ContainsFunc(written, func(c rune) bool { return c < ' ' || c == 0x7f }) {
			t.Fatalf("%q", written)
		}
		if again := passed([]string{written}); again != written {
			t.Errorf("%q, then %q", written, again)
		}
	})
}

// untyped answers with content of no type.
func untyped(rw http.ResponseWriter, _ *http.Request) {
	rw.Header()["Content-Type"] = nil
	rw.Write(content)
}

// TestChallengesOfWhoIsGoneCostFewConnections has clients of many repositories ask what is wanted of them, when nobody knows yet.
func TestChallengesOfWhoIsGoneCostFewConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := newOutage(t, Options{})
		out.swallow.Store(true)
		var crowd sync.WaitGroup
		for i := range 200 {
			crowd.Go(func() {
				if _, err := out.Challenge(t.Context(), fmt.Sprint("some/", i)); err == nil {
					t.Error("no error")
				}
			})
		}
		crowd.Wait()
		if n := out.dials.Load(); n > atOnce {
			t.Errorf("%d connections to find out", n)
		}
		start, dials := time.Now(), out.dials.Load()
		if _, err := out.Challenge(t.Context(), repo); !errors.Is(err, ErrDown) || time.Since(start) != 0 || out.dials.Load() != dials {
			t.Errorf("once it is known: %v after %v", err, time.Since(start))
		}
	})
}

func TestWhoAsksForNothingIsNotAskedByEachClient(t *testing.T) {
	w := newWorld(t)
	w.serve("https://registry.test", answer(200, []byte("{}")))
	r := w.registry(Options{}, "https://registry.test")
	for range 3 {
		if c, err := r.Challenge(t.Context(), repo); c != "" || err != nil {
			t.Errorf("%q, %v", c, err)
		}
	}
	if lines := w.lines(); len(lines) != 1 {
		t.Errorf("%q", lines)
	}
}
