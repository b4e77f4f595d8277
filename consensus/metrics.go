package consensus

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the replica's, all named podvine_consensus_*.
type metrics struct {
	commands     *prometheus.CounterVec
	groupSize    prometheus.Histogram
	writeSeconds prometheus.Histogram
	applySeconds prometheus.Histogram
	diskSeconds  *prometheus.HistogramVec
	diskRetries  prometheus.Counter
	diskFault    prometheus.Gauge
	leaderships  prometheus.Counter
	snapshots    *prometheus.CounterVec
	reads        prometheus.Counter

	registerer prometheus.Registerer
	registered []prometheus.Collector
}

func newMetrics(reg prometheus.Registerer) *metrics {
	const space, part = "podvine", "consensus"
	seconds := []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5, 30}
	counter := func(name, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Namespace: space, Subsystem: part, Name: name, Help: help}
	}
	histogram := func(name, help string, buckets []float64) prometheus.HistogramOpts {
		return prometheus.HistogramOpts{Namespace: space, Subsystem: part, Name: name, Help: help, Buckets: buckets}
	}
	return &metrics{
		registerer:   reg,
		commands:     prometheus.NewCounterVec(counter("commands_total", "Proposed commands by outcome."), []string{"outcome"}),
		groupSize:    prometheus.NewHistogram(histogram("group_commands", "Commands a log entry.", prometheus.ExponentialBuckets(1, 2, 10))),
		writeSeconds: prometheus.NewHistogram(histogram("write_seconds", "From proposal to result.", seconds)),
		applySeconds: prometheus.NewHistogram(histogram("apply_seconds", "Applying a batch of log entries.", seconds)),
		diskSeconds:  prometheus.NewHistogramVec(histogram("disk_seconds", "Disk operations of the log.", seconds), []string{"operation"}),
		diskRetries:  prometheus.NewCounter(counter("disk_retries_total", "Disk operations that were tried again.")),
		diskFault: prometheus.NewGauge(prometheus.GaugeOpts{Namespace: space, Subsystem: part, Name: "disk_fault",
			Help: "1 while the disk does not take the log."}),
		leaderships: prometheus.NewCounter(counter("leaderships_total", "Times this replica took the lead.")),
		snapshots:   prometheus.NewCounterVec(counter("snapshots_total", "Snapshots by outcome."), []string{"outcome"}),
		reads:       prometheus.NewCounter(counter("verified_reads_total", "Rounds that verified the lead for reads.")),
	}
}

// register makes the metrics visible, with gauges that look at r.
func (m *metrics) register(r *Replica) error {
	if m.registerer == nil {
		return nil
	}
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "podvine", Subsystem: "consensus", Name: name, Help: help}, value)
	}
	all := []prometheus.Collector{
		m.commands, m.groupSize, m.writeSeconds, m.applySeconds, m.diskSeconds, m.diskRetries, m.diskFault, m.leaderships, m.snapshots, m.reads,
		prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "podvine", Subsystem: "consensus", Name: "votes_asked_total",
			Help: "Requests for a vote that went out."}, func() float64 { return float64(r.gate.votes.Load()) }),
		gauge("revision", "Newest revision.", func() float64 { return float64(r.store.Revision()) }),
		gauge("history_bytes", "Memory that history holds.", func() float64 { return float64(r.store.HistoryBytes()) }),
		gauge("applied_index", "Newest applied log entry.", func() float64 { i, _ := r.store.Applied(); return float64(i) }),
		gauge("leading", "1 while this replica leads.", func() float64 {
			if _, ok := r.Leading(); ok {
				return 1
			}
			return 0
		}),
	}
	for _, c := range all {
		if err := m.registerer.Register(c); err != nil {
			m.unregister()
			return errors.Join(errors.New("register metrics"), err)
		}
		m.registered = append(m.registered, c)
	}
	return nil
}

func (m *metrics) unregister() {
	for _, c := range m.registered {
		m.registerer.Unregister(c)
	}
	m.registered = nil
}
