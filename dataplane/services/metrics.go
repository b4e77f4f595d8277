package services

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the proxy's: under kube-proxy's names what stock dashboards show of it, as podvine_proxy_* what only this one
// has. They are visible once they are registered with Config.Metrics.
type metrics struct {
	syncs, full, partial prometheus.Histogram
	last                 prometheus.Gauge
}

func newMetrics() *metrics {
	// kube-proxy's own buckets: 1 ms to 16 s.
	buckets := prometheus.ExponentialBuckets(0.001, 2, 15)
	histogram := func(name, help string) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: "kubeproxy", Name: name, Help: help, Buckets: buckets})
	}
	return &metrics{
		syncs:   histogram("sync_proxy_rules_duration_seconds", "Making the maps fit what is wanted, of both address families."),
		full:    histogram("sync_full_proxy_rules_duration_seconds", "The same, when every service was looked at."),
		partial: histogram("sync_partial_proxy_rules_duration_seconds", "The same, when only what changed was looked at."),
		last: prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "kubeproxy", Name: "sync_proxy_rules_last_timestamp_seconds",
			Help: "When the maps were last made to fit, in Unix time."}),
	}
}

// synced counts a plan that was carried out.
func (m *metrics) synced(begun time.Time, full bool) {
	seconds := time.Since(begun).Seconds()
	m.syncs.Observe(seconds)
	if full {
		m.full.Observe(seconds)
	} else {
		m.partial.Observe(seconds)
	}
	m.last.SetToCurrentTime()
}

// register makes the metrics of a proxy visible.
func (m *metrics) register(registerer prometheus.Registerer, p *Proxy) error {
	if registerer == nil {
		return nil
	}
	for _, c := range []prometheus.Collector{m.syncs, m.full, m.partial, m.last, statsCollector{p}} {
		if err := registerer.Register(c); err != nil {
			return fmt.Errorf("show metrics: %w", err)
		}
	}
	return nil
}

// statsCollector shows what a proxy counts for itself. Reading it reads the programs' counters.
type statsCollector struct{ proxy *Proxy }

// Describe implements prometheus.Collector; what is collected is checked as it comes.
func (statsCollector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c statsCollector) Collect(out chan<- prometheus.Metric) {
	s := c.proxy.Stats()
	for _, m := range []struct {
		kind       prometheus.ValueType
		name, help string
		value      float64
	}{
		{prometheus.CounterValue, "map_writes_total", "Writes to the maps of services.", float64(s.Writes)},
		{prometheus.CounterValue, "failures_total", "Writes to the maps that failed; what was to be written is tried again.", float64(s.Failures)},
		{prometheus.CounterValue, "changes_total", "Changes of services that were carried out.", float64(s.Changes)},
		{prometheus.CounterValue, "sockets_destroyed_total", "Connected sockets that were ended because their backend had gone.", float64(s.SocketsDestroyed)},
		{prometheus.CounterValue, "flows_swept_total", "Entries of flows that were over and were removed.", float64(s.FlowsSwept)},
		{prometheus.GaugeValue, "flows", "Entries of flows after the last sweep, two a flow.", float64(s.Flows)},
		{prometheus.GaugeValue, "frontends", "Addresses with a port that are served.", float64(s.Frontends)},
		{prometheus.GaugeValue, "sets", "Sets of backends.", float64(s.Sets)},
		{prometheus.GaugeValue, "conflicts", "Frontends that several services want; the first by name has it.", float64(len(s.Conflicts))},
		{prometheus.GaugeValue, "random_sets", "Sets that ask for Maglev and are served at random, for there are too many.", float64(s.Random)},
		{prometheus.GaugeValue, "dead_nodes", "Nodes that look dead; their endpoints get no traffic from here.", float64(s.DeadNodes)},
	} {
		out <- prometheus.MustNewConstMetric(prometheus.NewDesc("podvine_proxy_"+m.name, m.help, nil, nil), m.kind, m.value)
	}
	events := prometheus.NewDesc("podvine_proxy_events_total", "What the eBPF programs did.", []string{"event"}, nil)
	for event, count := range s.Programs {
		out <- prometheus.MustNewConstMetric(events, prometheus.CounterValue, float64(count), event)
	}
	without := prometheus.NewDesc("kubeproxy_sync_proxy_rules_no_local_endpoints_total",
		"Services with a traffic policy Local and endpoints, none of them on this node.", []string{"traffic_policy"}, nil)
	out <- prometheus.MustNewConstMetric(without, prometheus.GaugeValue, float64(s.NoLocalInternal), "internal")
	out <- prometheus.MustNewConstMetric(without, prometheus.GaugeValue, float64(s.NoLocalExternal), "external")
}

// withoutLocal counts the services whose traffic policy leaves them without an endpoint on this node.
func (w *wanted) withoutLocal() (internal, external int) {
	for _, s := range w.services {
		if !s.InternalLocal && !s.ExternalLocal || localEndpoints(s) > 0 {
			continue
		}
		some := false
		for _, p := range s.Ports {
			some = some || len(p.Endpoints) > 0
		}
		if some && s.InternalLocal {
			internal++
		}
		if some && s.ExternalLocal {
			external++
		}
	}
	return internal, external
}
