package proxy

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/entrepot/entrepot/upstream"
)

// WatchEndpoints adds how the endpoints of a registry fare.
func (m *Metrics) WatchEndpoints(registry string, state func() []upstream.EndpointStatus) {
	metric := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("entrepot_endpoint_"+name, help, []string{"endpoint"}, prometheus.Labels{"registry": registry})
	}
	m.registry.MustRegister(&endpoints{
		state:       state,
		up:          metric("up", "Whether an endpoint serves blobs and all else; what it does not serve it is asked for last."),
		aside:       metric("set_aside", "Whether an endpoint is asked for blobs last, because it sent wrong bytes."),
		lies:        metric("wrong_blobs_total", "Blobs that did not match their digest, of which an endpoint sent all or a part."),
		connections: metric("connections", "Transfers of blobs from an endpoint under way."),
		speed:       metric("bytes_per_second", "What one transfer from an endpoint brought in the last ten minutes; 0: not measured, 1: it failed."),
	})
}

// endpoints tells Prometheus the state of a registry's endpoints when it asks.
type endpoints struct {
	state                               func() []upstream.EndpointStatus
	up, aside, lies, connections, speed *prometheus.Desc
}

// Describe is of prometheus.Collector.
func (e *endpoints) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{e.up, e.aside, e.lies, e.connections, e.speed} {
		ch <- d
	}
}

// Collect is of prometheus.Collector.
func (e *endpoints) Collect(ch chan<- prometheus.Metric) {
	for _, s := range e.state() {
		gauge := func(d *prometheus.Desc, v float64) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, s.Name)
		}
		gauge(e.up, number(s.Up))
		gauge(e.aside, number(s.Aside))
		ch <- prometheus.MustNewConstMetric(e.lies, prometheus.CounterValue, float64(s.Lies), s.Name)
		gauge(e.connections, float64(s.Connections))
		gauge(e.speed, s.Speed)
	}
}

func number(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
