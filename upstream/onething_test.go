package upstream

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
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
