package lifecycle

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"pgregory.net/rapid"
)

func sized(cpu, memory string) corev1.ResourceRequirements {
	list := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
	return corev1.ResourceRequirements{Requests: list, Limits: list.DeepCopy()}
}

func sizedPod(r corev1.ResourceRequirements, restarts ...corev1.ResourceName) *corev1.Pod {
	p := pod(corev1.RestartPolicyAlways, "main:a")
	p.Spec.Containers[0].Resources = r
	for _, name := range restarts {
		p.Spec.Containers[0].ResizePolicy = append(p.Spec.Containers[0].ResizePolicy, corev1.ContainerResizePolicy{ResourceName: name, RestartPolicy: corev1.RestartContainer})
	}
	return p
}

func TestResize(t *testing.T) {
	small, big := sized("100m", "64Mi"), sized("200m", "64Mi")
	running := func(r corev1.ResourceRequirements) Container {
		return with(up("a"), func(c *Container) { c.Applied = &r })
	}
	pending := func(v View) View {
		v.Given, v.Resize = sizedPod(small), Verdict{corev1.PodReasonDeferred, "no room"}
		return v
	}
	for _, c := range []struct {
		name       string
		view       View
		do         string
		conditions string // Pending, InProgress
		shown      string // CPU of the container's resources and allocation
	}{
		{"as asked", view(sizedPod(small), running(small)), "", "", "100m 100m"},
		{"grows in place", view(sizedPod(big), running(small)), "Resize a", "InProgress ", "100m 200m"},
		{"restarts where the policy says so", view(sizedPod(big, corev1.ResourceCPU), running(small)), "Stop a 30", "InProgress ", "100m 200m"},
		{"the policy of what stays does not matter", view(sizedPod(big, corev1.ResourceMemory), running(small)), "Resize a", "InProgress ", "100m 200m"},
		{"no room", pending(view(sizedPod(big), running(small))), "", "Pending Deferred", "100m 100m"},
		{"failed and waits", view(sizedPod(big), with(running(small), func(c *Container) { c.ResizeError, c.ResizeAt = "busy", epoch.Add(time.Second) })), "", "InProgress Error", "100m 200m"},
		{"under way", view(sizedPod(big), with(running(small), func(c *Container) { c.Busy = Resizing })), "", "InProgress ", "100m 200m"},
		{"size unknown", view(sizedPod(big), up("a")), "", "", "200m 200m"},
		{"replaced after the stop", view(sizedPod(big), with(down("a", 0), func(c *Container) { c.Replace, c.Delay = true, time.Hour })), "Start a", "", ""},
		{"a deleted pod is not resized", view(deleted(sizedPod(big), 9), running(small)), "Stop a 9", "", "100m 200m"},
		{"deletion waits for a resize", view(deleted(sizedPod(big), 9), with(running(small), func(c *Container) { c.Busy = Resizing })), "", "", "100m 200m"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := Decide(c.view)
			conditions := ""
			for _, s := range got.Status.Conditions {
				switch s.Type {
				case corev1.PodResizePending:
					conditions += "Pending " + s.Reason
				case corev1.PodResizeInProgress:
					conditions += "InProgress " + s.Reason
				}
			}
			shown := ""
			if s := got.Status.ContainerStatuses[0]; s.Resources != nil {
				shown = s.Resources.Limits.Cpu().String() + " " + s.AllocatedResources.Cpu().String()
			}
			if words(got) != c.do || conditions != c.conditions || shown != c.shown {
				t.Errorf("got %q, %q, %q; want %q, %q, %q", words(got), conditions, shown, c.do, c.conditions, c.shown)
			}
		})
	}
}

func TestFits(t *testing.T) {
	list := func(cpu, memory string) corev1.ResourceList { return sized(cpu, memory).Requests }
	room := Room{Allocatable: list("2", "1Gi"), Others: list("1", "512Mi")}
	for want, in := range map[string]corev1.ResourceList{
		"":           list("1", "512Mi"),
		"Deferred":   list("1500m", "512Mi"),
		"Infeasible": list("1500m", "2Gi"),
	} {
		if v := Fits(in, room); v.Reason != want || (v.Message == "") != (want == "") {
			t.Errorf("%v: %+v", in, v)
		}
	}
	if v := Fits(list("64", "1Ti"), Room{}); v.Reason != corev1.PodReasonDeferred {
		t.Errorf("a node that nothing is known of says: %+v", v)
	}
}

// TestRequestsCoverEveryMoment: what a pod takes is never less than what any of
// its phases needs, and never more than all of them together.
func TestRequestsCoverEveryMoment(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := pod(corev1.RestartPolicyAlways, "init:i", "side:s", "init:j", "main:a", "main:b")
		set := func(c *corev1.Container) int64 {
			n := rapid.Int64Range(0, 4000).Draw(t, c.Name)
			c.Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: *resource.NewMilliQuantity(n, resource.DecimalSI)}
			return n
		}
		i, s, j := set(&p.Spec.InitContainers[0]), set(&p.Spec.InitContainers[1]), set(&p.Spec.InitContainers[2])
		a, b := set(&p.Spec.Containers[0]), set(&p.Spec.Containers[1])
		cpu := Requests(p)[corev1.ResourceCPU]
		if want := max(i, s+j, s+a+b); cpu.MilliValue() != want {
			t.Fatalf("takes %d, want %d", cpu.MilliValue(), want)
		}
	})
}

func TestAdmitSize(t *testing.T) {
	list := func(cpu, memory, disk string) corev1.ResourceList {
		return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory), corev1.ResourceEphemeralStorage: resource.MustParse(disk)}
	}
	room := Room{Allocatable: list("2", "1Gi", "10Gi"), Others: list("1500m", "512Mi", "9Gi")}
	asks := func(cpu, memory, disk string) *corev1.Pod {
		return sizedPod(corev1.ResourceRequirements{Requests: list(cpu, memory, disk)})
	}
	critical := asks("1", "0", "0")
	critical.Spec.PriorityClassName, critical.Spec.Priority = "system-node-critical", new(int32(2000001000))
	for _, c := range []struct {
		name string
		pod  *corev1.Pod
		room Room
		want Rejection
	}{
		{"fits to the last", asks("500m", "512Mi", "1Gi"), room, Rejection{}},
		{"CPU", asks("501m", "0", "0"), room, Rejection{"OutOfcpu", "Pod was rejected: Node didn't have enough resource: cpu, requested: 501, used: 1500, capacity: 2000"}},
		{"memory", asks("0", "1Gi", "0"), room, Rejection{"OutOfmemory", "Pod was rejected: Node didn't have enough resource: memory, requested: 1073741824, used: 536870912, capacity: 1073741824"}},
		{"disk", asks("0", "0", "2Gi"), room, Rejection{"OutOfephemeral-storage", "Pod was rejected: Node didn't have enough resource: ephemeral-storage, requested: 2147483648, used: 9663676416, capacity: 10737418240"}},
		{"asks for nothing on a full node", asks("0", "0", "0"), Room{Allocatable: list("2", "1Gi", "1Gi"), Others: list("3", "2Gi", "2Gi")}, Rejection{}},
		{"what the node has is not known", asks("64", "1Ti", "1Ti"), Room{}, Rejection{}},
		{"critical", critical, room, Rejection{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got Rejection
			if why := AdmitSize(c.pod, c.room); why != nil {
				got = *why
			}
			if got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}
