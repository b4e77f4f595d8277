package agent

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
)

// The parts of an agent are one process where stock dashboards expect a program each. So each has an endpoint of its own,
// with its metrics under the names that those dashboards know, and none is shown twice: /metrics of the API has the
// process's own (process_*, go_*).
const (
	schedulerMetricsPath         = "/metrics/scheduler"
	controllerManagerMetricsPath = "/metrics/controller-manager"
	consensusMetricsPath         = "/metrics/consensus"
	// proxyMetricsPath is one of the kubelet API, for every node has a proxy.
	proxyMetricsPath = "/metrics/proxy"
)

// schedulerLoop is the loop whose metrics stand apart, as kube-scheduler's do.
const schedulerLoop = "scheduler"

// serveMetrics shows what a gatherer has; a part that fails does not hide the others.
func serveMetrics(gatherer prometheus.Gatherer) http.Handler {
	return promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
}

// lateGatherers are asked for at each request: the routes are made before the parts whose metrics they show.
func lateGatherers(get func() prometheus.Gatherers) prometheus.Gatherer {
	return prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) { return get().Gather() })
}

// apiMetrics are the routes of the API beside its own /metrics.
func (n *node) apiMetrics() map[string]http.Handler {
	loops := func(scheduler bool) prometheus.Gatherer {
		return lateGatherers(func() prometheus.Gatherers {
			var gatherers prometheus.Gatherers
			if n.control == nil {
				return nil
			}
			for name, registry := range n.control.Registries() {
				if (name == schedulerLoop) == scheduler {
					gatherers = append(gatherers, registry)
				}
			}
			return gatherers
		})
	}
	return map[string]http.Handler{
		schedulerMetricsPath:         serveMetrics(loops(true)),
		controllerManagerMetricsPath: serveMetrics(loops(false)),
		consensusMetricsPath:         serveMetrics(n.consensusMetrics),
	}
}
