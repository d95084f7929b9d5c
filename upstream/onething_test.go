package upstream

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
)

// TestOneRepositoryWithoutATokenShutsNoDoorForGood has a token server that is well, but for one repository, which a client asks for.
func TestOneRepositoryWithoutATokenShutsNoDoorForGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.serve("http://auth.test", func(rw http.ResponseWriter, req *http.Request) {
			if strings.Contains(req.URL.RawQuery, "broken") {
				status(504)(rw, req)
				return
			}
			io.WriteString(rw, `{"token":"t","expires_in":3600}`)
		})
		w.serve("http://registry.test", func(rw http.ResponseWriter, req *http.Request) {
			if req.Header.Get("Authorization") == "" {
				challengeWith(`Bearer realm="http://auth.test/token",service="s"`)(rw, req)
				return
			}
			serveContent(rw, req)
		})
		r := w.registry(Options{}, "http://registry.test")
		for range downAt {
			if _, _, err := r.Manifest(t.Context(), "broken/app", "7", nil); err == nil {
				t.Fatal("no error")
			}
		}
		pause(t.Context(), 30*time.Second)
		if _, _, err := r.Manifest(t.Context(), "well/app", "7", nil); err != nil {
			t.Errorf("another repository, half a minute later: %v", err)
		}
	})
}

// TestOneBlobShutsNoDoorForLong has a registry that is well, but for one blob, which a client asks for.
func TestOneBlobShutsNoDoorForLong(t *testing.T) {
	rotten := digest.FromString("rotten")
	for name, h := range map[string]http.HandlerFunc{"gateway's word": status(504), "silence": silent} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.serve("http://registry.test", parted(func(rw http.ResponseWriter, req *http.Request) {
					if strings.Contains(req.URL.Path, rotten.String()) {
						h(rw, req)
						return
					}
					serveLayer(rw, req)
				}, serveContent))
				r := w.registry(Options{}, "http://registry.test")
				for range downAt {
					if _, err := r.OpenBlob(t.Context(), wanted(rotten, 0, -1)); err == nil {
						t.Fatal("no error")
					}
				}
				pause(t.Context(), 30*time.Second)
				if _, err := fetch(t.Context(), r); err != nil {
					t.Errorf("another blob, half a minute later: %v", err)
				}
			})
		})
	}
}

// TestOneRepositoryKeepsNobodyOut has a registry that is well, but for one repository, which a client asks for over and over.
func TestOneRepositoryKeepsNobodyOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.serve("http://registry.test", func(rw http.ResponseWriter, req *http.Request) {
			if strings.Contains(req.URL.Path, "broken") {
				status(503)(rw, req)
				return
			}
			serveContent(rw, req)
		})
		r := w.registry(Options{}, "http://registry.test")
		shut, asked := 0, 0
		for start := time.Now(); time.Since(start) < 10*time.Minute; pause(t.Context(), time.Second) {
			for range downAt {
				r.Manifest(t.Context(), "broken/app", "7", nil)
			}
			_, _, err := r.Manifest(t.Context(), "well/app", "7", nil)
			asked++
			if errors.Is(err, ErrDown) {
				shut++
			}
		}
		if shut > asked/10 {
			t.Errorf("%d of %d requests for another repository found the door shut", shut, asked)
		}
	})
}
