package admission

import (
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apiserver/pkg/admission"
	_ "k8s.io/apiserver/pkg/admission/metrics" // registers the histograms that are found here, and counts webhooks
	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"
)

// histograms are the library's, which it offers to its own decorators only. Those look the labels up anew each time a plug-in
// returns, which costs as much as the whole chain.
type histograms struct {
	plugins *metrics.HistogramVec
	steps   *metrics.HistogramVec
	summary *metrics.SummaryVec
}

// findHistograms asks the registry for them: whoever registers the same metric once more is told which one is there. Name, help
// and labels must be the library's to the letter for that.
func findHistograms() (*histograms, error) {
	const (
		pluginHelp  = "Admission controller latency histogram in seconds, identified by name and broken out for each operation and API resource and type (validate or admit)."
		stepHelp    = "Admission sub-step latency histogram in seconds, broken out for each operation and API resource and step type (validate or admit)."
		summaryHelp = "Admission sub-step latency summary in seconds, broken out for each operation and API resource and step type (validate or admit)."
	)
	options := func(name, help string) *metrics.HistogramOpts {
		return &metrics.HistogramOpts{Namespace: "apiserver", Subsystem: "admission", Name: name, Help: help, StabilityLevel: metrics.STABLE}
	}
	labels := []string{"type", "operation", "rejected"}
	plugins, pluginErr := find(metrics.NewHistogramVec(options("controller_admission_duration_seconds", pluginHelp), append([]string{"name"}, labels...)))
	steps, stepErr := find(metrics.NewHistogramVec(options("step_admission_duration_seconds", stepHelp), labels))
	summary, summaryErr := find(metrics.NewSummaryVec(&metrics.SummaryOpts{Namespace: "apiserver", Subsystem: "admission",
		Name: "step_admission_duration_seconds_summary", Help: summaryHelp, StabilityLevel: metrics.ALPHA}, labels))
	return &histograms{plugins, steps, summary}, errors.Join(pluginErr, stepErr, summaryErr)
}

// find returns the registered metric that is the same as this one.
func find[M metrics.Registerable](same M) (found M, err error) {
	var there prometheus.AlreadyRegisteredError
	err = legacyregistry.Register(same)
	if !errors.As(err, &there) {
		return found, fmt.Errorf("find the library's metric %s: registered anew: %w", same.FQName(), err)
	}
	found, ok := there.ExistingCollector.(M)
	if !ok {
		return found, fmt.Errorf("find the library's metric %s: it is a %T", same.FQName(), there.ExistingCollector)
	}
	return found, nil
}

// durations measure one thing: observers are looked up when there is the first value for them, so that no series is shown for
// what never happened.
type durations struct {
	lookUp   func(rejected bool) observers
	admitted atomic.Pointer[observers]
	rejected atomic.Pointer[observers]
}

// observers are one or two metrics that get the same values.
type observers []metrics.ObserverMetric

func (d *durations) observe(took time.Duration, rejected bool) {
	kept := &d.admitted
	if rejected {
		kept = &d.rejected
	}
	to := kept.Load()
	if to == nil {
		found := d.lookUp(rejected)
		to = &found
		kept.Store(to)
	}
	for _, o := range *to {
		o.Observe(took.Seconds())
	}
}

// plugin measures a plug-in.
func (h *histograms) plugin(name, kind string, operation admission.Operation) *durations {
	return &durations{lookUp: func(rejected bool) observers {
		return observers{h.plugins.WithLabelValues(name, kind, string(operation), strconv.FormatBool(rejected))}
	}}
}

// whole measures all plug-ins together.
func (h *histograms) whole(kind string, operation admission.Operation) *durations {
	return &durations{lookUp: func(rejected bool) observers {
		labels := []string{kind, string(operation), strconv.FormatBool(rejected)}
		return observers{h.steps.WithLabelValues(labels...), h.summary.WithLabelValues(labels...)}
	}}
}
