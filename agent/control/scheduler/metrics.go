package scheduler

import (
	"fmt"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Results of an attempt, as kube-scheduler counts them.
const (
	resultScheduled     = "scheduled"
	resultUnschedulable = "unschedulable"
	resultError         = "error"
)

// metrics are kube-scheduler's that dashboards read.
type metrics struct {
	attempts *prometheus.CounterVec
	duration *prometheus.HistogramVec
	pending  *prometheus.GaugeVec
	latency  *prometheus.HistogramVec

	preemptions prometheus.Counter
	victims     prometheus.Histogram
	profile     string
}

func newMetrics(registry prometheus.Registerer, profile string) (*metrics, error) {
	m := &metrics{
		profile: profile,
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "scheduler_schedule_attempts_total",
			Help: "Attempts to schedule pods, by result."}, []string{"result", "profile"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "scheduler_scheduling_attempt_duration_seconds",
			Help:    "Time to decide on one pod.",
			Buckets: prometheus.ExponentialBuckets(0.00001, 2, 20)}, []string{"result", "profile"}),
		pending: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "scheduler_pending_pods",
			Help: "Pods waiting, by queue."}, []string{"queue"}),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "scheduler_pod_scheduling_sli_duration_seconds",
			Help:    "Time from a pod entering the queue to its binding, by attempts.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 20)}, []string{"attempts"}),
	}
	m.preemptions = prometheus.NewCounter(prometheus.CounterOpts{Name: "scheduler_preemption_attempts_total",
		Help: "Pods for which others were evicted."})
	m.victims = prometheus.NewHistogram(prometheus.HistogramOpts{Name: "scheduler_preemption_victims",
		Help: "Pods evicted for one.", Buckets: prometheus.ExponentialBuckets(1, 2, 7)})
	if registry == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.attempts, m.duration, m.pending, m.latency, m.preemptions, m.victims} {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("register scheduler metrics: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) decided(result string, took time.Duration) {
	m.attempts.WithLabelValues(result, m.profile).Inc()
	m.duration.WithLabelValues(result, m.profile).Observe(took.Seconds())
}

// maxAttemptsLabel bounds the label's values.
const maxAttemptsLabel = 15

func (m *metrics) bound(attempts int, waited time.Duration) {
	m.latency.WithLabelValues(strconv.Itoa(min(attempts, maxAttemptsLabel))).Observe(waited.Seconds())
}

// preempted notes that room was made on a node by evicting that many pods.
func (m *metrics) preempted(victims int) {
	m.preemptions.Inc()
	m.victims.Observe(float64(victims))
}

func (m *metrics) queues(c Counts) {
	m.pending.WithLabelValues("active").Set(float64(c.Active))
	m.pending.WithLabelValues("backoff").Set(float64(c.Backoff))
	m.pending.WithLabelValues("unschedulable").Set(float64(c.Unschedulable))
	m.pending.WithLabelValues("gated").Set(float64(c.Gated))
}
