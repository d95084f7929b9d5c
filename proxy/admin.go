package proxy

import (
	"io"
	"net/http"
	"net/http/pprof"

	"github.com/gorilla/mux"
)

// Admin is the handler of the admin listener: health, metrics, profiles. ready tells whether the mirror wants traffic.
func Admin(m *Metrics, ready func() bool) http.Handler {
	r := mux.NewRouter()
	text := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	r.HandleFunc("/", text(http.StatusOK, "entrepot admin: /healthz /readyz /metrics /debug/pprof/\n"))
	r.HandleFunc("/healthz", text(http.StatusOK, "ok\n"))
	r.HandleFunc("/readyz", func(w http.ResponseWriter, req *http.Request) {
		if ready() {
			text(http.StatusOK, "ready\n")(w, req)
			return
		}
		text(http.StatusServiceUnavailable, "not ready\n")(w, req)
	})
	r.Handle("/metrics", m.Handler())
	r.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	r.HandleFunc("/debug/pprof/profile", pprof.Profile)
	r.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	r.HandleFunc("/debug/pprof/trace", pprof.Trace)
	r.PathPrefix("/debug/pprof/").HandlerFunc(pprof.Index)
	return r
}
