package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/zap"

	"github.com/entrepot/entrepot/upstream/credential"
)

// closable is a source that has no login any more once it is closed.
type closable struct {
	login  credential.Login
	closed atomic.Int32
}

func (c *closable) Get(context.Context) (credential.Login, error) {
	if c.closed.Load() > 0 {
		return credential.Login{}, errors.New("closed")
	}
	return c.login, nil
}

func (c *closable) Refused(credential.Login) {}
func (c *closable) LogTo(*zap.Logger)        {}
func (c *closable) Close() error             { c.closed.Add(1); return nil }

func TestLoginsComeAndGo(t *testing.T) {
	for _, scheme := range []string{"Basic", "Bearer"} {
		w := newWorld(t)
		doorkeeper(w, scheme)
		r := w.registry(Options{}, "https://registry.test")
		if e := asError(t, resolve(t, r, repo)); e.Status != 401 || !e.Answered() {
			t.Errorf("%s: nobody: %v", scheme, e)
		}
		r.SetLogins(asUser)
		if err := resolve(t, r, repo); err != nil {
			t.Errorf("%s: one: %v", scheme, err)
		}
		r.SetLogins(append(as(wrong), asUser...))
		if err := resolve(t, r, "library/nginx"); err != nil {
			t.Errorf("%s: two: %v", scheme, err)
		}
		r.SetLogins(nil)
		before := len(w.requests())
		if e := asError(t, resolve(t, r, repo)); e.Status != 401 || !e.Answered() {
			t.Errorf("%s: nobody again: %v", scheme, e)
		}
		for _, h := range w.requests()[before:] {
			if got := h.Header.Get("Authorization"); got != "" {
				t.Errorf("%s: nobody sends %q to %s", scheme, got, h.URL)
			}
		}
	}
}

func TestLoginThatStaysGoesOnWithItsBudget(t *testing.T) {
	limited(t, Options{Logins: two}, func(user, _ string, h http.Header) int {
		h.Set("RateLimit-Limit", "100;w=3600")
		h.Set("RateLimit-Remaining", "42;w=3600")
		return 200
	}, func(t *testing.T, r *Registry, _ *limiting) {
		if err := getManifest(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		r.SetLogins([]credential.Source{credential.Static(user), two[0]})
		if q := r.Quotas(); len(q) != 1 || q[0].Login != "one" || q[0].Remaining != 42 {
			t.Errorf("%+v", q)
		}
		r.SetLogins(asUser)
		if q := r.Quotas(); len(q) != 0 {
			t.Errorf("of one that is gone: %+v", q)
		}
	})
}

// TestTokenOfALoginThatIsGoneIsNotForAnother has the login replaced while its token is asked for.
func TestTokenOfALoginThatIsGoneIsNotForAnother(t *testing.T) {
	w := newWorld(t)
	asked, release := make(chan struct{}), make(chan struct{})
	other := credential.Login{Username: "other", Password: "2"}
	w.serve("https://registry.test", func(rw http.ResponseWriter, req *http.Request) {
		name, _, _ := req.BasicAuth()
		switch bears := req.Header.Get("Authorization"); {
		case req.URL.Path == "/token":
			if name == user.Username {
				close(asked)
				<-release
			}
			fmt.Fprintf(rw, `{"token":%q}`, name)
		case strings.HasPrefix(bears, "Bearer "):
			serveContent(rw, req)
		default:
			rw.Header().Set("WWW-Authenticate", `Bearer realm="https://registry.test/token"`)
			status(401)(rw, req)
		}
	})
	r := w.registry(Options{Logins: asUser}, "https://registry.test")
	first := make(chan error)
	go func() { first <- resolve(t, r, repo) }()
	<-asked
	r.SetLogins(as(other))
	if err := resolve(t, r, repo); err != nil {
		t.Error(err)
	}
	all := w.requests()
	if got := all[len(all)-1].Header.Get("Authorization"); got != "Bearer other" {
		t.Errorf("sent %q", got)
	}
	close(release)
	if err := <-first; err != nil {
		t.Errorf("who has begun before: %v", err)
	}
}

// TestNoQuestionFailsWhileLoginsAreSet has logins come and go, of which the closed have nothing more to give.
func TestNoQuestionFailsWhileLoginsAreSet(t *testing.T) {
	for _, scheme := range []string{"Basic", "Bearer"} {
		w := newWorld(t)
		doorkeeper(w, scheme)
		log, logs := debugLog()
		stays := &closable{login: wrong}
		sources := []*closable{{login: user}}
		r := w.registry(Options{Log: log, Logins: []credential.Source{stays, sources[0]}}, "https://registry.test")
		done := make(chan struct{})
		var asking sync.WaitGroup
		for n := range 4 {
			asking.Go(func() {
				for i := 0; ; i++ {
					select {
					case <-done:
						return
					default:
					}
					if err := resolve(t, r, fmt.Sprintf("library/%d-%d", n, i)); err != nil {
						t.Errorf("%s: %v", scheme, err)
						return
					}
					r.Quotas()
					r.Quotas()
				}
			})
		}
		for range 200 {
			next := &closable{login: user}
			sources = append(sources, next)
			r.SetLogins([]credential.Source{next, stays})
		}
		close(done)
		asking.Wait()
		last := sources[len(sources)-1]
		if slices.ContainsFunc(sources[:len(sources)-1], func(c *closable) bool { return c.closed.Load() != 1 }) ||
			last.closed.Load() != 0 || stays.closed.Load() != 0 {
			t.Errorf("%s: not all that are gone, and these alone, are closed", scheme)
		}
		r.Close()
		if last.closed.Load() != 1 || stays.closed.Load() != 1 {
			t.Errorf("%s: at the end not all are closed", scheme)
		}
		late := &closable{login: user}
		if r.SetLogins([]credential.Source{late}); late.closed.Load() == 0 {
			t.Errorf("%s: what comes after the end is not closed", scheme)
		}
		if n := logs.FilterMessage("credentials can't be read").Len(); n != 0 {
			t.Errorf("%s: told %d times of those that are closed", scheme, n)
		}
	}
}
