package proxy

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy/access"
)

// Metrics count what the mirror does. Labels are bounded: registries of the configuration, kinds, outcomes; never a
// repository, digest or path. A nil *Metrics counts nothing.
type Metrics struct {
	registry *prometheus.Registry

	requests         *prometheus.CounterVec
	bytes            *prometheus.CounterVec
	firstByte        *prometheus.HistogramVec
	upstreamRequests *prometheus.CounterVec
	upstreamSeconds  *prometheus.HistogramVec
	upstreamBytes    *prometheus.CounterVec
	fills            *prometheus.CounterVec
	fillReaders      prometheus.Histogram
	ahead            *prometheus.CounterVec
	healed           *prometheus.CounterVec
	reloads          *prometheus.CounterVec
	denied           *prometheus.CounterVec

	answers map[series]answers // those of the configured registries: made at the start, and only read after that
}

// series are the labels of what is counted of an answer.
type series struct{ registry, kind, outcome string }

// answers count the answers of one series.
type answers struct{ requests, bytes prometheus.Counter }

// unrouted is the label of requests that name no configured registry.
const unrouted = "none"

// NewMetrics returns metrics for the registries of those names. version labels entrepot_build_info.
func NewMetrics(registries []string, version string) *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "entrepot_" + name, Help: help}, labels)
	}
	seconds := []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}
	m := &Metrics{
		registry: prometheus.NewRegistry(), answers: make(map[series]answers),
		requests: counter("requests_total", "Requests of clients, by how they were answered.", "registry", "kind", "verdict"),
		bytes:    counter("response_bytes_total", "Bytes of bodies sent to clients.", "registry", "kind", "verdict"),
		firstByte: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "entrepot_miss_first_byte_seconds",
			Help: "From a request that had to go upstream to the first byte of its body.", Buckets: seconds}, []string{"kind"}),
		upstreamRequests: counter("upstream_requests_total", "Requests sent upstream, those for tokens included.", "registry", "kind", "outcome"),
		upstreamSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "entrepot_upstream_answer_seconds",
			Help: "From a request sent upstream to the header of its answer.", Buckets: seconds}, []string{"registry", "kind"}),
		upstreamBytes: counter("upstream_bytes_total", "Bytes of bodies received from upstream.", "registry", "kind"),
		fills:         counter("fills_total", "Transfers of blobs from upstream that ended: kept, or failed.", "outcome"),
		fillReaders: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "entrepot_fill_readers",
			Help: "How many clients shared a transfer of a blob from upstream.", Buckets: []float64{1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024}}),
		ahead:   counter("read_ahead_total", "Manifests and blobs fetched before a client asked: kept, or failed.", "registry", "kind", "outcome"),
		healed:  counter("cache_healed_total", "Content that was damaged, dropped, and is here again, by what was wrong with it.", "damage"),
		reloads: counter("config_reloads_total", "How often the configuration was read again: ok, or failed, which changes nothing.", "outcome"),
		denied:  counter("access_refused_total", "Requests that were refused because of who made them, by reason.", "reason"),
	}
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "entrepot_build_info", Help: "Always 1."}, []string{"version"})
	build.WithLabelValues(version).Set(1)
	m.registry.MustRegister(m.requests, m.bytes, m.firstByte, m.upstreamRequests, m.upstreamSeconds, m.upstreamBytes,
		m.fills, m.fillReaders, m.ahead, m.healed, m.reloads, m.denied, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.zero(registries)
	return m
}

// zero makes the counters exist from the start, so that rates do.
func (m *Metrics) zero(registries []string) {
	for _, k := range []kind{kindManifest, kindBlob} {
		m.firstByte.WithLabelValues(string(k))
	}
	for _, registry := range registries {
		for _, k := range upstreamKinds {
			m.upstreamBytes.WithLabelValues(registry, k)
			for _, outcome := range upstreamOutcomes {
				m.upstreamRequests.WithLabelValues(registry, k, outcome)
			}
		}
		for _, k := range []kind{kindManifest, kindBlob} {
			m.ahead.WithLabelValues(registry, string(k), outcomeKept)
			m.ahead.WithLabelValues(registry, string(k), outcomeFailed)
		}
		for _, k := range []kind{kindManifest, kindBlob, kindTags, kindReferrers} {
			for _, o := range cache.Outcomes {
				of := series{registry, string(k), o.String()}
				m.answers[of] = m.answersOf(of)
			}
			m.requests.WithLabelValues(registry, string(k), outcomeRefused)
			m.requests.WithLabelValues(registry, string(k), outcomeFailed)
		}
	}
	for _, outcome := range []string{outcomeKept, outcomeFailed} {
		m.fills.WithLabelValues(outcome)
	}
	for _, outcome := range []string{reloadOK, reloadFailed} {
		m.reloads.WithLabelValues(outcome)
	}
	for _, reason := range access.Reasons {
		m.denied.WithLabelValues(string(reason))
	}
	for _, damage := range cache.Damages {
		m.healed.WithLabelValues(string(damage))
	}
}

// What package upstream calls the kinds of its requests, and how they end.
var (
	upstreamKinds    = []string{"manifest", "blob", "list", "token", "probe"}
	upstreamOutcomes = []string{"ok", "refused", "throttled", "failed"}
)

// Handler serves the metrics to Prometheus.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry})
}

// UpstreamRequest counts a request sent upstream.
func (m *Metrics) UpstreamRequest(registry, kind, outcome string, took time.Duration) {
	m.upstreamRequests.WithLabelValues(registry, kind, outcome).Inc()
	m.upstreamSeconds.WithLabelValues(registry, kind).Observe(took.Seconds())
}

// UpstreamBytes counts bytes received from upstream.
func (m *Metrics) UpstreamBytes(registry, kind string, n int64) {
	m.upstreamBytes.WithLabelValues(registry, kind).Add(float64(n))
}

// FillDone counts a transfer that ended. One that no client followed says nothing of how many share one.
func (m *Metrics) FillDone(readers int, err error) {
	m.fills.WithLabelValues(kept(err == nil)).Inc()
	if readers > 0 {
		m.fillReaders.Observe(float64(readers))
	}
}

// refused counts a request that was refused because of who made it.
func (m *Metrics) refused(reason access.Reason) {
	if m != nil {
		m.denied.WithLabelValues(string(reason)).Inc()
	}
}

// AheadDone counts what was read ahead.
func (m *Metrics) AheadDone(registry, kind string, was bool) {
	m.ahead.WithLabelValues(registry, kind, kept(was)).Inc()
}

// Healed counts content that was damaged and is here again.
func (m *Metrics) Healed(damage cache.Damage) { m.healed.WithLabelValues(string(damage)).Inc() }

const outcomeKept = "kept"

func kept(was bool) string {
	if was {
		return outcomeKept
	}
	return outcomeFailed
}

// answersOf looks up the counters of a series, which costs more than to count.
func (m *Metrics) answersOf(of series) answers {
	return answers{m.requests.WithLabelValues(of.registry, of.kind, of.outcome), m.bytes.WithLabelValues(of.registry, of.kind, of.outcome)}
}

// answered counts a request that was answered.
func (m *Metrics) answered(c *call) {
	if m == nil {
		return
	}
	registry := c.target.repo.Registry
	if registry == "" {
		registry = unrouted
	}
	kind, outcome := string(c.target.kind), c.outcome()
	counted, ok := m.answers[series{registry, kind, outcome}]
	if !ok {
		counted = m.answersOf(series{registry, kind, outcome})
	}
	counted.requests.Inc()
	counted.bytes.Add(float64(c.written))
	if !c.firstByte.IsZero() {
		m.firstByte.WithLabelValues(kind).Observe(c.firstByte.Sub(c.start).Seconds())
	}
}
