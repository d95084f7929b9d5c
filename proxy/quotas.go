package proxy

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/entrepot/entrepot/upstream"
)

// WatchQuotas adds how far a registry may be asked under its rate limits.
func (m *Metrics) WatchQuotas(registry string, state func() []upstream.QuotaStatus) {
	metric := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("entrepot_upstream_"+name, help, []string{"endpoint", "login"}, prometheus.Labels{"registry": registry})
	}
	m.registry.MustRegister(&quotas{
		state:     state,
		limit:     metric("quota_limit", "Requests that an endpoint allows a login in a window, where it says so."),
		remaining: metric("quota_remaining", "How many of them are left."),
		reserve:   metric("quota_reserve", "How many of them are kept for what clients wait for."),
		held:      metric("throttled_seconds", "For how much longer a login is not used, because of a 429."),
		waits:     metric("quota_waits_total", "Requests that had to wait for a rate limit, or failed because it would have been for too long."),
		waited:    metric("quota_waited_seconds_total", "For how long they waited."),
		throttled: metric("throttled_total", "429s received."),
	})
}

// quotas tells Prometheus the state of a registry's quotas when it asks.
type quotas struct {
	state                                                     func() []upstream.QuotaStatus
	limit, remaining, reserve, held, waits, waited, throttled *prometheus.Desc
}

// Describe is of prometheus.Collector.
func (q *quotas) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{q.limit, q.remaining, q.reserve, q.held, q.waits, q.waited, q.throttled} {
		ch <- d
	}
}

// Collect is of prometheus.Collector.
func (q *quotas) Collect(ch chan<- prometheus.Metric) {
	for _, s := range q.state() {
		tell := func(d *prometheus.Desc, kind prometheus.ValueType, v float64) {
			ch <- prometheus.MustNewConstMetric(d, kind, v, s.Endpoint, s.Login)
		}
		if s.Limit > 0 {
			tell(q.limit, prometheus.GaugeValue, float64(s.Limit))
			tell(q.remaining, prometheus.GaugeValue, float64(s.Remaining))
			tell(q.reserve, prometheus.GaugeValue, float64(s.Reserve))
		}
		tell(q.held, prometheus.GaugeValue, s.ThrottledFor.Seconds())
		tell(q.waits, prometheus.CounterValue, float64(s.Waits))
		tell(q.waited, prometheus.CounterValue, s.Waited.Seconds())
		tell(q.throttled, prometheus.CounterValue, float64(s.Throttled))
	}
}
