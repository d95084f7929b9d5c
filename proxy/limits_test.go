package proxy

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/upstream/bandwidth"
)

// someLimits take rates of one kind only.
type someLimits map[string]string

func (l someLimits) Limits() map[string]string { return l }

func (l someLimits) SetLimits(wanted map[string]string) error {
	for name, rate := range wanted {
		if l[name] == "" {
			return errors.New(name + ` is no limit; allowed: upstream, clients`)
		}
		if !strings.HasSuffix(rate, "MB/s") {
			return errors.New(rate + ` is not a rate; allowed: 20MB/s`)
		}
	}
	for name, rate := range wanted {
		l[name] = rate
	}
	return nil
}

func TestLimitsAreToldAndChanged(t *testing.T) {
	const asJSON = "application/json"
	l := someLimits{"upstream": "1MB/s", "clients": "2MB/s"}
	h := Admin(NewMetrics(nil, "test"), func() bool { return true }, func() cache.Stats { return cache.Stats{} }, l)
	for _, tt := range []struct {
		method, mediaType, body string
		status                  int
		answer                  string
	}{
		{"GET", "", "", 200, `{"clients":"2MB/s","upstream":"1MB/s"}`},
		{"PUT", asJSON, `{"upstream": "20MB/s"}`, 200, `{"clients":"2MB/s","upstream":"20MB/s"}`},
		{"PUT", asJSON + "; charset=utf-8", `{"clients": "3MB/s"}`, 200, `{"clients":"3MB/s","upstream":"20MB/s"}`},
		// What a page of another site can have a browser send without asking first.
		{"PUT", "", `{"upstream": "30MB/s"}`, 415, `{"error":"the Content-Type has to be application/json"}`},
		{"PUT", "text/plain", `{"upstream": "30MB/s"}`, 415, `{"error":"the Content-Type has to be application/json"}`},
		{"PUT", "text/plain, application/json", `{"upstream": "30MB/s"}`, 415, `{"error":"the Content-Type has to be application/json"}`},
		{"POST", asJSON, `{"upstream": "30MB/s"}`, 405, `{"error":"allowed: GET, and PUT of a JSON object with limits by name"}`},
		{"DELETE", asJSON, ``, 405, `{"error":"allowed: GET, and PUT of a JSON object with limits by name"}`},
		{"PUT", asJSON, `{"upstream": "30"}`, 400, `{"error":"30 is not a rate; allowed: 20MB/s"}`},
		{"PUT", asJSON, `{"upstraem": "30MB/s"}`, 400, `{"error":"upstraem is no limit; allowed: upstream, clients"}`},
		{"PUT", asJSON, `{"upstream": 30}`, 400, ""},
		{"PUT", asJSON, `{"upstream": "30MB/s"`, 400, ""},
		{"PUT", asJSON, `{"upstream": "30MB/s"} {}`, 400, ""},
		{"PUT", asJSON, `{}`, 400, ""},
		{"PUT", asJSON, `null`, 400, ""},
		{"PUT", asJSON, ``, 400, ""},
		{"PUT", asJSON, `{"upstream": "` + strings.Repeat("0", maxLimits) + `MB/s"}`, 413, ""},
		{"GET", "", "", 200, `{"clients":"3MB/s","upstream":"20MB/s"}`},
	} {
		r := httptest.NewRequest(tt.method, BandwidthPath, strings.NewReader(tt.body))
		r.Header.Set("Content-Type", tt.mediaType)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		body := strings.TrimSpace(w.Body.String())
		if tt.answer == "" {
			tt.answer = body
			if !strings.HasPrefix(body, `{"error":"`) {
				t.Errorf("%s %.40s: %s", tt.method, tt.body, body)
			}
		}
		if w.Code != tt.status || body != tt.answer || w.Header().Get("Content-Type") != asJSON {
			t.Errorf("%s %s %.40s: %d %s, want %d %s", tt.method, tt.mediaType, tt.body, w.Code, body, tt.status, tt.answer)
		}
		if allow := w.Header().Get("Allow"); (allow == "GET, HEAD, PUT") != (w.Code == http.StatusMethodNotAllowed) {
			t.Errorf("%s: Allow %q", tt.method, allow)
		}
	}
}

func TestLimitsAreNotForPages(t *testing.T) {
	h := Admin(NewMetrics(nil, "test"), func() bool { return true }, func() cache.Stats { return cache.Stats{} }, someLimits{"upstream": "1MB/s"})
	r := httptest.NewRequest(http.MethodPut, BandwidthPath, strings.NewReader(`{"upstream": "30MB/s"}`))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Origin", "http://rebound.example:5001")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != http.StatusForbidden {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestWithoutLimitsNoneAreServed(t *testing.T) {
	if status, _ := admin(t, NewMetrics(nil, "test"), cache.Stats{}, "GET", BandwidthPath); status != 404 {
		t.Errorf("%d", status)
	}
}

func TestFiguresOfLimits(t *testing.T) {
	m := NewMetrics(nil, "test")
	m.WatchBandwidth("upstream", func() bandwidth.Stats {
		return bandwidth.Stats{Rate: 20_000_000, Waiting: 3, Waited: 1500 * time.Millisecond}
	})
	m.WatchBandwidth("per_client", bandwidth.NewClients(0, 7).Stats)
	r := httptest.NewRecorder()
	m.Handler().ServeHTTP(r, httptest.NewRequest("GET", "/metrics", nil))
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		`entrepot_bandwidth_limit_bytes_per_second{limit="upstream"} 2e+07`, `entrepot_bandwidth_limit_bytes_per_second{limit="per_client"} 7`,
		`entrepot_bandwidth_waiting{limit="upstream"} 3`, `entrepot_bandwidth_waited_seconds_total{limit="upstream"} 1.5`,
	} {
		if !strings.Contains(string(body), line+"\n") {
			t.Errorf("no line %s", line)
		}
	}
}
