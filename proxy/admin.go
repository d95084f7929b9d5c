package proxy

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/pprof"
	"strings"

	"github.com/gorilla/mux"

	"github.com/entrepot/entrepot/cache"
)

// CachePath is where the admin listener answers with the cache's figures, as JSON of [cache.Stats].
const CachePath = "/api/cache"

// Admin is the handler of the admin listener: health, metrics, figures, limits, profiles. ready tells whether the mirror wants
// traffic, stats what the cache holds. Without limits, none are served.
func Admin(m *Metrics, ready func() bool, stats func() cache.Stats, limits Limits) http.Handler {
	r := mux.NewRouter()
	text := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	r.HandleFunc("/", text(http.StatusOK, "entrepot admin: /healthz /readyz /metrics "+CachePath+" "+BandwidthPath+" /debug/pprof/\n"))
	r.HandleFunc("/healthz", text(http.StatusOK, "ok\n"))
	r.HandleFunc("/readyz", func(w http.ResponseWriter, req *http.Request) {
		if ready() {
			text(http.StatusOK, "ready\n"+degraded(stats().Degraded))(w, req)
			return
		}
		text(http.StatusServiceUnavailable, "not ready\n")(w, req)
	})
	r.HandleFunc(CachePath, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(stats()) // the connection's end, if anything
	}).Methods(http.MethodGet, http.MethodHead)
	if limits != nil {
		routeLimits(r, limits)
	}
	r.Handle("/metrics", m.Handler())
	r.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	r.HandleFunc("/debug/pprof/profile", pprof.Profile)
	r.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	r.HandleFunc("/debug/pprof/trace", pprof.Trace)
	r.PathPrefix("/debug/pprof/").HandlerFunc(pprof.Index)
	return r
}

// degraded says why the disk is not used as it might be, a line each. That makes nobody less ready: pulls stream through, and where
// they would go instead nothing is cached at all.
func degraded(reasons []string) string {
	var b strings.Builder
	for _, reason := range reasons {
		b.WriteString("degraded: " + reason + "\n")
	}
	return b.String()
}
