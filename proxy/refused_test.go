package proxy_test

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/upstream/credential"
)

// TestRefusedCredentialsAreNotTheClients has entrepot's own password replaced at the registry: what is there is served stale, and
// goes on to be known; what is not is an outage, and no client is told that it has to log in.
func TestRefusedCredentialsAreNotTheClients(t *testing.T) {
	u := newRegistry(t)
	image := u.manifest("corp/app", "1", ocispec.MediaTypeImageIndex, `{"schemaVersion":2,"manifests":[]}`)
	var replaced atomic.Bool
	u.fail(func(w http.ResponseWriter, r *http.Request) bool {
		if _, password, ok := r.BasicAuth(); ok && password == "old" && !replaced.Load() {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="registry"`)
		refuse(w, 401, "UNAUTHORIZED", "authentication required")
		return true
	})
	m := &mirror{t: t, extra: map[string]*registry{"docker.io": u}}
	m.logins = []credential.Source{credential.Static(credential.Login{Username: "ci", Password: "old"})}
	m.begin()
	tag := manifestPath("corp/app", "1")
	warm := m.get(tag, acceptAll())
	if warm.status != 200 || warm.header.Get("Docker-Content-Digest") != image.String() {
		t.Fatalf("%d %s", warm.status, warm.body)
	}
	m.settled()
	replaced.Store(true)
	for range 2 {
		m.pass(time.Hour)
		m.get(tag, acceptAll()).expect(t, 200, warm.body)
		for _, path := range []string{manifestPath("corp/app", "2"), digestPath("corp/other", image), "/v2/corp/app/tags/list"} {
			a := m.get(path, acceptAll())
			a.expectError(t, 502, "UNAVAILABLE")
			if !strings.Contains(string(a.body), "the registry refuses entrepot's credentials") || a.header.Get("WWW-Authenticate") != "" ||
				a.header.Get("Retry-After") == "" {
				t.Errorf("%s: %v %s", path, a.header, a.body)
			}
		}
	}
}
