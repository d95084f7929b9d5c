package upstream

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/entrepot/entrepot/upstream/credential"
)

// office is a registry's token authority whose tokens live a minute and whose password changes.
type office struct {
	mu sync.Mutex
	// guards following
	password string
	issued   map[string]time.Time // token to its end
	refusals int                  // of a token or a password
}

func (o *office) setPassword(p string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.password = p
}

func (o *office) refused() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.refusals
}

func (o *office) tokens(rw http.ResponseWriter, req *http.Request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, password, _ := req.BasicAuth(); password != o.password {
		o.refusals++
		rw.WriteHeader(http.StatusUnauthorized)
		return
	}
	token := fmt.Sprint("token-", len(o.issued))
	o.issued[token] = time.Now().Add(time.Minute)
	fmt.Fprintf(rw, `{"token":%q,"expires_in":60}`, token)
}

// guard lets in by token, or by the password itself where the registry has no token server.
func (o *office) guard(challenge string, h http.HandlerFunc) http.HandlerFunc {
	return func(rw http.ResponseWriter, req *http.Request) {
		o.mu.Lock()
		end := o.issued[strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer ")]
		_, password, basic := req.BasicAuth()
		good := time.Now().Before(end) || basic && password == o.password
		if !good {
			o.refusals++
		}
		o.mu.Unlock()
		if !good {
			rw.Header().Set("WWW-Authenticate", challenge)
			status(http.StatusUnauthorized)(rw, req)
			return
		}
		h(rw, req)
	}
}

// pullFor is a pull that lasts: four connections that each fetch a blob every two seconds. It returns how many were fetched.
func pullFor(t *testing.T, r *Registry, d time.Duration) int {
	t.Helper()
	var mu sync.Mutex
	fetched := 0
	end := time.Now().Add(d)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for time.Now().Before(end) {
				if _, err := fetch(t.Context(), r); err != nil {
					t.Errorf("%v before the end: %v", time.Until(end), err)
				}
				mu.Lock()
				fetched++
				mu.Unlock()
				pause(t.Context(), 2*time.Second)
			}
		})
	}
	all.Wait()
	return fetched
}

const (
	tokenChallenge = `Bearer realm="http://registry.test/token",service="registry"`
	basicChallenge = `Basic realm="registry"`
)

// officeWorld is a registry at registry.test with its office.
func officeWorld(t *testing.T, challenge string) (*world, *office) {
	w := newWorld(t)
	o := &office{issued: map[string]time.Time{}, password: "one"}
	w.serve("http://registry.test", func(rw http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/token" {
			o.tokens(rw, req)
		} else {
			o.guard(challenge, serveLayer)(rw, req)
		}
	})
	return w, o
}

func TestShortTokensLastThroughALongPull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, o := officeWorld(t, tokenChallenge)
		r := w.registry(Options{Logins: as(credential.Login{Username: "ci", Password: "one"})}, "http://registry.test")
		if _, err := fetch(t.Context(), r); err != nil { // learns where tokens come from
			t.Fatal(err)
		}
		n := pullFor(t, r, 10*time.Minute)
		// A token of a minute is renewed after 48 s, or by the next request after that.
		if asked := w.count("/token"); n < 1000 || asked < 10 || asked > 14 {
			t.Errorf("%d token requests for %d blobs", asked, n)
		}
		if o.refused() != 1 {
			t.Errorf("%d refusals, want that of the first request alone", o.refused())
		}
	})
}

// TestCredentialsAreHandedOverDuringAPull replaces the password, at the registry and where it comes from, in the middle of
// a pull: what was sent before is refused from then on, and no request fails.
func TestCredentialsAreHandedOverDuringAPull(t *testing.T) {
	for name, challenge := range map[string]string{"token server": tokenChallenge, "password alone": basicChallenge} {
		for kind, source := range map[string]func(path string) credential.Source{
			"file": func(path string) credential.Source { return credential.File("ci", path) },
			// It is valid for long by what it says, and found to be of no use by the refusal.
			"program": func(path string) credential.Source { return credential.Exec([]string{"cat", path}, "ci", 12*time.Hour) },
		} {
			t.Run(name+", "+kind, func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "password")
				replace(t, path, []byte("one\n"))
				synctest.Test(t, func(t *testing.T) {
					w, o := officeWorld(t, challenge)
					r := w.registry(Options{Logins: []credential.Source{source(path)}}, "http://registry.test")
					if _, err := fetch(t.Context(), r); err != nil {
						t.Fatal(err)
					}
					changes := time.AfterFunc(150*time.Second, func() {
						o.mu.Lock()
						defer o.mu.Unlock()
						o.password = "two"
						if err := os.WriteFile(path, []byte("two\n"), 0o600); err != nil {
							t.Error(err)
						}
					})
					defer changes.Stop()
					n := pullFor(t, r, 5*time.Minute)
					// The first request, which knew no challenge yet, and what was sent with the old password or while it was replaced, each
					// with a look whether the login is good for anything.
					if refused := o.refused(); n < 500 || refused > 1+2*4 {
						t.Errorf("%d refusals, %d blobs", refused, n)
					}
					if asked := w.count("/token"); asked > 9 {
						t.Errorf("%d token requests", asked)
					}
				})
			})
		}
	}
}

func TestWrongPasswordRunsNoProgramInALoop(t *testing.T) {
	for name, challenge := range map[string]string{"token server": tokenChallenge, "password alone": basicChallenge} {
		t.Run(name, func(t *testing.T) {
			runs := filepath.Join(t.TempDir(), "runs")
			synctest.Test(t, func(t *testing.T) {
				w, o := officeWorld(t, challenge)
				o.setPassword("another")
				// Another wrong one each time, as of a program that makes tokens for the wrong account.
				wrong := credential.Exec([]string{"sh", "-c", `echo run >> "$1"; wc -l < "$1"`, "sh", runs}, "ci", time.Hour)
				r := w.registry(Options{Logins: []credential.Source{wrong}}, "http://registry.test")
				for range 300 {
					if _, err := fetch(t.Context(), r); err == nil || asError(t, err).Status != http.StatusUnauthorized {
						t.Fatal(err)
					}
					pause(t.Context(), time.Second)
				}
			})
			text, err := os.ReadFile(runs)
			if n := strings.Count(string(text), "run"); err != nil || n < 2 || n > 15 {
				t.Errorf("%d runs in five minutes, %v", n, err)
			}
		})
	}
}
