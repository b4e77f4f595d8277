package pods

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/podvine/podvine/agent/pods/internal/podtest"
)

func sized(cpu, memory string) corev1.ResourceRequirements {
	list := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
	return corev1.ResourceRequirements{Requests: list, Limits: list.DeepCopy()}
}

// withRoom makes a node that has 2 CPUs and 1 GiB to give.
func withRoom(t *testing.T) *node {
	t.Helper()
	n := newNode(t)
	n.before = func(a *Agent) { a.node.alloc = sized("2", "1Gi").Requests }
	return n.start()
}

// resize asks for another size of a pod's first container.
func (n *node) resize(name string, r corev1.ResourceRequirements) {
	n.t.Helper()
	p := n.get(name)
	n.patch(name, map[string]any{"metadata": map[string]any{"generation": p.Generation + 1}, "spec": map[string]any{
		"containers": []map[string]any{{"name": p.Spec.Containers[0].Name, "resources": r}},
	}})
}

// limits reads the memory limit and CPU quota of a pod's cgroup, or with an ID
// of a container's.
func (n *node) limits(pod *corev1.Pod, id string) string {
	n.t.Helper()
	read := func(controller, file string) string {
		b, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", controller, n.dirs.Cgroup, "pod"+string(pod.UID), id, file))
		if err != nil {
			n.t.Error(err)
		}
		return strings.TrimSpace(string(b))
	}
	return read("memory", "memory.limit_in_bytes") + " " + read("cpu", "cpu.cfs_quota_us")
}

func condition(p *corev1.Pod, t corev1.PodConditionType) *corev1.PodCondition {
	for i := range p.Status.Conditions {
		if p.Status.Conditions[i].Type == t {
			return &p.Status.Conditions[i]
		}
	}
	return nil
}

func TestResizeInPlace(t *testing.T) {
	t.Parallel()
	n := withRoom(t)
	c := box("main", "sleep")
	c.Resources = sized("200m", "64Mi")
	n.create(newPod("elastic", c))
	before := n.until("elastic", "is ready", ready)
	id := strings.TrimPrefix(status(before, "main").ContainerID, "containerd://")
	for _, size := range []struct{ cpu, memory, limits string }{
		{"400m", "128Mi", "134217728 40000"},
		{"100m", "32Mi", "33554432 10000"},
	} {
		n.resize("elastic", sized(size.cpu, size.memory))
		got := n.until("elastic", "has its new size", func(p *corev1.Pod) bool {
			s := status(p, "main")
			return s.Resources != nil && s.Resources.Limits.Memory().String() == size.memory && s.AllocatedResources.Cpu().String() == size.cpu &&
				condition(p, corev1.PodResizeInProgress) == nil
		})
		if s := status(got, "main"); s.ContainerID != status(before, "main").ContainerID || s.RestartCount != 0 {
			t.Errorf("the container was replaced: %+v", s)
		}
		if l := n.limits(got, id); l != size.limits {
			t.Errorf("the container's limits are %s, want %s", l, size.limits)
		}
		podtest.Wait(t, "the pod's own limits follow", func() bool { return n.limits(got, "") == size.limits })
	}
	n.wantEvents("Normal ResizeCompleted")
	n.delete("elastic", 0)
}

func TestResizeByRestart(t *testing.T) {
	t.Parallel()
	n := withRoom(t)
	c := box("main", "sleep")
	c.Resources = sized("100m", "64Mi")
	c.ResizePolicy = []corev1.ContainerResizePolicy{{ResourceName: corev1.ResourceMemory, RestartPolicy: corev1.RestartContainer}}
	pod := newPod("heap", c)
	pod.Spec.RestartPolicy = corev1.RestartPolicyOnFailure
	n.create(pod)
	n.until("heap", "is ready", ready)
	n.resize("heap", sized("100m", "128Mi"))
	got := n.until("heap", "runs anew", func(p *corev1.Pod) bool { return status(p, "main").RestartCount == 1 && ready(p) })
	if l := n.limits(got, strings.TrimPrefix(status(got, "main").ContainerID, "containerd://")); l != "134217728 10000" {
		t.Errorf("limits %s", l)
	}
	n.wantEvents("Normal Killing Container main resize requires restart")
	n.delete("heap", 0)
}

func TestResizeWaitsForRoom(t *testing.T) {
	t.Parallel()
	n := withRoom(t)
	for _, name := range []string{"grows", "leaves"} {
		c := box("main", "sleep")
		c.Resources = sized("800m", "64Mi")
		n.create(newPod(name, c))
		n.until(name, "is ready", ready)
	}
	n.resize("grows", sized("3", "64Mi"))
	n.until("grows", "is told never", func(p *corev1.Pod) bool {
		c := condition(p, corev1.PodResizePending)
		return c != nil && c.Reason == corev1.PodReasonInfeasible && c.Message == "Node didn't have enough capacity: cpu, requested: 3000, capacity: 2000"
	})
	n.resize("grows", sized("1500m", "64Mi"))
	got := n.until("grows", "is told to wait", func(p *corev1.Pod) bool {
		c := condition(p, corev1.PodResizePending)
		return c != nil && c.Reason == corev1.PodReasonDeferred
	})
	if s := status(got, "main"); s.AllocatedResources.Cpu().String() != "800m" || s.Resources.Limits.Cpu().String() != "800m" {
		t.Errorf("status %+v", s)
	}
	n.stop()
	n.again()
	n.delete("leaves", 0)
	n.until("grows", "grows once there is room", func(p *corev1.Pod) bool {
		s := status(p, "main")
		return condition(p, corev1.PodResizePending) == nil && s.Resources != nil && s.Resources.Limits.Cpu().MilliValue() == 1500 && s.RestartCount == 0
	})
	n.wantEvents("Warning ResizeInfeasible", "Warning ResizeDeferred")
	n.delete("grows", 0)
}
