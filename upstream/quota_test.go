package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/entrepot/entrepot/upstream/credential"
)

var two = as(credential.Login{Username: "one", Password: "1"}, credential.Login{Username: "two", Password: "2"})

// limiting is a registry with Basic authentication and limits of its users. It answers by limits, and logs who asked.
type limiting struct {
	mu    sync.Mutex
	asked []string // "METHOD user"
	// answer returns the status of an answer, and may set headers.
	answer func(user, method string, h http.Header) int
}

func (l *limiting) ServeHTTP(rw http.ResponseWriter, req *http.Request) {
	user, _, ok := req.BasicAuth()
	if !ok {
		rw.Header().Set("WWW-Authenticate", "Basic")
		rw.WriteHeader(http.StatusUnauthorized)
		return
	}
	l.mu.Lock()
	l.asked = append(l.asked, req.Method+" "+user)
	code := l.answer(user, req.Method, rw.Header())
	l.mu.Unlock()
	if code == http.StatusOK {
		serveContent(rw, req)
		return
	}
	status(code)(rw, req)
}

func (l *limiting) log() (asked []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	asked, l.asked = l.asked, nil
	return asked
}

// limited runs a test in a bubble, with a registry that answers so, and who asks it.
func limited(t *testing.T, o Options, answer func(user, method string, h http.Header) int, test func(t *testing.T, r *Registry, l *limiting)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		l := &limiting{answer: answer}
		w.serve("https://registry.test", l.ServeHTTP)
		o.Patience = patience
		r := w.registry(o, "https://registry.test")
		test(t, r, l)
	})
}

func getManifest(ctx context.Context, r *Registry) error {
	_, _, err := r.Manifest(ctx, repo, "7", nil)
	return err
}

func TestAnotherLoginIsAskedAtOnce(t *testing.T) {
	until := map[string]time.Time{}
	limited(t, Options{Logins: two}, func(user, _ string, h http.Header) int {
		if time.Now().Before(until[user]) {
			h.Set("Retry-After", fmt.Sprint(time.Until(until[user]).Seconds()))
			return 429
		}
		return 200
	}, func(t *testing.T, r *Registry, l *limiting) {
		get := func(want ...string) {
			t.Helper()
			if err := getManifest(t.Context(), r); err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(want, l.log()); diff != "" {
				t.Error(diff)
			}
		}
		start := time.Now()
		get("GET one")
		until["one"] = start.Add(time.Hour)
		get("GET one", "GET two")
		get("GET two") // for the time being
		if took := time.Since(start); took > 0 {
			t.Errorf("that took %s", took)
		}
		until["two"] = start.Add(15 * time.Second)
		get("GET two", "GET two")
		if took := time.Since(start); took != 15*time.Second {
			t.Errorf("the shorter wait took %s", took)
		}
		until["two"] = start.Add(2 * time.Hour)
		for range 3 {
			e := asError(t, getManifest(t.Context(), r))
			if !e.Throttled() || !e.Outage() || e.Answered() || e.RetryAfter < 50*time.Minute || time.Since(start) > 15*time.Second {
				t.Errorf("%+v after %s", e, time.Since(start))
			}
		}
		if diff := cmp.Diff([]string{"GET two"}, l.log()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestLoginWithMoreLeftIsAsked(t *testing.T) {
	left := map[string]int{"one": 13, "two": 12}
	limited(t, Options{Logins: two}, func(user, _ string, h http.Header) int {
		if left[user] == 0 {
			return 429
		}
		left[user]--
		h.Set("RateLimit-Limit", "100;w=21600")
		h.Set("RateLimit-Remaining", fmt.Sprintf("%d;w=21600", left[user]))
		return 200
	}, func(t *testing.T, r *Registry, l *limiting) {
		for range 25 {
			if err := getManifest(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
		asked := l.log()
		// The first down to its reserve, then the second, and then what is left of both in turn.
		want := slices.Concat(slices.Repeat([]string{"GET one"}, 3), slices.Repeat([]string{"GET two"}, 2))
		if diff := cmp.Diff(want, asked[:5]); diff != "" {
			t.Error(diff)
		}
		for _, s := range r.Quotas() {
			if s.Limit != 100 || s.Remaining != 0 || s.Reserve != 10 || s.Throttled > 0 || s.Window != 6*time.Hour || s.Endpoint != "registry.test" {
				t.Errorf("%+v", s)
			}
		}
		if err := getManifest(Dispensable(t.Context()), r); err == nil {
			t.Error("what can be done without is asked for")
		}
		if asked := l.log(); len(asked) > 0 {
			t.Errorf("asked %q", asked)
		}
	})
}

func TestOneFindsOutForAll(t *testing.T) {
	var until time.Time
	limited(t, Options{Logins: asUser}, func(_, _ string, h http.Header) int {
		if time.Now().Before(until) {
			return 429
		}
		return 200
	}, func(t *testing.T, r *Registry, l *limiting) {
		start := time.Now()
		if err := getManifest(t.Context(), r); err != nil || isHeld(r) {
			t.Fatalf("%v, busy: %v", err, isHeld(r))
		}
		until = start.Add(5 * time.Second)
		if e := asError(t, getManifest(Dispensable(t.Context()), r)); !e.Throttled() || e.RetryAfter != time.Second || !isHeld(r) {
			t.Errorf("%+v, busy: %v", e, isHeld(r))
		}
		l.log()
		var waiting sync.WaitGroup
		for range 50 {
			waiting.Go(func() {
				if err := getManifest(t.Context(), r); err != nil {
					t.Error(err)
				}
			})
		}
		pause(t.Context(), 4*time.Second)
		if e := asError(t, getManifest(Dispensable(t.Context()), r)); !errors.Is(e, errLimited) {
			t.Errorf("%v", e)
		}
		waiting.Wait()
		// Trials after 1, 3 and 7 seconds, of which the last is answered.
		if asked := l.log(); len(asked) != 52 || time.Since(start) > 20*time.Second {
			t.Errorf("asked %d times in %s", len(asked), time.Since(start))
		}
		s := r.Quotas()[0]
		if s.Login != "ci" || s.Waits != 50 || s.Waited < 50*6*time.Second || s.Throttled != 3 || s.ThrottledFor != 0 || s.Limit != 0 {
			t.Errorf("%+v", s)
		}
	})
}

func TestWhoLeavesWhileTryingHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		held := make(chan struct{})
		w.serve("http://registry.test", func(rw http.ResponseWriter, req *http.Request) {
			switch w.count("GET") {
			case 1:
				status(429)(rw, req)
			case 2:
				<-held
			default:
				serveContent(rw, req)
			}
		})
		r := w.registry(Options{Patience: patience}, "http://registry.test")
		getManifest(Dispensable(t.Context()), r)
		pause(t.Context(), time.Second)
		ctx, leave := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() {
			if err := getManifest(ctx, r); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
		synctest.Wait()
		for range 2 {
			all.Go(func() {
				if err := getManifest(t.Context(), r); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		if n := w.count("GET"); n != 2 {
			t.Errorf("asked %d times before the trial is over", n)
		}
		leave()
		all.Wait()
		close(held)
	})
}

func TestTokenServersLimitCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, g := gated(t)
		until := time.Now().Add(3 * time.Second)
		w.serve("https://limited.test", func(rw http.ResponseWriter, req *http.Request) {
			if time.Now().Before(until) {
				answer(429, nil, "Retry-After", "3")(rw, req)
				return
			}
			g.tokens(rw, req)
		})
		g.realm = "https://limited.test/token"
		r := w.registry(Options{Patience: patience}, "https://registry.test")
		var all sync.WaitGroup
		for _, name := range []string{"a", "b", "c", "d"} {
			all.Go(func() {
				if err := resolve(t, r, name); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		asked := w.count("limited.test")
		pause(t.Context(), 2*time.Second)
		if e := asError(t, head(Dispensable(t.Context()), r, own)); !e.Throttled() || e.Answered() || w.count("limited.test") != asked {
			t.Errorf("%v after %d token requests", e, w.count("limited.test")-asked)
		}
		all.Wait()
		if n := w.count("limited.test") - asked; n != 4 {
			t.Errorf("%d token requests for four repositories", n)
		}
	})
}

func TestLimitOfOneEndpointIsNotWaitedForWhileThereIsAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		has, first := true, answer(429, nil, "Retry-After", "10")
		w.serve("https://one.test", func(rw http.ResponseWriter, req *http.Request) { first(rw, req) })
		w.serve("https://two.test", func(rw http.ResponseWriter, req *http.Request) {
			if has {
				serveContent(rw, req)
				return
			}
			http.NotFound(rw, req)
		})
		r := w.registry(Options{Patience: patience}, "https://one.test", "https://two.test")
		byDigest := func() error {
			_, _, err := r.Manifest(t.Context(), repo, contentDigest.String(), nil)
			return err
		}
		start := time.Now()
		for range 2 {
			if err := byDigest(); err != nil || time.Since(start) > 0 {
				t.Errorf("%v after %s", err, time.Since(start))
			}
		}
		if n := w.count("one.test"); n != 1 {
			t.Errorf("the one that wants to be spared was asked %d times", n)
		}
		has = false
		first = serveContent
		if err := byDigest(); err != nil || time.Since(start) != 10*time.Second {
			t.Errorf("%v after %s", err, time.Since(start))
		}
	})
}

func TestThrottledBlobIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		start := time.Now()
		w.serve("http://registry.test", func(rw http.ResponseWriter, req *http.Request) {
			if time.Since(start) < 10*time.Second && strings.Contains(req.URL.Path, "/blobs/") {
				answer(429, nil, "Retry-After", "10")(rw, req)
				return
			}
			serveLayer(rw, req)
		})
		r := w.registry(Options{Patience: patience}, "http://registry.test")
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				body, err := r.OpenBlob(t.Context(), wanted(layerDigest, 0, -1))
				if err != nil {
					t.Error(err)
					return
				}
				body.Close()
			})
		}
		synctest.Wait()
		refused := w.count("/blobs/")
		if _, err := r.Resolve(t.Context(), repo, "7", nil); err != nil || time.Since(start) > 0 {
			t.Errorf("%v after %s", err, time.Since(start))
		}
		all.Wait()
		if n := w.count("/blobs/"); n != refused+8 || time.Since(start) > 20*time.Second {
			t.Errorf("asked %d times, %d of them at once, in %s", n, refused, time.Since(start))
		}
	})
}

func TestRedirectedHostsLimitIsNotTheRegistrys(t *testing.T) {
	w := newWorld(t)
	w.serve("http://registry.test", redirect("http://cdn.test/"))
	w.serve("http://cdn.test", answer(429, nil, "Retry-After", "60"))
	r := w.registry(Options{Patience: patience}, "http://registry.test")
	for range 2 {
		_, err := r.OpenBlob(t.Context(), wanted(layerDigest, 0, -1))
		if e := asError(t, err); !e.Throttled() || isHeld(r) || r.Quotas()[0].Throttled > 0 {
			t.Errorf("%v, %+v", e, r.Quotas())
		}
	}
}

// isHeld reports whether an account of a registry is held back after a 429.
func isHeld(r *Registry) bool {
	return slices.ContainsFunc(r.Quotas(), func(s QuotaStatus) bool { return s.ThrottledFor > 0 })
}
