package pods

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestParseTraffic(t *testing.T) {
	got := parseTraffic([]byte(`Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     840      10    0    0    0     0          0         0      840      10    0    0    0     0       0          0
  eth0: 1234567    1000    1    2    0     0          0         0  7654321     900    3    4    0     0       0          0
broken: 12
`))
	if len(got) != 1 {
		t.Fatalf("interfaces: %v", got)
	}
	for name, want := range map[string]float64{
		"receive_bytes": 1234567, "receive_packets": 1000, "receive_errors": 1, "receive_packets_dropped": 2,
		"transmit_bytes": 7654321, "transmit_packets": 900, "transmit_errors": 3, "transmit_packets_dropped": 4,
	} {
		if got["eth0"][name] != want {
			t.Errorf("%s is %v, want %v", name, got["eth0"][name], want)
		}
	}
}

func TestProbesAreCountedUntilThePodIsGone(t *testing.T) {
	m := newAgentMetrics(&Agent{})
	one := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "one", Namespace: "ns", UID: "u1"}}
	other := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "other", Namespace: "ns", UID: "u2"}}
	m.count("Liveness", one, "c", true)
	m.count("Liveness", one, "c", true)
	m.count("Liveness", one, "c", false)
	m.count("Readiness", other, "c", true)
	if got := testutil.ToFloat64(m.probed.WithLabelValues("Liveness", "successful", "c", "one", "ns", "u1")); got != 2 {
		t.Errorf("successful tries: %v, want 2", got)
	}
	m.forget("u1")
	if got := testutil.CollectAndCount(m.probed); got != 1 {
		t.Errorf("%d series are left, want that of the other pod", got)
	}
}
