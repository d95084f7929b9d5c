package proxy

// The outcomes of a reload.
const (
	reloadOK     = "ok"
	reloadFailed = "failed"
)

// Reloaded counts that the configuration was read again.
func (m *Metrics) Reloaded(ok bool) {
	if ok {
		m.reloads.WithLabelValues(reloadOK).Inc()
	} else {
		m.reloads.WithLabelValues(reloadFailed).Inc()
	}
}
