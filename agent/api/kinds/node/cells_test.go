package node

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestCells(t *testing.T) {
	cases := map[string]struct {
		node corev1.Node
		want []string // status, roles, version, addresses, system
	}{
		"empty": {corev1.Node{}, []string{"Unknown", "<none>", "", "<none>", "<none>", unknown, unknown, unknown}},
		"ready": {corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"node-role.kubernetes.io/b": "", "node-role.kubernetes.io/": "x", "kubernetes.io/role": "a"}},
			Spec:       corev1.NodeSpec{Unschedulable: true},
			Status: corev1.NodeStatus{
				Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
				Addresses:  []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.7"}, {Type: corev1.NodeExternalIP, Address: "198.51.100.7"}},
				NodeInfo:   corev1.NodeSystemInfo{KubeletVersion: "v1.37.2", OSImage: "Debian", KernelVersion: "6.1", Architecture: "amd64", ContainerRuntimeVersion: "containerd://2.4"},
			}}, []string{"Ready,SchedulingDisabled", "a,b", "v1.37.2", "192.0.2.7", "198.51.100.7", "Debian", "6.1 (amd64)", "containerd://2.4"}},
		"not ready": {corev1.Node{Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionUnknown}}}},
			[]string{"NotReady", "<none>", "", "<none>", "<none>", unknown, unknown, unknown}},
	}
	for name, c := range cases {
		var got []string
		for _, column := range columns() {
			if column.Name != "Name" && column.Name != "Age" {
				got = append(got, column.Cell(&c.node).(string))
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
