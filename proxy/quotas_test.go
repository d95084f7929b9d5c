package proxy_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

func TestRateLimitsAreMetrics(t *testing.T) {
	u := newRegistry(t)
	u.image("library/a", "1", random(10))
	m := newMirror(t, u, nil)
	line := func(name string) string {
		host := strings.TrimPrefix(u.server.URL, "http://")
		return fmt.Sprintf("entrepot_upstream_%s{endpoint=%q,login=\"anonymous\",registry=\"docker.io\"}", name, host)
	}
	expect := func(want ...string) {
		t.Helper()
		metrics := m.exposition()
		for _, w := range want {
			if !strings.Contains(metrics, w) {
				t.Errorf("no %s", w)
			}
		}
	}
	if strings.Contains(m.exposition(), line("throttled_total")) {
		t.Error("a login that was not made use of has metrics")
	}
	m.get(manifestPath("a", "1"), acceptAll())
	expect(line("throttled_total")+" 0\n", line("quota_waits_total")+" 0\n", line("quota_waited_seconds_total")+" 0\n")
	if strings.Contains(m.exposition(), line("quota_limit")) {
		t.Error("a limit that nobody has stated has a metric")
	}
	u.fail(func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("RateLimit-Limit", "200;w=21600")
		w.Header().Set("RateLimit-Remaining", "30;w=21600")
		w.Header().Set("Retry-After", "3600")
		refuse(w, 429, "TOOMANYREQUESTS", "slow down")
		return true
	})
	for range 2 {
		m.get(manifestPath("a", "2"), acceptAll()).expectError(t, 503, "TOOMANYREQUESTS")
	}
	expect(line("quota_limit")+" 200\n", line("quota_remaining")+" 30\n", line("quota_reserve")+" 20\n", line("throttled_total")+" 1\n",
		line("quota_waits_total")+" 2\n", line("throttled_seconds")+" 35")
}
