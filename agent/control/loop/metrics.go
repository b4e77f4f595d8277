package loop

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/util/workqueue"
)

// Metrics are the workqueue_* metrics of one loop under Kubernetes' names, so that stock dashboards work. It
// implements [workqueue.MetricsProvider]. Safe for concurrent use.
type Metrics struct {
	depth, unfinished, longest *prometheus.GaugeVec
	adds, retries              *prometheus.CounterVec
	latency, work              *prometheus.HistogramVec
}

// Histogram buckets run from 10 ns to 10 s by tens, then to 1,000 s, as Kubernetes'.
const (
	bucketFirstSeconds = 10e-9
	bucketFactor       = 10
	bucketCount        = 12
)

// NewMetrics registers the metrics with a registry that no other loop uses.
func NewMetrics(registry prometheus.Registerer) (*Metrics, error) {
	label := []string{"name"}
	gauge := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Subsystem: "workqueue", Name: name, Help: help}, label)
	}
	counter := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Subsystem: "workqueue", Name: name, Help: help}, label)
	}
	histogram := func(name, help string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Subsystem: "workqueue", Name: name, Help: help,
			Buckets: prometheus.ExponentialBuckets(bucketFirstSeconds, bucketFactor, bucketCount)}, label)
	}
	m := &Metrics{
		depth:      gauge("depth", "Keys waiting for a worker."),
		unfinished: gauge("unfinished_work_seconds", "Sum of the ages of the keys being worked on."),
		longest:    gauge("longest_running_processor_seconds", "Age of the key that has been worked on longest."),
		adds:       counter("adds_total", "Keys added."),
		retries:    counter("retries_total", "Keys added again after an error."),
		latency:    histogram("queue_duration_seconds", "Time from adding a key to starting on it."),
		work:       histogram("work_duration_seconds", "Time that working on a key takes."),
	}
	for _, c := range []prometheus.Collector{m.depth, m.unfinished, m.longest, m.adds, m.retries, m.latency, m.work} {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("register workqueue metrics: %w", err)
		}
	}
	return m, nil
}

// NewDepthMetric implements [workqueue.MetricsProvider].
func (m *Metrics) NewDepthMetric(name string) workqueue.GaugeMetric {
	return m.depth.WithLabelValues(name)
}

// NewAddsMetric implements [workqueue.MetricsProvider].
func (m *Metrics) NewAddsMetric(name string) workqueue.CounterMetric {
	return m.adds.WithLabelValues(name)
}

// NewLatencyMetric implements [workqueue.MetricsProvider].
func (m *Metrics) NewLatencyMetric(name string) workqueue.HistogramMetric {
	return m.latency.WithLabelValues(name)
}

// NewWorkDurationMetric implements [workqueue.MetricsProvider].
func (m *Metrics) NewWorkDurationMetric(name string) workqueue.HistogramMetric {
	return m.work.WithLabelValues(name)
}

// NewUnfinishedWorkSecondsMetric implements [workqueue.MetricsProvider].
func (m *Metrics) NewUnfinishedWorkSecondsMetric(name string) workqueue.SettableGaugeMetric {
	return m.unfinished.WithLabelValues(name)
}

// NewLongestRunningProcessorSecondsMetric implements [workqueue.MetricsProvider].
func (m *Metrics) NewLongestRunningProcessorSecondsMetric(name string) workqueue.SettableGaugeMetric {
	return m.longest.WithLabelValues(name)
}

// NewRetriesMetric implements [workqueue.MetricsProvider].
func (m *Metrics) NewRetriesMetric(name string) workqueue.CounterMetric {
	return m.retries.WithLabelValues(name)
}

// OptionalMetrics is [NewMetrics], or nothing without a registry.
func OptionalMetrics(registry prometheus.Registerer) (*Metrics, error) {
	if registry == nil {
		return nil, nil
	}
	return NewMetrics(registry)
}
