package proxy

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/entrepot/entrepot/cache"
)

// admin asks the admin handler of a cache that has these figures.
func admin(t *testing.T, m *Metrics, s cache.Stats, method, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	Admin(m, func() bool { return true }, func() cache.Stats { return s }, nil).ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return w.Code, w.Body.String()
}

func TestDegradedIsReadyAndSaysWhy(t *testing.T) {
	m := NewMetrics(nil, "test")
	s := cache.Stats{Degraded: []string{"no room left on the file system", "the index is in memory only"}}
	want := "ready\ndegraded: no room left on the file system\ndegraded: the index is in memory only\n"
	if status, body := admin(t, m, s, "GET", "/readyz"); status != 200 || body != want {
		t.Errorf("%d %q", status, body)
	}
	if status, body := admin(t, m, cache.Stats{}, "GET", "/readyz"); status != 200 || body != "ready\n" {
		t.Errorf("%d %q", status, body)
	}
}

func TestFiguresAreServedAsJSON(t *testing.T) {
	m := NewMetrics(nil, "test")
	want := cache.Stats{
		Bytes: 1, Limit: 2, Free: 3, Content: 4, Pinned: 5, Parked: 6, Index: 7, Fills: 8, Readers: 9, Drafts: 10, Evicted: 11, EvictedBytes: 12,
		Scrubbed: 13, ScrubbedBytes: 14, Damaged: 15, Oldest: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Degraded: []string{"why"},
	}
	status, body := admin(t, m, want, "GET", CachePath)
	var got cache.Stats
	if err := json.Unmarshal([]byte(body), &got); err != nil || status != 200 || cmp.Diff(want, got) != "" {
		t.Errorf("%d, %v, %s", status, err, cmp.Diff(want, got))
	}
	for _, name := range []string{`"bytes":1,`, `"limit_bytes":2,`, `"blobs":4,`, `"oldest_verification":"2026-01-02T03:04:05Z"`, `"degraded":["why"]`} {
		if !strings.Contains(body, name) {
			t.Errorf("no %s in %s", name, body)
		}
	}
	if status, _ := admin(t, m, want, "POST", CachePath); status != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", status)
	}
}

// TestFiguresAreOfOneMoment asserts that a scrape looks at the cache once: figures of several moments need not fit together.
func TestFiguresAreOfOneMoment(t *testing.T) {
	m, looks := NewMetrics(nil, "test"), 0
	m.Watch(func() cache.Stats {
		looks++
		return cache.Stats{Bytes: 1000, Limit: 2000, Content: 3, Index: 4, Evicted: 5, ScrubbedBytes: 6, Degraded: []string{"a", "b"}}
	})
	m.Healed(cache.DamagedContent)
	m.Healed(cache.DamagedContent)
	_, body := admin(t, m, cache.Stats{}, "GET", "/metrics")
	if looks != 1 {
		t.Errorf("%d looks", looks)
	}
	for _, line := range []string{
		"entrepot_cache_bytes 1000", "entrepot_cache_limit_bytes 2000", "entrepot_cache_blobs 3", "entrepot_cache_index_bytes 4",
		"entrepot_cache_evicted_total 5", "entrepot_cache_scrubbed_bytes_total 6", "entrepot_cache_degraded 1",
		`entrepot_cache_healed_total{damage="content"} 2`, `entrepot_cache_healed_total{damage="index"} 0`,
	} {
		if !strings.Contains(body, line+"\n") {
			t.Errorf("no line %s", line)
		}
	}
}
