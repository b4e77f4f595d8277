package pods

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/podvine/podvine/agent/pods/internal/podtest"
)

func (n *node) nodeObject() *corev1.Node {
	got, err := n.client.CoreV1().Nodes().Get(context.Background(), "n1", metav1.GetOptions{})
	if err != nil {
		return nil
	}
	return got
}

func nodeReady(n *corev1.Node) corev1.ConditionStatus {
	if n == nil {
		return ""
	}
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status
		}
	}
	return ""
}

func TestNodeObject(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.cfg.SkipNode = false
	n.cfg.NodeLabels = map[string]string{"zone": "a"}
	n.cfg.Reserved = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("500m")}
	n.start()
	podtest.Wait(t, "the node registers and lists its image", func() bool {
		got := n.nodeObject()
		return nodeReady(got) == corev1.ConditionTrue && len(got.Status.Images) == 1
	})
	got := n.nodeObject()
	cpu, free := got.Status.Capacity[corev1.ResourceCPU], got.Status.Allocatable[corev1.ResourceCPU]
	if cpu.MilliValue()-free.MilliValue() != 500 || got.Labels["zone"] != "a" || got.Labels[corev1.LabelHostname] != "n1" {
		t.Errorf("node %+v", got)
	}
	if a := got.Status.Addresses; len(a) != 2 || a[0].Address != "127.0.0.1" || got.Status.DaemonEndpoints.KubeletEndpoint.Port != 10250 {
		t.Errorf("addresses %+v", a)
	}

	lost := got.DeepCopy()
	for i := range lost.Status.Conditions {
		lost.Status.Conditions[i].Status = corev1.ConditionUnknown
	}
	if _, err := n.client.CoreV1().Nodes().UpdateStatus(context.Background(), lost, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	podtest.Wait(t, "the node contradicts rumours of its death", func() bool { return nodeReady(n.nodeObject()) == corev1.ConditionTrue })

	if err := n.client.CoreV1().Nodes().Delete(context.Background(), "n1", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	podtest.Wait(t, "the node registers again", func() bool { return nodeReady(n.nodeObject()) == corev1.ConditionTrue })
}

func TestVolumeOverItsLimitEvicts(t *testing.T) {
	t.Parallel()
	n := newNode(t).start()
	pod := newPod("greedy", box("main", "sleep"))
	pod.Spec.Volumes = []corev1.Volume{{Name: "tmp", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: ptr.To(resource.MustParse("64Ki"))}}}}
	n.create(pod)
	n.until("greedy", "is ready", ready)
	w := n.agent.find("default", "greedy", "")
	w.checkVolumes()
	if err := os.WriteFile(filepath.Join(w.dir(), "volumes", "kubernetes.io~empty-dir", "tmp", "big"), make([]byte, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	w.checkVolumes()
	got := n.until("greedy", "is evicted", phaseOf(corev1.PodFailed))
	if got.Status.Reason != "Evicted" {
		t.Errorf("reason %q", got.Status.Reason)
	}
}

func TestUnsupportedGuaranteeWaits(t *testing.T) {
	t.Parallel()
	n := newNode(t).start()
	pod := newPod("claims", box("main", "sleep"))
	pod.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "gpu"}}
	n.create(pod)
	var seen []string
	podtest.Wait(t, "users are told", func() bool {
		seen = append(seen, n.drainEvents()...)
		for _, e := range seen {
			if e == "Warning FailedCreatePodSandBox Failed to create pod sandbox: resource claims are not supported by this version" {
				return true
			}
		}
		return false
	})
	if p := n.get("claims").Status.Phase; p == corev1.PodRunning {
		t.Errorf("phase %s", p)
	}
}
