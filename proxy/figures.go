package proxy

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/entrepot/entrepot/cache"
)

// Watch adds the figures of a cache.
func (m *Metrics) Watch(stats func() cache.Stats) { m.registry.MustRegister(newFigures(stats)) }

// figures are those of one moment: all that a scrape gets of a cache comes from one look at it.
type figures struct {
	stats func() cache.Stats
	all   []figure
}

type figure struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	of   func(*cache.Stats) float64
}

func newFigures(stats func() cache.Stats) *figures {
	f := &figures{stats: stats}
	add := func(kind prometheus.ValueType, name, help string, of func(*cache.Stats) float64) {
		f.all = append(f.all, figure{prometheus.NewDesc("entrepot_"+name, help, nil, nil), kind, of})
	}
	const now, ever = prometheus.GaugeValue, prometheus.CounterValue
	add(now, "cache_bytes", "Bytes on disk, kept and reserved.", func(s *cache.Stats) float64 { return float64(s.Bytes) })
	add(now, "cache_limit_bytes", "Most bytes on disk that max_size allows; 0: no limit.",
		func(s *cache.Stats) float64 { return float64(s.Limit) })
	add(now, "cache_free_bytes", "Bytes free on the file system of the content.",
		func(s *cache.Stats) float64 { return float64(s.Free) })
	add(now, "cache_blobs", "Blobs and manifests that are kept.",
		func(s *cache.Stats) float64 { return float64(s.Content) })
	add(now, "cache_pinned", "Blobs and manifests that are pinned.",
		func(s *cache.Stats) float64 { return float64(s.Pinned) })
	add(now, "cache_parked_bytes", "Bytes on disk of transfers that wait to be taken up.",
		func(s *cache.Stats) float64 { return float64(s.Parked) })
	add(now, "cache_index_bytes", "Bytes on disk that the index takes.",
		func(s *cache.Stats) float64 { return float64(s.Index) })
	add(now, "cache_degraded", "1 if the disk is not used as it might be; /readyz and the log say why.",
		func(s *cache.Stats) float64 {
			return float64(min(1, len(s.Degraded)))
		})
	add(ever, "cache_evicted_total", "Blobs and manifests that made room for others.",
		func(s *cache.Stats) float64 { return float64(s.Evicted) })
	add(ever, "cache_evicted_bytes_total", "Bytes of them.",
		func(s *cache.Stats) float64 { return float64(s.EvictedBytes) })
	add(ever, "cache_scrubbed_total", "Blobs and manifests that the scrubber read again.",
		func(s *cache.Stats) float64 { return float64(s.Scrubbed) })
	add(ever, "cache_scrubbed_bytes_total", "Bytes of them.",
		func(s *cache.Stats) float64 { return float64(s.ScrubbedBytes) })
	add(ever, "cache_damaged_total", "Blobs and manifests that turned out to be damaged, and were dropped.",
		func(s *cache.Stats) float64 { return float64(s.Damaged) })
	add(now, "fills_in_flight", "Transfers of blobs from upstream under way.",
		func(s *cache.Stats) float64 { return float64(s.Fills) })
	add(now, "fill_readers_now", "Clients that follow them.", func(s *cache.Stats) float64 { return float64(s.Readers) })
	add(now, "manifests_being_written", "Manifests that are served and not on disk yet.",
		func(s *cache.Stats) float64 { return float64(s.Drafts) })
	return f
}

// Describe is a [prometheus.Collector]'s.
func (f *figures) Describe(to chan<- *prometheus.Desc) {
	for _, g := range f.all {
		to <- g.desc
	}
}

// Collect is a [prometheus.Collector]'s.
func (f *figures) Collect(to chan<- prometheus.Metric) {
	s := f.stats()
	for _, g := range f.all {
		to <- prometheus.MustNewConstMetric(g.desc, g.kind, g.of(&s))
	}
}
