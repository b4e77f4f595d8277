package kube

import (
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// maxTriggers bounds how many changes of endpoints wait to be timed; what is beyond is not.
const maxTriggers = 4096

// changes are what came since the proxy was last told.
type changes struct {
	services, slices int
	// triggers are the times of what led to changed endpoints: a pod that became ready, say.
	triggers []time.Time
}

func (c *changes) add(more changes) {
	c.services += more.services
	c.slices += more.slices
	c.triggers = append(c.triggers, more.triggers[:min(len(more.triggers), maxTriggers-len(c.triggers))]...)
}

// triggerOf reads from a new or changed slice when that began which changed it. What a slice says unchanged is old.
func triggerOf(old, fresh any) []time.Time {
	now, ok := fresh.(*discoveryv1.EndpointSlice)
	if !ok {
		return nil
	}
	text := now.Annotations[corev1.EndpointsLastChangeTriggerTime]
	if before, ok := old.(*discoveryv1.EndpointSlice); ok && before.Annotations[corev1.EndpointsLastChangeTriggerTime] == text {
		return nil
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return nil // most slices have none
	}
	return []time.Time{at}
}

// metrics are what kube-proxy tells of the changes that it follows, under its names.
type metrics struct {
	started                        time.Time
	programming                    prometheus.Histogram
	serviceChanges, endpointsTotal prometheus.Counter
	queuedAt                       prometheus.Gauge
}

func newMetrics() *metrics {
	const space, part = "kubeproxy", "sync_proxy_rules"
	return &metrics{
		started: time.Now(),
		programming: prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: space, Name: "network_programming_duration_seconds",
			Help: "From what changed endpoints (a pod that became ready) to this node serving them so.",
			// kube-proxy's own: 0.25 s to 5 minutes.
			Buckets: slices.Concat(prometheus.LinearBuckets(0.25, 0.25, 2), prometheus.LinearBuckets(1, 1, 59),
				prometheus.LinearBuckets(60, 5, 12), prometheus.LinearBuckets(120, 30, 7))}),
		serviceChanges: prometheus.NewCounter(prometheus.CounterOpts{Namespace: space, Subsystem: part, Name: "service_changes_total",
			Help: "Changes of Services."}),
		endpointsTotal: prometheus.NewCounter(prometheus.CounterOpts{Namespace: space, Subsystem: part, Name: "endpoint_changes_total",
			Help: "Changes of EndpointSlices."}),
		queuedAt: prometheus.NewGauge(prometheus.GaugeOpts{Namespace: space, Subsystem: part, Name: "last_queued_timestamp_seconds",
			Help: "When a change last came, in Unix time."}),
	}
}

// queued counts a change that came.
func (m *metrics) queued(what changes) {
	m.serviceChanges.Add(float64(what.services))
	m.endpointsTotal.Add(float64(what.slices))
	m.queuedAt.SetToCurrentTime()
}

// programmed times what the proxy serves now. What began before this process would tell how long that was away.
func (m *metrics) programmed(triggers []time.Time) {
	for _, at := range triggers {
		if at.After(m.started) {
			m.programming.Observe(time.Since(at).Seconds())
		}
	}
}

// register makes the metrics of a source visible.
func (m *metrics) register(registerer prometheus.Registerer, s *Source) error {
	if registerer == nil {
		return nil
	}
	pending := func(name, help string, count func(changes) int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "kubeproxy", Subsystem: "sync_proxy_rules", Name: name, Help: help}, func() float64 {
			s.mu.Lock()
			defer s.mu.Unlock()
			return float64(count(s.changes))
		})
	}
	for _, c := range []prometheus.Collector{
		m.programming, m.serviceChanges, m.endpointsTotal, m.queuedAt,
		pending("service_changes_pending", "Changes of Services that are not served yet.", func(c changes) int { return c.services }),
		pending("endpoint_changes_pending", "Changes of EndpointSlices that are not served yet.", func(c changes) int { return c.slices }),
	} {
		if err := registerer.Register(c); err != nil {
			return fmt.Errorf("show metrics: %w", err)
		}
	}
	return nil
}
