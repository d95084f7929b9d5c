package proxy

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"

	"github.com/gorilla/mux"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/entrepot/entrepot/upstream/bandwidth"
)

// BandwidthPath is where the admin listener tells the limits of bandwidth, and takes new ones.
const BandwidthPath = "/api/bandwidth"

// maxLimits is more than the limits of any configuration take, in bytes.
const maxLimits = 64 << 10

// Limits are the limits of bandwidth by their names, both as the configuration spells them.
type Limits interface {
	Limits() map[string]string
	// SetLimits changes those that are named, all of them or none. Its error tells a person what is wrong, and what is allowed.
	SetLimits(map[string]string) error
}

// routeLimits serves the limits: GET tells them, PUT changes those that it names, and tells all. Who PUTs has to say that it sends
// JSON, which no page of another site can do behind a person's back: the browser would ask here first, and get no for an answer. Nor
// may it be a page at all, for one may have come from a name that was made to mean this address: browsers say whose page it is.
func routeLimits(r *mux.Router, l Limits) {
	r.HandleFunc(BandwidthPath, func(w http.ResponseWriter, req *http.Request) {
		status, err := http.StatusMethodNotAllowed, errors.New("allowed: GET, and PUT of a JSON object with limits by name")
		switch req.Method {
		case http.MethodGet, http.MethodHead:
			status, err = http.StatusOK, nil
		case http.MethodPut:
			status, err = setLimits(w, req, l)
		default:
			w.Header().Set("Allow", "GET, HEAD, PUT")
		}
		answer := l.Limits()
		if err != nil {
			answer = map[string]string{"error": err.Error()}
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(answer) // the connection's end, if anything
	})
}

// setLimits changes limits as a request wants it, and returns the status to answer with.
func setLimits(w http.ResponseWriter, req *http.Request, l Limits) (int, error) {
	if sent, _, err := mime.ParseMediaType(req.Header.Get("Content-Type")); err != nil || sent != "application/json" {
		return http.StatusUnsupportedMediaType, errors.New("the Content-Type has to be application/json")
	}
	if req.Header.Get("Origin") != "" {
		return http.StatusForbidden, errors.New("limits are not changed by web pages")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxLimits))
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return http.StatusRequestEntityTooLarge, fmt.Errorf("limits of more than %d bytes", maxLimits)
	}
	var wanted map[string]string
	if err == nil {
		err = json.Unmarshal(body, &wanted)
	}
	if err != nil || len(wanted) == 0 {
		return http.StatusBadRequest, errors.New(`the body has to be a JSON object with limits by name, such as {"upstream": "20Mbit/s"}`)
	}
	if err := l.SetLimits(wanted); err != nil {
		return http.StatusBadRequest, err
	}
	return http.StatusOK, nil
}

// WatchBandwidth adds the figures of a limit of bandwidth, by its name.
func (m *Metrics) WatchBandwidth(limit string, stats func() bandwidth.Stats) {
	metric := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("entrepot_bandwidth_"+name, help, nil, prometheus.Labels{"limit": limit})
	}
	m.registry.MustRegister(&limitFigures{
		stats:   stats,
		rate:    metric("limit_bytes_per_second", "The limit in force; 0: none."),
		waiting: metric("waiting", "Transfers of blobs that the limit holds back at the moment."),
		waited:  metric("waited_seconds_total", "How long transfers of blobs have been held back by the limit, all together."),
	})
}

// limitFigures tells Prometheus the figures of a limit when it asks.
type limitFigures struct {
	stats                 func() bandwidth.Stats
	rate, waiting, waited *prometheus.Desc
}

// Describe is of prometheus.Collector.
func (l *limitFigures) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{l.rate, l.waiting, l.waited} {
		ch <- d
	}
}

// Collect is of prometheus.Collector.
func (l *limitFigures) Collect(ch chan<- prometheus.Metric) {
	s := l.stats()
	ch <- prometheus.MustNewConstMetric(l.rate, prometheus.GaugeValue, float64(s.Rate))
	ch <- prometheus.MustNewConstMetric(l.waiting, prometheus.GaugeValue, float64(s.Waiting))
	ch <- prometheus.MustNewConstMetric(l.waited, prometheus.CounterValue, s.Waited.Seconds())
}
