package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestParseToken(t *testing.T) {
	const date = "Sat, 01 Jan 2000 12:00:00 GMT"
	for _, tt := range []struct {
		name, body, date string
		value            string
		life             time.Duration
		err              string
	}{
		{"token", `{"token":"abc","expires_in":300}`, "", "abc", 300 * time.Second, ""},
		{"access_token", `{"access_token":"abc","expires_in":300}`, "", "abc", 300 * time.Second, ""},
		{"both", `{"token":"abc","access_token":"def","expires_in":300}`, "", "abc", 300 * time.Second, ""},
		{"empty token", `{"token":"","access_token":"def"}`, "", "def", time.Minute, ""},
		{"life not stated", `{"token":"abc"}`, "", "abc", time.Minute, ""},
		{"life is null", `{"token":"abc","expires_in":null}`, "", "abc", time.Minute, ""},
		{"life is zero", `{"token":"abc","expires_in":0}`, "", "abc", time.Minute, ""},
		{"life is negative", `{"token":"abc","expires_in":-5}`, "", "abc", time.Minute, ""},
		{"life is a fraction", `{"token":"abc","expires_in":1.5}`, "", "abc", 1500 * time.Millisecond, ""},
		{"life is a string", `{"token":"abc","expires_in":"300"}`, "", "abc", 300 * time.Second, ""},
		{"life is endless", `{"token":"abc","expires_in":1e300}`, "", "abc", 24 * time.Hour, ""},
		{"life is no number", `{"token":"abc","expires_in":"NaN"}`, "", "abc", time.Minute, ""},
		{"issued before", `{"token":"abc","expires_in":300,"issued_at":"2000-01-01T11:59:00Z"}`, date, "abc", 240 * time.Second, ""},
		{"issued in the future", `{"token":"abc","expires_in":300,"issued_at":"2000-01-01T13:00:00Z"}`, date, "abc", 300 * time.Second, ""},
		{"issued too long ago", `{"token":"abc","expires_in":300,"issued_at":"1999-01-01T13:00:00Z"}`, date, "abc", 0, ""},
		{"issued before, no date", `{"token":"abc","expires_in":300,"issued_at":"1999-01-01T11:59:00Z"}`, "", "abc", 300 * time.Second, ""},
		{"issued at no time", `{"token":"abc","expires_in":300,"issued_at":"yesterday"}`, date, "abc", 300 * time.Second, ""},
		{"no token", `{"expires_in":300}`, "", "", 0, "holds no token"},
		{"no JSON", `<html>`, "", "", 0, "not a JSON document"},
		{"a list", `[]`, "", "", 0, "not a JSON document"},
		{"of another type", `{"token":5}`, "", "", 0, "not a JSON document"},
		{"with a line break", `{"token":"abc\r\nX-Evil: 1"}`, "", "", 0, "fits no header"},
		{"with a space", `{"token":"abc def"}`, "", "", 0, "fits no header"},
		{"with an umlaut", `{"token":"äbc"}`, "", "", 0, "fits no header"},
		{"with DEL", `{"token":"abc\u007f"}`, "", "", 0, "fits no header"},
		{"too long for a header", `{"token":"` + strings.Repeat("a", maxToken+1) + `"}`, "", "", 0, "fits no header"},
		{"too long to be read", strings.Repeat(" ", maxTokenAnswer) + `{"token":"abc"}`, "", "", 0, "more than"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			value, life, err := parseToken([]byte(tt.body), tt.date)
			if value != tt.value || life != tt.life {
				t.Errorf("%q for %v, want %q for %v", value, life, tt.value, tt.life)
			}
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
		})
	}
}

func FuzzTokenResponse(f *testing.F) {
	f.Add([]byte(`{"token":"abc","expires_in":300,"issued_at":"2000-01-01T11:59:00Z"}`), "Sat, 01 Jan 2000 12:00:00 GMT")
	f.Add([]byte(`{"access_token":"a\r\nb","expires_in":"1e999"}`), "")
	f.Add([]byte(`{"token":[],"expires_in":-1e-9}`), "x")
	f.Fuzz(func(t *testing.T, body []byte, date string) {
		value, life, err := parseToken(body, date)
		if err != nil {
			return
		}
		if life < 0 || life > longestLife {
			t.Errorf("life %v", life)
		}
		if value == "" || strings.ContainsAny(value, " \t\r\n\x00") {
			t.Errorf("token %q", value)
		}
	})
}

func TestTokenServersTrouble(t *testing.T) {
	for _, tt := range []struct {
		name     string
		answer   http.HandlerFunc // nil: nobody listens
		status   int
		answered bool
		err      string
	}{
		{"wrong password", status(401), 401, false, "CODE_401: status 401: the registry refuses entrepot's credentials"},
		{"no access", status(403), 403, true, "CODE_403: status 403"},
		{"in Docker Hub's words", answer(401, []byte(`{"details":"incorrect username or password"}`)), 401, false, "incorrect username or password"},
		{"in OAuth's words", answer(401, []byte(`{"error":"invalid_client","error_description":"who?"}`)), 401, false, "invalid_client: who?"},
		{"throttled", status(429), 429, false, ""},
		{"broken", status(500), 500, false, ""},
		{"no such page", status(404), 404, false, ""},
		{"bad request", status(400), 400, false, ""},
		{"captive portal", answer(200, []byte(`<html>Log in`), "Content-Type", "text/html"), 200, false, "not a JSON document"},
		{"nobody listens", nil, 0, false, "connection refused"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			g := &gate{t: t, realm: "https://auth.test/token", service: "registry"}
			w.serve("https://registry.test", g.guard(serveContent))
			if tt.answer != nil {
				w.serve("https://auth.test", tt.answer)
			}
			err := resolve(t, w.registry(Options{Logins: asUser}, "https://registry.test"), repo)
			e := asError(t, err)
			if e.Status != tt.status || e.Answered() != tt.answered || !strings.Contains(e.Error(), tt.err) {
				t.Errorf("%v (answered %t)", e, e.Answered())
			}
			if !strings.Contains(e.Op, "GET token for library/redis from auth.test") {
				t.Errorf("Op %q", e.Op)
			}
		})
	}
}

func TestSilentTokenServerIsAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		g := &gate{t: t, realm: "https://auth.test/token", service: "registry"}
		w.serve("https://registry.test", g.guard(serveContent))
		w.serve("https://auth.test", silent)
		start := time.Now()
		e := asError(t, resolve(t, w.registry(Options{HeaderTimeout: 4 * time.Second}, "https://registry.test"), repo))
		if e.Answered() || time.Since(start) != 4*time.Second {
			t.Errorf("after %v: %v", time.Since(start), e)
		}
	})
}

// slowly makes a token server take its time.
func slowly(d time.Duration, h http.HandlerFunc) http.HandlerFunc {
	return func(rw http.ResponseWriter, req *http.Request) {
		pause(req.Context(), d)
		h(rw, req)
	}
}

func TestManyWaitersShareOneTokenRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		g := &gate{t: t, realm: "http://registry.test/token", service: "registry"}
		w.serve("http://registry.test", func(rw http.ResponseWriter, req *http.Request) {
			if req.URL.Path == "/token" {
				slowly(3*time.Second, g.tokens)(rw, req)
			} else {
				g.guard(serveContent)(rw, req)
			}
		})
		r := w.registry(Options{}, "http://registry.test")

		// The first to ask, who therefore starts the token request, is also the first to leave.
		hasty, leave := context.WithTimeout(t.Context(), time.Second)
		defer leave()
		var left atomic.Int32
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := r.Resolve(hasty, repo, "7", nil); errors.Is(err, context.DeadlineExceeded) {
				left.Add(1)
			}
		})
		synctest.Wait()
		for range 50 {
			wg.Go(func() {
				if _, err := r.Resolve(t.Context(), repo, "7", nil); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := w.count("/token"); n != 1 || left.Load() != 1 {
			t.Errorf("%d token requests; %d callers left", n, left.Load())
		}
	})
}

// aged is a registry whose tokens live 100 s, with its first token at hand.
func aged(t *testing.T) (*world, *gate, *Registry) {
	w, g := gated(t)
	g.answer = func(token string) string { return fmt.Sprintf(`{"token":%q,"expires_in":100}`, token) }
	r := w.registry(Options{}, "https://registry.test")
	if err := resolve(t, r, repo); err != nil {
		t.Fatal(err)
	}
	return w, g, r
}

func TestTokenIsRenewedAheadOfItsEnd(t *testing.T) {
	for _, tt := range []struct {
		age      time.Duration
		bearer   string // of the request at that age
		requests int    // for tokens, in all
	}{
		{79 * time.Second, "Bearer token-1", 1},
		{81 * time.Second, "Bearer token-1", 2}, // used once more, while the next one is fetched
		{96 * time.Second, "Bearer token-2", 2}, // too old to be sent
	} {
		t.Run(tt.age.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, _, r := aged(t)
				pause(t.Context(), tt.age)
				if err := resolve(t, r, repo); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				got := ""
				for _, h := range w.requests() {
					if strings.HasPrefix(h.URL, "https://registry.test") {
						got = h.Header.Get("Authorization")
					}
				}
				if got != tt.bearer || w.count("auth.test") != tt.requests {
					t.Errorf("%s after %d token requests, want %s after %d", got, w.count("auth.test"), tt.bearer, tt.requests)
				}
				if n := w.count("registry.test"); n != 3 {
					t.Errorf("%d requests to the registry, want 3: none refused but the first", n)
				}
			})
		})
	}
}

func TestTokenThatCannotBeRenewedIsUsedToItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _, r := aged(t)
		r.endpoints[0].roads.closeIdle()
		w.serve("https://auth.test", status(503))
		pause(t.Context(), 81*time.Second)
		for range 5 {
			if err := resolve(t, r, repo); err != nil {
				t.Error(err)
			}
			synctest.Wait()
		}
		if n := w.count("auth.test"); n != 2 {
			t.Errorf("%d token requests, want one more and no hammering", n)
		}
		pause(t.Context(), 20*time.Second)
		if e := asError(t, resolve(t, r, repo)); e.Status != 503 || e.Answered() {
			t.Error(e)
		}
	})
}

func TestCloseEndsTokenRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		g := &gate{t: t, realm: "https://auth.test/token", service: "registry"}
		w.serve("https://registry.test", g.guard(serveContent))
		w.serve("https://auth.test", silent)
		r := w.registry(Options{}, "https://registry.test")
		failed := make(chan error)
		go func() {
			_, err := r.Resolve(t.Context(), repo, "7", nil)
			failed <- err
		}()
		synctest.Wait()
		r.Close()
		if e := asError(t, <-failed); e.Answered() {
			t.Error(e)
		}
		if e := asError(t, resolve(t, r, repo)); !errors.Is(e, errClosed) {
			t.Errorf("after Close: %v", e)
		}
	})
}

func TestTokensAreBoundedInNumber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ts tokens
		a := &account{}
		key := func(i int) tokenKey { return tokenKey{a, fmt.Sprint(i)} }
		soon, later := time.Now().Add(time.Minute), time.Now().Add(time.Hour)
		for i := range maxTokens {
			end := soon
			if i%2 == 0 {
				end = later
			}
			ts.keep(key(i), token{value: "x", endAt: end})
		}
		pause(t.Context(), 2*time.Minute)
		ts.keep(key(maxTokens), token{value: "x", endAt: later})
		if len(ts.kept) != maxTokens/2+1 {
			t.Errorf("%d tokens kept, want those that have not ended", len(ts.kept))
		}
		most := 0
		for i := range 2 * maxTokens {
			ts.keep(key(i), token{value: "x", endAt: later})
			most = max(most, len(ts.kept))
		}
		if most != maxTokens {
			t.Errorf("%d tokens kept at most, want %d", most, maxTokens)
		}
		if _, ok := ts.lookup(key(2*maxTokens - 1)); !ok {
			t.Error("the newest is not among them")
		}
	})
}
