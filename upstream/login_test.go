package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/entrepot/entrepot/upstream/credential"
)

var (
	wrong     = credential.Login{Username: "wrong", Password: "1"}
	forbidden = credential.Login{Username: "forbidden", Password: "2"}
)

// doorkeeper is a registry that lets user in, forbids to forbidden, and refuses all others; by Basic, or by a token server.
func doorkeeper(w *world, scheme string) {
	w.serve("https://registry.test", func(rw http.ResponseWriter, req *http.Request) {
		atRealm, got := req.URL.Path == "/token", req.Header.Get("Authorization")
		switch {
		case got == basicHeader(forbidden):
			status(403)(rw, req)
		case atRealm && got == basicHeader(user):
			fmt.Fprint(rw, `{"token":"good"}`)
		case atRealm:
			status(401)(rw, req)
		case got == "Bearer good", scheme == "Basic" && got == basicHeader(user):
			serveContent(rw, req)
		default:
			rw.Header().Set("WWW-Authenticate", scheme+` realm="https://registry.test/token"`)
			status(401)(rw, req)
		}
	})
}

// sent is how often a login has been sent.
func (w *world) sent(who credential.Login) (n int) {
	for _, h := range w.requests() {
		if h.Header.Get("Authorization") == basicHeader(who) {
			n++
		}
	}
	return n
}

func TestLoginsAreTriedUntilOneIsNotRefused(t *testing.T) {
	unreadable := []credential.Source{keyless{errors.New("gone")}}
	for name, bad := range map[string][]credential.Source{"refused": as(wrong), "forbidden": as(forbidden), "unreadable": unreadable} {
		for _, scheme := range []string{"Basic", "Bearer"} {
			w := newWorld(t)
			doorkeeper(w, scheme)
			r := w.registry(Options{Logins: append(append(bad, unreadable...), asUser...)}, "https://registry.test")
			for n := range 3 {
				if err := resolve(t, r, fmt.Sprint("library/", n)); err != nil {
					t.Errorf("%s, %s: %v after %q", name, scheme, err, w.lines())
				}
			}
			if n := w.sent(wrong); name == "refused" && n != 2 { // once to see whether it is the login
				t.Errorf("%s: a login that is refused is sent %d times", scheme, n)
			}
		}
	}
}

func TestWeightiestRefusalIsTheAnswer(t *testing.T) {
	unreadable := []credential.Source{keyless{errors.New("gone")}}
	for _, scheme := range []string{"Basic", "Bearer"} {
		for _, tt := range []struct {
			logins   []credential.Source
			status   int
			answered bool
		}{
			{as(forbidden, forbidden), 403, true},
			{append(as(forbidden), unreadable...), 0, false},
			{append(append(as(forbidden), unreadable...), as(wrong)...), 401, false}, // what it might have been shown, nobody knows
		} {
			w := newWorld(t)
			doorkeeper(w, scheme)
			e := asError(t, resolve(t, w.registry(Options{Logins: tt.logins}, "https://registry.test"), repo))
			if e.Status != tt.status || e.Answered() != tt.answered {
				t.Errorf("%s: %v, answered %t", scheme, e, e.Answered())
			}
		}
	}
}

// TestRefusedLoginIsSentAtGrowingPauses asks four times a second.
func TestRefusedLoginIsSentAtGrowingPauses(t *testing.T) {
	for _, scheme := range []string{"Basic", "Bearer"} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			doorkeeper(w, scheme)
			log, logs := debugLog()
			source := &fickle{logins: []credential.Login{wrong}}
			r := w.registry(Options{Log: log, Logins: []credential.Source{source}}, "https://registry.test")
			var at []time.Duration
			began := time.Now()
			ask := func() *Error {
				before := w.sent(wrong)
				e := asError(t, resolve(t, r, repo))
				if w.sent(wrong) != before {
					at = append(at, time.Since(began))
				}
				return e
			}
			for time.Since(began) < 4*time.Minute {
				if e := ask(); e.Answered() || !strings.HasSuffix(e.Error(), "the registry refuses entrepot's credentials") ||
					e.RetryAfter <= 0 || e.RetryAfter > time.Minute || e.Status != 401 {
					t.Fatalf("%+v", e)
				}
				<-time.After(250 * time.Millisecond)
			}
			s := time.Second
			if diff := cmp.Diff([]time.Duration{0, s, 3 * s, 7 * s, 15 * s, 31 * s, 63 * s, 123 * s, 183 * s}, at); diff != "" {
				t.Errorf("%s: %s", scheme, diff)
			}
			told := logs.Filter(func(e observer.LoggedEntry) bool { return e.Level > zapcore.DebugLevel })
			if told.Len() != 4 || told.FilterMessage("credentials are refused").FilterLevelExact(zapcore.ErrorLevel).Len() != 4 {
				t.Errorf("told %v", told.All())
			}
			// Another login is sent at once.
			source.mu.Lock()
			source.logins = []credential.Login{user}
			source.mu.Unlock()
			for range 2 {
				if err := resolve(t, r, repo); err != nil {
					t.Error(err)
				}
			}
			if n := logs.FilterMessage("credentials are accepted").FilterLevelExact(zapcore.InfoLevel).Len(); n != 1 {
				t.Errorf("told %d times that it is over", n)
			}
		})
	}
}

// TestOneTriesALoginThatIsRefused has a registry that lets a login in after all, and takes its time to.
func TestOneTriesALoginThatIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var mended atomic.Bool
		release := make(chan struct{})
		w.serve("https://registry.test", func(rw http.ResponseWriter, req *http.Request) {
			if mended.Load() && req.Header.Get("Authorization") != "" {
				<-release
				serveContent(rw, req)
				return
			}
			rw.Header().Set("WWW-Authenticate", "Basic")
			status(401)(rw, req)
		})
		r := w.registry(Options{Logins: asUser}, "https://registry.test")
		asError(t, resolve(t, r, repo))
		mended.Store(true)
		<-time.After(firstHold)
		before, refused := w.sent(user), 0
		errs := make(chan error)
		for range 20 {
			go func() { errs <- resolve(t, r, repo) }()
		}
		for range 19 { // at once
			if err := <-errs; errors.Is(err, errRefused) {
				refused++
			}
		}
		close(release)
		if err := <-errs; err != nil || refused != 19 || w.sent(user) != before+1 {
			t.Errorf("%v, %d refused, sent %d times", err, refused, w.sent(user)-before)
		}
		if err := resolve(t, r, repo); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}

// TestTrialThatIsGivenUpIsFollowedByAnother has a registry that does not answer the one who tries.
func TestTrialThatIsGivenUpIsFollowedByAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var dumb atomic.Bool
		w.serve("https://registry.test", func(rw http.ResponseWriter, req *http.Request) {
			if dumb.Load() {
				silent(rw, req)
			}
			wantBasic(serveContent)(rw, req)
		})
		r := w.registry(Options{Logins: as(wrong)}, "https://registry.test")
		asError(t, resolve(t, r, repo))
		dumb.Store(true)
		<-time.After(firstHold)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := r.Resolve(ctx, repo, "7", nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		dumb.Store(false)
		before := w.sent(wrong)
		if asError(t, resolve(t, r, repo)); w.sent(wrong) != before+1 {
			t.Errorf("sent %d times", w.sent(wrong)-before)
		}
	})
}

// TestProbeOfBlobsDoesNotTakeARefusedLoginForTheirFault has a door that only the probe opens.
func TestProbeOfBlobsDoesNotTakeARefusedLoginForTheirFault(t *testing.T) {
	for _, logins := range [][]credential.Source{as(wrong), {keyless{errors.New("gone")}}} {
		w := newWorld(t)
		doorkeeper(w, "Bearer")
		r := w.registry(Options{Logins: logins}, "https://registry.test")
		if !r.brings(t.Context(), r.endpoints[0], blobName{repo, contentDigest}) {
			t.Error("an endpoint that answers is not back")
		}
	}
}

// TestRepositoryThatIsRefusedSaysNothingOfTheLogin has a registry say 401 of what a user may not see, as if it did not know the user.
func TestRepositoryThatIsRefusedSaysNothingOfTheLogin(t *testing.T) {
	w := newWorld(t)
	w.serve("https://registry.test", func(rw http.ResponseWriter, req *http.Request) {
		if req.Header.Get("Authorization") != basicHeader(user) || strings.Contains(req.URL.Path, "/closed/") {
			rw.Header().Set("WWW-Authenticate", `Basic realm="registry"`)
			status(401)(rw, req)
			return
		}
		serveContent(rw, req)
	})
	r := w.registry(Options{Logins: asUser}, "https://registry.test")
	if err := resolve(t, r, "open/a"); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if failed := asError(t, resolve(t, r, "closed/a")); !failed.Answered() {
			t.Errorf("%v", failed)
		}
		if err := resolve(t, r, "open/b"); err != nil {
			t.Errorf("the login is held: %v", err)
		}
	}
}

// closing is a registry that says 401 of what a user may not see, and at its root what it is told to.
func closing(w *world, root http.HandlerFunc) {
	w.serve("https://registry.test", func(rw http.ResponseWriter, req *http.Request) {
		switch {
		case req.Header.Get("Authorization") != basicHeader(user), strings.Contains(req.URL.Path, "/closed/"):
			rw.Header().Set("WWW-Authenticate", `Basic realm="registry"`)
			status(401)(rw, req)
		case req.URL.Path == "/v2/":
			root(rw, req)
		default:
			serveContent(rw, req)
		}
	})
}

func TestRepositoryThatIsRefusedFirstSaysNothingOfTheLogin(t *testing.T) {
	w := newWorld(t)
	closing(w, status(200))
	r := w.registry(Options{Logins: asUser}, "https://registry.test")
	if failed := asError(t, resolve(t, r, "closed/a")); !failed.Answered() {
		t.Errorf("%v", failed)
	}
	if err := resolve(t, r, "open/a"); err != nil {
		t.Errorf("the login is held: %v", err)
	}
}

// TestLoginIsNotRefusedByWhoDoesNotSay has a root that does not tell whether the login or the repository was meant.
func TestLoginIsNotRefusedByWhoDoesNotSay(t *testing.T) {
	for _, code := range []int{429, 503} {
		w := newWorld(t)
		closing(w, status(code))
		r := w.registry(Options{Logins: asUser}, "https://registry.test")
		if err := resolve(t, r, "open/a"); err != nil {
			t.Fatal(err)
		}
		if failed := asError(t, resolve(t, r, "closed/a")); failed.Answered() {
			t.Errorf("%v", failed)
		}
		if err := resolve(t, r, "open/b"); err != nil {
			t.Errorf("the login is held: %v", err)
		}
	}
}

func TestLoginIsNotRefusedByWhoLeaves(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	closing(w, func(rw http.ResponseWriter, req *http.Request) { cancel(); silent(rw, req) })
	r := w.registry(Options{Logins: asUser}, "https://registry.test")
	if err := resolve(t, r, "open/a"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Resolve(ctx, "closed/a", "7", nil); err == nil {
		t.Fatal("no error")
	}
	if err := resolve(t, r, "open/b"); err != nil {
		t.Errorf("the login is held: %v", err)
	}
}

// TestTokenThatIsRefusedSaysNothingOfTheLogin has a token server say 401 of what a user may not see.
func TestTokenThatIsRefusedSaysNothingOfTheLogin(t *testing.T) {
	w, _ := gated(t)
	w.serve("https://auth.test", func(rw http.ResponseWriter, req *http.Request) {
		if req.Header.Get("Authorization") != basicHeader(user) || strings.Contains(req.FormValue("scope"), "closed/") {
			status(401)(rw, req)
			return
		}
		fmt.Fprint(rw, `{"token":"good"}`)
	})
	w.serve("https://registry.test", func(rw http.ResponseWriter, req *http.Request) {
		if req.Header.Get("Authorization") == "Bearer good" {
			serveContent(rw, req)
			return
		}
		rw.Header().Set("WWW-Authenticate", `Bearer realm="https://auth.test/"`)
		status(401)(rw, req)
	})
	r := w.registry(Options{Logins: asUser}, "https://registry.test")
	if failed := asError(t, resolve(t, r, "closed/a")); !failed.Answered() || failed.Status != 401 {
		t.Errorf("%v", failed)
	}
	if err := resolve(t, r, "open/a"); err != nil {
		t.Errorf("the login is held: %v", err)
	}
}
