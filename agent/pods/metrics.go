package pods

import (
	"bufio"
	"bytes"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/podvine/podvine/agent/pods/lifecycle"
	"github.com/podvine/podvine/agent/pods/sandbox"
)

// agentMetrics are what stock dashboards read from a node, under the names of kubelet and cAdvisor, a registry an
// endpoint. Reading them reads the kernel's counters and asks containerd nothing.
type agentMetrics struct {
	kubelet, containers, probes *prometheus.Registry
	// probed counts tries of probes as they happen.
	probed *prometheus.CounterVec
	// operations, by the CRI's names, and starts as they happen.
	operations, operationErrors *prometheus.CounterVec
	operationSeconds            *prometheus.HistogramVec
	startedContainers           *prometheus.CounterVec
	startedPods                 prometheus.Counter
	podStartSeconds             prometheus.Histogram
}

func newAgentMetrics(a *Agent) agentMetrics {
	m := agentMetrics{
		kubelet: prometheus.NewRegistry(), containers: prometheus.NewRegistry(), probes: prometheus.NewRegistry(),
		probed: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "prober_probe_total",
			Help: "Tries of a container's probe, by result."}, []string{"probe_type", "result", "container", "pod", "namespace", "pod_uid"}),
	}
	m.addOperations()
	m.kubelet.MustRegister(kubeletCollector{a}, m.operations, m.operationErrors, m.operationSeconds, m.startedContainers, m.startedPods, m.podStartSeconds)
	m.containers.MustRegister(containerCollector{a})
	m.probes.MustRegister(m.probed)
	return m
}

func (m *agentMetrics) addOperations() {
	counts := func(name, help, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
	}
	m.operations = counts("kubelet_runtime_operations_total", "Operations on containers.", "operation_type")
	m.operationErrors = counts("kubelet_runtime_operations_errors_total", "Operations on containers that failed.", "operation_type")
	m.operationSeconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "kubelet_runtime_operations_duration_seconds",
		Help: "How long operations on containers took.", Buckets: prometheus.ExponentialBuckets(.005, 2.5, 14)}, []string{"operation_type"})
	m.startedContainers = counts("kubelet_started_containers_total", "Starts of containers.", "container_type")
	m.startedPods = prometheus.NewCounter(prometheus.CounterOpts{Name: "kubelet_started_pods_total", Help: "Starts of pods."})
	m.podStartSeconds = prometheus.NewHistogram(prometheus.HistogramOpts{Name: "kubelet_pod_start_duration_seconds",
		Help:    "From the agent's first sight of a pod to all its containers running.",
		Buckets: []float64{.05, .1, .2, .5, 1, 2, 3, 4, 5, 6, 8, 10, 20, 30, 45, 60, 120, 180, 240, 300, 360, 480, 600, 900, 1200, 1800, 2700, 3600}})
}

// observe counts an operation on a container.
func (m agentMetrics) observe(operation string, took time.Duration, err error) {
	m.operations.WithLabelValues(operation).Inc()
	m.operationSeconds.WithLabelValues(operation).Observe(took.Seconds())
	if err != nil {
		m.operationErrors.WithLabelValues(operation).Inc()
	}
}

// containerStarted counts the start of a container by its place in the pod.
func (m agentMetrics) containerStarted(pod *corev1.Pod, name string) {
	kind := "container"
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == name {
			kind = "init_container"
		}
	}
	for i := range pod.Spec.EphemeralContainers {
		if pod.Spec.EphemeralContainers[i].Name == name {
			kind = "ephemeral_container"
		}
	}
	m.startedContainers.WithLabelValues(kind).Inc()
}

// podStarted counts the start of a pod that was first seen then.
func (m agentMetrics) podStarted(seen time.Time) {
	m.startedPods.Inc()
	m.podStartSeconds.Observe(time.Since(seen).Seconds())
}

// addTo adds the endpoints to routes of the kubelet API.
func (m agentMetrics) addTo(routes map[string]http.Handler) map[string]http.Handler {
	all := maps.Clone(routes)
	if all == nil {
		all = map[string]http.Handler{}
	}
	for pattern, registry := range map[string]*prometheus.Registry{
		"GET /metrics": m.kubelet, "GET /metrics/cadvisor": m.containers, "GET /metrics/probes": m.probes,
	} {
		// A metric that fails does not hide the others.
		all[pattern] = promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
	}
	return all
}

// count counts a try of a probe.
func (m agentMetrics) count(kind string, pod *corev1.Pod, container string, ok bool) {
	result := "successful"
	if !ok {
		result = "failed"
	}
	m.probed.WithLabelValues(kind, result, container, pod.Name, pod.Namespace, string(pod.UID)).Inc()
}

// forget drops what was counted for a pod that is gone.
func (m agentMetrics) forget(uid types.UID) {
	m.probed.DeletePartialMatch(prometheus.Labels{"pod_uid": string(uid)})
}

// gauge describes one value for each set of labels.
type gauge struct {
	kind prometheus.ValueType
	desc *prometheus.Desc
}

func newGauge(kind prometheus.ValueType, name, help string, labels ...string) gauge {
	return gauge{kind, prometheus.NewDesc(name, help, labels, nil)}
}

func (g gauge) send(out chan<- prometheus.Metric, value float64, labels ...string) {
	out <- prometheus.MustNewConstMetric(g.desc, g.kind, value, labels...)
}

// kubeletCollector shows what kubelet says of itself.
type kubeletCollector struct{ a *Agent }

// Describe implements prometheus.Collector; what is collected is checked as it comes.
func (kubeletCollector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c kubeletCollector) Collect(out chan<- prometheus.Metric) {
	newGauge(prometheus.GaugeValue, "kubelet_node_name", "The node's name; the count is always 1.", "node").send(out, 1, c.a.cfg.NodeName)
	pods, states := 0, map[string]int{"created": 0, "running": 0, "exited": 0}
	for _, w := range c.a.all() {
		w.mu.Lock()
		runs := false
		for _, container := range w.rec.Containers {
			switch {
			case container.Phase == lifecycle.Running:
				states["running"]++
				runs = true
			case !container.FinishedAt.IsZero():
				states["exited"]++
			case container.ID != "":
				states["created"]++
			}
		}
		w.mu.Unlock()
		if runs {
			pods++
		}
	}
	newGauge(prometheus.GaugeValue, "kubelet_running_pods", "Pods with a container that runs.").send(out, float64(pods))
	containers := newGauge(prometheus.GaugeValue, "kubelet_running_containers", "Containers, by state.", "container_state")
	for state, count := range states {
		containers.send(out, float64(count), state)
	}
	newGauge(prometheus.CounterValue, "podvine_containerd_calls_total", "Uses of containerd.").send(out, float64(c.a.RuntimeCalls()))
}

// containerLabels are those by which dashboards find containers.
func containerLabels() []string {
	return []string{"id", "name", "image", "container", "pod", "namespace"}
}

// containerMetrics are cAdvisor's that dashboards read.
type containerMetrics struct {
	cpu, periods, throttled, throttledTime, usage, workingSet, rss, limit, started, seen gauge
	network                                                                              map[string]gauge
}

func newContainerMetrics() containerMetrics {
	labels := containerLabels()
	m := containerMetrics{
		cpu:           newGauge(prometheus.CounterValue, "container_cpu_usage_seconds_total", "CPU time used.", append([]string{"cpu"}, labels...)...),
		periods:       newGauge(prometheus.CounterValue, "container_cpu_cfs_periods_total", "Periods in which the CPU limit was enforced.", labels...),
		throttled:     newGauge(prometheus.CounterValue, "container_cpu_cfs_throttled_periods_total", "Periods in which the CPU limit was met.", labels...),
		throttledTime: newGauge(prometheus.CounterValue, "container_cpu_cfs_throttled_seconds_total", "Time for which the CPU limit held it back.", labels...),
		usage:         newGauge(prometheus.GaugeValue, "container_memory_usage_bytes", "Memory used, caches included.", labels...),
		workingSet:    newGauge(prometheus.GaugeValue, "container_memory_working_set_bytes", "Memory used that cannot be dropped at once.", labels...),
		rss:           newGauge(prometheus.GaugeValue, "container_memory_rss", "Anonymous memory.", labels...),
		limit:         newGauge(prometheus.GaugeValue, "container_spec_memory_limit_bytes", "The memory limit, 0 without one.", labels...),
		started:       newGauge(prometheus.GaugeValue, "container_start_time_seconds", "When it started, since 1970.", labels...),
		seen:          newGauge(prometheus.GaugeValue, "container_last_seen", "When it was measured, since 1970.", labels...),
		network:       map[string]gauge{},
	}
	for _, name := range networkCounters() {
		m.network[name] = newGauge(prometheus.CounterValue, "container_network_"+name+"_total", "The pod's network traffic.", append([]string{"interface"}, labels...)...)
	}
	return m
}

// containerCollector measures containers, their pods and the machine.
type containerCollector struct{ a *Agent }

// Describe implements prometheus.Collector; what is collected is checked as it comes.
func (containerCollector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c containerCollector) Collect(out chan<- prometheus.Metric) {
	newGauge(prometheus.GaugeValue, "machine_cpu_cores", "Logical CPUs.").send(out, float64(runtime.NumCPU()))
	newGauge(prometheus.GaugeValue, "machine_memory_bytes", "Memory of the machine.").send(out, float64(c.a.host.MemoryBytes))
	m := newContainerMetrics()
	now := metav1.Now()
	m.cgroup(c.a, out, "", now, time.Time{}, []string{"/", "", "", "", "", ""})
	for _, w := range c.a.all() {
		w.mu.Lock()
		pod, since, netns := w.rec.Pod, w.rec.StartTime, w.paths.Net
		var running []lifecycle.Container
		for _, container := range w.rec.Containers {
			if container.Phase == lifecycle.Running {
				running = append(running, container)
			}
		}
		w.mu.Unlock()
		own := "/" + strings.TrimPrefix(w.cgroupPath(""), "/")
		labels := []string{own, "", "", "", pod.Name, pod.Namespace}
		m.cgroup(c.a, out, w.cgroupPath(""), now, since, labels)
		m.traffic(out, netns, labels)
		for _, container := range running {
			path := w.cgroupPath(container.ID)
			labels := []string{"/" + strings.TrimPrefix(path, "/"), container.ID, container.Image, container.Name, pod.Name, pod.Namespace}
			m.cgroup(c.a, out, path, now, container.StartedAt, labels)
			if spec := findContainer(pod, container.Name); spec != nil {
				m.limit.send(out, float64(spec.Resources.Limits.Memory().Value()), labels...)
			}
		}
	}
}

// cgroup sends what the kernel counts for a control group. What cannot be read, because it has just ended, is left out.
func (m containerMetrics) cgroup(a *Agent, out chan<- prometheus.Metric, path string, now metav1.Time, started time.Time, labels []string) {
	cpu, memory := a.usage(path, now)
	if cpu.UsageCoreNanoSeconds != nil {
		m.cpu.send(out, float64(*cpu.UsageCoreNanoSeconds)/1e9, append([]string{"total"}, labels...)...)
	}
	m.memory(out, memory, labels)
	if !started.IsZero() {
		m.started.send(out, float64(started.UnixNano())/1e9, labels...)
	}
	m.seen.send(out, float64(now.UnixNano())/1e9, labels...)
	file := filepath.Join(sandbox.CgroupRoot, path, "cpu.stat")
	unit, name := 1e6, "throttled_usec"
	if !a.cgroups.Unified() {
		file, unit, name = filepath.Join(sandbox.CgroupRoot, "cpu", path, "cpu.stat"), 1e9, "throttled_time"
	}
	if periods, ok := field(file, "nr_periods"); ok && periods > 0 {
		m.periods.send(out, float64(periods), labels...)
		if throttled, ok := field(file, "nr_throttled"); ok {
			m.throttled.send(out, float64(throttled), labels...)
		}
		if held, ok := field(file, name); ok {
			m.throttledTime.send(out, float64(held)/unit, labels...)
		}
	}
}

func (m containerMetrics) memory(out chan<- prometheus.Metric, memory *stats.MemoryStats, labels []string) {
	for _, v := range []struct {
		metric gauge
		value  *uint64
	}{{m.usage, memory.UsageBytes}, {m.workingSet, memory.WorkingSetBytes}, {m.rss, memory.RSSBytes}} {
		if v.value != nil {
			v.metric.send(out, float64(*v.value), labels...)
		}
	}
}

// networkCounters are the columns of /proc/net/dev that dashboards read, by the names of the metrics, in their order.
func networkCounters() []string {
	return []string{"receive_bytes", "receive_packets", "receive_errors", "receive_packets_dropped",
		"transmit_bytes", "transmit_packets", "transmit_errors", "transmit_packets_dropped"}
}

// traffic sends the counters of the interfaces in a network namespace; a pod on the host's network has none.
func (m containerMetrics) traffic(out chan<- prometheus.Metric, netns string, labels []string) {
	if netns == "" {
		return
	}
	var content []byte
	err := sandbox.Enter(netns, func() (err error) {
		content, err = os.ReadFile("/proc/thread-self/net/dev")
		return err
	})
	if err != nil {
		return // the pod has just ended
	}
	for name, counters := range parseTraffic(content) {
		for counter, value := range counters {
			m.network[counter].send(out, value, append([]string{name}, labels...)...)
		}
	}
}

// parseTraffic reads /proc/net/dev, without the loopback: interface, counter, value.
func parseTraffic(content []byte) map[string]map[string]float64 {
	// A line has the receive columns bytes, packets, errs, drop, fifo, frame, compressed, multicast; then those sent.
	const columns, sent, perDirection = 16, 8, 4
	all := map[string]map[string]float64{}
	lines := bufio.NewScanner(bytes.NewReader(content))
	for lines.Scan() {
		name, rest, ok := strings.Cut(lines.Text(), ":")
		fields := strings.Fields(rest)
		if name = strings.TrimSpace(name); !ok || name == "lo" || len(fields) < columns {
			continue
		}
		all[name] = map[string]float64{}
		for i, counter := range networkCounters() {
			column := i
			if i >= perDirection {
				column = sent + i - perDirection
			}
			if value, err := strconv.ParseFloat(fields[column], 64); err == nil {
				all[name][counter] = value
			}
		}
	}
	return all
}
