package proxy_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy"
	"github.com/entrepot/entrepot/upstream"
	"github.com/entrepot/entrepot/upstream/credential"
)

func (m *mirror) damage(d digest.Digest) {
	m.t.Helper()
	path := filepath.Join(m.opts.DataDir, "blobs", "sha256", d.Encoded()[:2], d.Encoded())
	b, err := os.ReadFile(path)
	if err != nil {
		m.t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		m.t.Fatal(err)
	}
}

func TestPromisePrivateStaysPrivate(t *testing.T) {
	hub, evil := newRegistry(t), newRegistry(t)
	secret := random(5000)
	d := hub.blob(secret, "corp/secret")
	manifest := hub.image("corp/secret", "1", secret)
	// Another registry has a manifest that names the digest, and not the content.
	evil.manifest("me/mine", "1", ocispec.MediaTypeImageManifest, `{"layers":[`+descriptor("x/y", d, len(secret))+`]}`)
	m := newMirror(t, hub, map[string]*registry{"evil.example": evil})
	hub.fail(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasPrefix(r.URL.Path, "/v2/other/") {
			refuse(w, 403, "DENIED", "requested access to the resource is denied")
			return true
		}
		return false
	})
	m.get(manifestPath("corp/secret", "1"), acceptAll())
	m.get(blobPath("corp/secret", d)).expect(t, 200, secret)
	m.settled()
	m.get("/v2/me/mine/manifests/1?ns=evil.example", acceptAll())
	for _, method := range []string{"GET", "HEAD"} {
		for path, want := range map[string]int{
			blobPath("corp/nothing", d):                          404,
			blobPath("other/denied", d):                          403,
			digestPath("other/denied", manifest):                 403,
			digestPath("corp/nothing", manifest):                 404,
			blobPath("me/mine", d) + "?ns=evil.example":          404,
			digestPath("me/mine", manifest) + "?ns=evil.example": 404,
		} {
			if a := m.ask(method, path, acceptAll()); a.status != want || strings.Contains(string(a.body), string(secret[:20])) {
				t.Errorf("%s %s: %d", method, path, a.status)
			}
		}
	}
	m.get(blobPath("corp/secret", d)).expect(t, 200, secret)
}

func TestParkedDigestOpensNoDoor(t *testing.T) {
	hub, evil := newRegistry(t), newRegistry(t)
	secret := random(8 << 20)
	d := hub.blob(secret, "corp/secret")
	evil.manifest("me/mine", "1", ocispec.MediaTypeImageManifest, `{"layers":[`+descriptor("x/y", d, len(secret))+`]}`)
	m := newMirror(t, hub, map[string]*registry{"evil.example": evil})
	m.get(blobPath("corp/secret", d), "Range: bytes=1000000-1999999").expect(t, 206, secret[1000000:2000000])
	m.settled()
	m.get("/v2/me/mine/manifests/1?ns=evil.example", acceptAll())
	if a := m.get(blobPath("me/mine", d)+"?ns=evil.example", "Range: bytes=1000000-1000999"); a.status != 404 {
		t.Errorf("%d", a.status)
	}
	a := m.get(blobPath("corp/secret", d), "Range: bytes=1000000-1000999")
	a.expect(t, 206, secret[1000000:1001000])
	a.expectVerdict(t, "hit")
}

func TestDigestInFlightOpensNoDoor(t *testing.T) {
	u := newRegistry(t)
	secret := random(5000)
	d := u.blob(secret, "corp/secret")
	m := newMirror(t, u, nil)
	release := u.hold(1000)
	res := m.open(t.Context(), "GET", blobPath("corp/secret", d))
	defer res.Body.Close()
	if a := m.get(blobPath("corp/other", d)); a.status != 404 {
		t.Errorf("%d", a.status)
	}
	release()
	if err := same(res.Body, secret); err != nil {
		t.Error(err)
	}
}

// TestCredentialsGoWhereTheyBelong runs the whole mirror before a registry with a token server and with blobs on another
// host, and looks for what must not be there: at that host, and in the log.
func TestCredentialsGoWhereTheyBelong(t *testing.T) {
	const password, token = "hunter2-password", "opaque-token-value"
	content := random(5000)
	d := digest.FromBytes(content)
	var cdnHits atomic.Int32
	cdn := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cdnHits.Add(1)
		if r.Header.Get("Authorization") != "" || r.URL.Query().Get("signature") == "" {
			t.Errorf("the blob host got %v", r.Header)
		}
		w.Write(content)
	}))
	defer cdn.Close()
	var registry *httptest.Server
	registry = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/token":
			if user, pass, _ := r.BasicAuth(); user != "ci" || pass != password {
				t.Errorf("the token server got %v", r.Header)
			}
			json.NewEncoder(w).Encode(map[string]any{"token": token, "expires_in": 300})
		case r.Header.Get("Authorization") != "Bearer "+token:
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+registry.URL+`/token",service="test"`)
			refuse(w, 401, "UNAUTHORIZED", "authentication required")
		case r.Method == "HEAD":
			w.Header().Set("Content-Length", "5000")
		default:
			http.Redirect(w, r, cdn.URL+"/blob?signature=secret-signature", http.StatusTemporaryRedirect)
		}
	}))
	defer registry.Close()

	core, logs := observer.New(zapcore.DebugLevel)
	log := zap.New(core)
	endpoint, err := url.Parse(registry.URL)
	if err != nil {
		t.Fatal(err)
	}
	up, err := upstream.New(upstream.Options{Name: "docker.io", Endpoints: []upstream.Endpoint{{URL: endpoint}}, Log: log,
		Logins: []credential.Source{credential.Static(credential.Login{Username: "ci", Password: password})}})
	if err != nil {
		t.Fatal(err)
	}
	defer up.Close()
	c, err := cache.Open(t.Context(), cache.Options{DataDir: t.TempDir(), Upstreams: map[string]cache.Upstream{"docker.io": up}, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p := proxy.New(proxy.Options{Cache: c, Registries: []proxy.Registry{{Name: "docker.io"}}, DefaultRegistry: "docker.io",
		Canonical: strings.ToLower, Log: log})
	r := httptest.NewRequest("GET", blobPath("corp/app", d), nil)
	r.SetBasicAuth("someone", "client-password") // dockerd volunteers Docker Hub's
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	if w.Code != 200 || w.Body.String() != string(content) || cdnHits.Load() != 1 {
		t.Fatalf("%d after %d requests to the blob host: %.200s", w.Code, cdnHits.Load(), w.Body)
	}
	if logs.Len() == 0 {
		t.Fatal("nothing was logged")
	}
	for _, entry := range logs.All() {
		text, err := zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()).EncodeEntry(entry.Entry, entry.Context)
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{password, token, "secret-signature", "client-password"} {
			if strings.Contains(text.String(), secret) {
				t.Errorf("%s is in the log: %s", secret, text)
			}
		}
	}
}
