package proxy_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache"
)

// pulled returns a mirror that has an image, and nothing else, under the tag 1.
func pulled(t *testing.T, u *registry, change ...func(*cache.Options)) (m *mirror, manifest, layer []byte) {
	layer = random(1000)
	u.image("library/a", "1", layer)
	m = newMirror(t, u, nil, change...)
	manifest = m.get(manifestPath("a", "1"), acceptAll()).body
	m.get(blobPath("a", digest.FromBytes(layer))).expect(t, 200, layer)
	m.get(blobPath("a", digest.FromString(`{"image":"library/a:1"}`)))
	m.settled()
	return m, manifest, layer
}

// offline has a mirror dial nobody.
func (m *mirror) offline(on bool) {
	for _, u := range m.ups {
		u.SetOffline(on)
	}
}

func TestPromiseOfflineDialsNobody(t *testing.T) {
	u := newRegistry(t)
	m, manifest, layer := pulled(t, u)
	m.restart()
	u.forget()
	for _, age := range []time.Duration{0, time.Hour} { // a tag that is fresh, and one that is not
		m.offline(true)
		m.pass(age)
		m.get(manifestPath("a", "1"), acceptAll()).expect(t, 200, manifest)
		m.get(digestPath("a", digest.FromBytes(manifest)), acceptAll()).expect(t, 200, manifest)
		m.get(blobPath("a", digest.FromBytes(layer))).expect(t, 200, layer)
		for _, path := range []string{manifestPath("a", "2"), digestPath("a", digest.FromString("x")), blobPath("a", digest.FromString("x")), "/v2/a/tags/list"} {
			a := m.get(path, acceptAll())
			a.expectError(t, 503, "UNAVAILABLE")
			if a.header.Get("Retry-After") == "" || !strings.Contains(string(a.body), "offline") {
				t.Errorf("%s: %v %s", path, a.header, a.body)
			}
		}
	}
	if n := u.count(""); n != 0 {
		t.Errorf("upstream was asked %q", u.log)
	}
	m.offline(false)
	m.get(manifestPath("a", "1"), acceptAll()).expectVerdict(t, "fwd=stale; fwd-status=200")
}

func TestPromiseUncachedIsRefusedAtOnceWhileUpstreamIsDown(t *testing.T) {
	u := newRegistry(t)
	m, manifest, _ := pulled(t, u)
	m.pass(time.Hour)
	u.fail(func(w http.ResponseWriter, _ *http.Request) bool {
		refuse(w, 503, "UNAVAILABLE", "maintenance")
		return true
	})
	for _, up := range m.ups {
		for !up.Down() { // which it is known to be once a probe has met the like
			m.get(manifestPath("a", "2"), acceptAll())
		}
	}
	u.forget()
	for range 20 {
		a := m.get(manifestPath("a", "3"), acceptAll())
		a.expectError(t, 503, "UNAVAILABLE")
		if a.header.Get("Retry-After") == "" {
			t.Errorf("%v", a.header)
		}
		stale := m.get(manifestPath("a", "1"), acceptAll())
		stale.expect(t, 200, manifest)
		stale.expectVerdict(t, "hit; ttl=-")
	}
	if n := u.count("") - probesOf(u); n != 0 {
		t.Errorf("upstream was asked %q", u.log)
	}
}

// probesOf is how often upstream was probed.
func probesOf(u *registry) (n int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, line := range u.log {
		if line == "GET /v2/" {
			n++
		}
	}
	return n
}

func TestKeptTagIsServedAsStale(t *testing.T) {
	u := newRegistry(t)
	m, manifest, _ := pulled(t, u, func(o *cache.Options) { o.KeepDeleted = func(string) bool { return true } })
	u.mu.Lock()
	clear(u.manifests)
	u.mu.Unlock()
	m.pass(time.Hour)
	for range 2 {
		a := m.get(manifestPath("a", "1"), acceptAll())
		a.expect(t, 200, manifest)
		a.expectVerdict(t, "hit; ttl=-")
		if want := `299 - "stale: upstream does not have it any more"`; a.header.Get("Warning") != want || a.header.Get("Age") != "3600" {
			t.Errorf("%v", a.header)
		}
	}
	m.get(manifestPath("a", "2"), acceptAll()).expectError(t, 404, "MANIFEST_UNKNOWN")
}

func TestRememberedAbsenceSaysSo(t *testing.T) {
	u := newRegistry(t)
	m := newMirror(t, u, nil)
	first := m.get(manifestPath("a", "1"), acceptAll())
	first.expectError(t, 404, "MANIFEST_UNKNOWN")
	first.expectVerdict(t, "fwd=miss; fwd-status=404")
	u.forget()
	again := m.get(manifestPath("a", "1"), acceptAll())
	again.expectError(t, 404, "MANIFEST_UNKNOWN")
	again.expectVerdict(t, "hit; detail=negative")
	if n := u.count(""); n != 0 || string(again.body) != string(first.body) {
		t.Errorf("%d requests; %s", n, again.body)
	}
}
