package upstream_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy"
	"github.com/entrepot/entrepot/upstream"
	"github.com/entrepot/entrepot/upstream/credential"
)

// mirrored is a whole mirror of a hub, in a bubble.
type mirrored struct {
	t       *testing.T
	hub     *hub
	world   *upstream.World
	up      *upstream.Registry
	handler http.Handler

	mu sync.Mutex
	// guards following
	longest time.Duration // that a client waited for an answer
	stale   int           // answers
}

func newMirrored(t *testing.T, h *hub, logins ...credential.Source) *mirrored {
	h.t, h.content, h.windows = t, map[string]content{}, map[string]*window{}
	w := upstream.NewWorld(t)
	w.Serve("https://auth.test", h.tokens)
	w.Serve("https://hub.test", h.registry)
	up := w.Registry(upstream.Options{Logins: logins, Patience: 20 * time.Second}, "https://hub.test")
	c, err := cache.Open(t.Context(), cache.Options{DataDir: t.TempDir(), TagTTL: func(cache.Repository, string) time.Duration { return time.Minute }, ReadAhead: cache.ReadConfig, ScrubRate: -1,
		Upstreams: map[string]cache.Upstream{"docker.io": up}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return &mirrored{t: t, hub: h, world: w, up: up, handler: proxy.New(proxy.Options{Cache: c, DefaultRegistry: "docker.io",
		Registries: []proxy.Registry{{Name: "docker.io"}}, Canonical: strings.ToLower})}
}

// ask is one request of a client; an answer other than 200 fails its pull.
func (m *mirrored) ask(method, path, query string) (*httptest.ResponseRecorder, error) {
	req := httptest.NewRequest(method, path+query, nil)
	req.Header.Set("Accept", "*/*")
	rw, began := httptest.NewRecorder(), time.Now()
	m.handler.ServeHTTP(rw, req)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.longest = max(m.longest, time.Since(began))
	if rw.Header().Get("Warning") != "" {
		m.stale++
	}
	if rw.Code != http.StatusOK {
		return rw, fmt.Errorf("%s %s: %d (Retry-After %q) %s", method, path, rw.Code, rw.Header().Get("Retry-After"), rw.Body)
	}
	return rw, nil
}

// pull does what dockerd does, or containerd, and returns the manifest.
func (m *mirrored) pull(name, tag string, containerd bool) (string, error) {
	query := ""
	if containerd {
		query = "?ns=docker.io"
	} else if _, err := m.ask("GET", "/v2/", ""); err != nil {
		return "", err
	}
	head, err := m.ask("HEAD", "/v2/"+name+"/manifests/"+tag, query)
	if err != nil {
		return "", err
	}
	d := head.Header().Get("Docker-Content-Digest")
	return d, m.follow(name, d, query)
}

// follow gets a manifest, and what a client wants of what it names.
func (m *mirrored) follow(name, d, query string) error {
	got, err := m.ask("GET", "/v2/"+name+"/manifests/"+d, query)
	if err != nil {
		return err
	}
	var doc struct {
		Manifests, Layers []ocispec.Descriptor
		Config            ocispec.Descriptor
	}
	if err := json.Unmarshal(got.Body.Bytes(), &doc); err != nil {
		return err
	}
	if len(doc.Manifests) > 0 {
		return m.follow(name, doc.Manifests[0].Digest.String(), query)
	}
	for _, blob := range append(doc.Layers, doc.Config) {
		if _, err := m.ask("GET", "/v2/"+name+"/blobs/"+blob.Digest.String(), query); err != nil {
			return err
		}
	}
	return nil
}

const tags, moving = 80, 4

func at(i int) (name, tag string) { return fmt.Sprintf("library/i%d", i/4), fmt.Sprintf("t%d", i%4) }

// TestPromiseRateLimitsAreSpared has 10,000 pulls of 80 tags, of which 5 % move, at a registry that counts 100 GETs of manifests
// in six hours, and will not be asked more than 25 times a second for anything.
func TestPromiseRateLimitsAreSpared(t *testing.T) {
	logins := func(n int) (all []credential.Source) {
		for i := range n {
			all = append(all, credential.Static(credential.Login{Username: fmt.Sprint("user", i), Password: "x"}))
		}
		return all
	}
	for _, tt := range []struct {
		name    string
		hub     *hub
		logins  int
		pulls   int
		indexed bool
	}{
		{"one login", &hub{limit: 100}, 1, 10_000, false},
		{"nobody, and 429s that do not say for how long", &hub{limit: 100, silent: true}, 0, 500, false},
		{"two logins", &hub{limit: 50}, 2, 500, false},
		{"indexes, which cost two each", &hub{limit: 100}, 2, 500, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := tt.hub
				h.window, h.burst, h.ban = 6*time.Hour, 25, 5*time.Second
				m := newMirrored(t, h, logins(tt.logins)...)
				m.pulls(tt.pulls, tt.indexed)
			})
		})
	}
}

// pulls has so many pulls come in bursts of 25, while a few tags move.
func (m *mirrored) pulls(n int, indexed bool) {
	const burst = 25
	rng, manifests, moves := rand.New(rand.NewPCG(1, 2)), 0, 0
	for i := range tags {
		name, tag := at(i)
		manifests += m.hub.push(name, tag, 0, indexed)
	}
	for pulled := 0; pulled < n; pulled += burst {
		if pulled > 0 && pulled%(n/5) == 0 {
			moves++
			for i := range moving {
				name, tag := at(i * tags / moving)
				manifests += m.hub.push(name, tag, moves, indexed)
			}
		}
		var clients sync.WaitGroup
		for i := range burst {
			name, tag := at(rng.IntN(tags))
			clients.Go(func() {
				if _, err := m.pull(name, tag, i%2 == 0); err != nil {
					m.t.Errorf("pull %d: %v", pulled+i, err)
				}
			})
		}
		clients.Wait()
		<-time.After(30 * time.Second)
	}
	if got := m.hub.counted(); got > int64(manifests) || m.hub.refused > 0 {
		m.t.Errorf("%d GETs were counted, and %d refused, for %d manifests", got, m.hub.refused, manifests)
	}
	if m.longest >= 25*time.Second || m.hub.banned == 0 {
		m.t.Errorf("a client waited for %s; %d requests too many", m.longest, m.hub.banned)
	}
	m.t.Logf("%d GETs counted of %d manifests, %d requests too many, %d stale answers, %s at most", m.hub.counted(), manifests, m.hub.banned, m.stale, m.longest)
}

// TestPromiseSpentBudgetIsNoOutage has somebody else spend the rest of the window before some tags move: they are served as they
// were, and as they are when the next window opens.
func TestPromiseSpentBudgetIsNoOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hub{limit: 100, window: 6 * time.Hour}
		m := newMirrored(t, h)
		all := func() (digests [tags]string) {
			for i := range tags {
				name, tag := at(i)
				d, err := m.pull(name, tag, i%2 == 0)
				if err != nil {
					t.Fatal(err)
				}
				digests[i] = d
			}
			return digests
		}
		for i := range tags {
			name, tag := at(i)
			h.push(name, tag, 0, false)
		}
		before := all()
		h.mu.Lock()
		h.windows["nobody"].used = h.limit
		h.mu.Unlock()
		for i := range moving {
			name, tag := at(i)
			h.push(name, tag, 1, false)
		}
		<-time.After(time.Hour)
		if got := all(); got != before || m.stale != moving {
			t.Errorf("%d answers were stale", m.stale)
		}
		if s := m.up.Quotas()[0]; s.Limit != 100 || s.Remaining != 0 || s.Reserve != 10 || s.Window != h.window || s.Login != "anonymous" || h.refused > 0 || m.longest > 0 {
			t.Errorf("%+v; %d refused; %s waited", s, h.refused, m.longest)
		}
		// What is new has nothing else to be served.
		name, tag := at(0)
		h.push(name, "new", 0, false)
		got, err := m.ask("HEAD", "/v2/"+name+"/manifests/new", "")
		if err != nil {
			t.Fatal(err)
		}
		d := got.Header().Get("Docker-Content-Digest")
		for range 5 {
			got, err = m.ask("GET", "/v2/"+name+"/manifests/"+d, "")
			if seconds, _ := strconv.Atoi(got.Header().Get("Retry-After")); err == nil || got.Code != 503 || seconds < 1 || seconds > 3600 {
				t.Errorf("%d, Retry-After %q", got.Code, got.Header().Get("Retry-After"))
			}
		}
		if m.longest >= 25*time.Second || h.refused > 20 {
			t.Errorf("%s waited; %d refused", m.longest, h.refused)
		}
		<-time.After(6 * time.Hour)
		m.stale = 0
		moved := 0
		for i, d := range all() {
			if d != before[i] {
				moved++
			}
		}
		if moved != moving || m.stale > 0 || h.counted() != moving {
			t.Errorf("%d moved, %d stale, %d GETs", moved, m.stale, h.counted())
		}
		if _, err := m.pull(name, tag, false); err != nil {
			t.Error(err)
		}
	})
}
