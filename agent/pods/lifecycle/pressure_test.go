package lifecycle

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"
)

const mi = 1 << 20

// user is a pod that uses and asks for so many MiB.
func user(name string, used, asked int64, priority int32) PodUsage {
	p := pod(corev1.RestartPolicyAlways, "main:a")
	p.UID, p.Spec.Priority = types.UID(name), &priority
	if asked > 0 {
		p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceMemory: *resource.NewQuantity(asked*mi, resource.BinarySI)}
	}
	return PodUsage{Pod: p, MemoryBytes: used * mi, DiskBytes: used * mi, Processes: used, ContainerMemory: map[string]int64{"a": used * mi}}
}

func TestRelieve(t *testing.T) {
	low := map[Signal]Measure{MemoryAvailable: {50 * mi, 1024 * mi}}
	well := map[Signal]Measure{MemoryAvailable: {500 * mi, 1024 * mi}, NodeFSAvailable: {50, 100}, PIDAvailable: {900, 1000}}
	full := map[Signal]Measure{ImageFSAvailable: {1, 100}, MemoryAvailable: {500 * mi, 1024 * mi}}
	busy := map[Signal]Measure{PIDAvailable: {10, 1000}}
	pods := []PodUsage{user("small", 10, 20, 0), user("greedy", 300, 100, 0), user("vip", 500, 0, 100), user("critical", 900, 0, systemCritical)}
	static := user("static", 999, 0, 0)
	static.Static = true
	pods = append(pods, static)
	for _, c := range []struct {
		name string
		view PressureView
		want string
	}{
		{"well", PressureView{Measures: well, Pods: pods}, "{false false false}"},
		{"short of memory", PressureView{Measures: low, Pods: pods}, "{true false false} evict greedy"},
		{"one at a time", PressureView{Measures: low, Pods: pods, Evicting: true}, "{true false false}"},
		{"priority next", PressureView{Measures: low, Pods: append([]PodUsage{pods[0]}, pods[2:]...)}, "{true false false} evict vip"},
		{"then those within their requests", PressureView{Measures: low, Pods: []PodUsage{pods[0], pods[3], static}}, "{true false false} evict small"},
		{"critical and static pods stay", PressureView{Measures: low, Pods: []PodUsage{pods[3], static}}, "{true false false}"},
		{"disk is freed first", PressureView{Measures: full, Pods: pods}, "{false true false} reclaim"},
		{"then pods go", PressureView{Measures: full, Pods: pods, ReclaimedAt: epoch.Add(-time.Second)}, "{false true false} evict greedy"},
		{"processes", PressureView{Measures: busy, Pods: pods}, "{false false true} evict greedy"},
		{"a condition stays a while", PressureView{Measures: well, Pods: pods, LastMet: map[Signal]time.Time{MemoryAvailable: epoch.Add(-4 * time.Minute)}}, "{true false false}"},
		{"and then goes", PressureView{Measures: well, Pods: pods, LastMet: map[Signal]time.Time{MemoryAvailable: epoch.Add(-6 * time.Minute)}}, "{false false false}"},
		{"what cannot be measured is not short", PressureView{Measures: map[Signal]Measure{PIDAvailable: {}}, Pods: pods}, "{false false false}"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.view.Now, c.view.Thresholds = epoch, DefaultThresholds()
			p := Relieve(c.view)
			got := fmt.Sprint(p.Pressure)
			if p.Reclaim {
				got += " reclaim"
			}
			if p.Evict != "" {
				got += " evict " + string(p.Evict)
			}
			if got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
	p := Relieve(PressureView{Now: epoch, Thresholds: DefaultThresholds(), Measures: low, Pods: pods})
	const want = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. Container a was using 300Mi, request is 100Mi, has larger consumption of memory. "
	if p.Message != want {
		t.Errorf("message %q", p.Message)
	}
}

// TestRankIsAnOrder: whoever goes first is never better entitled than one that
// goes later, whatever order they came in.
func TestRankIsAnOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var pods []PodUsage
		for i := range rapid.IntRange(0, 12).Draw(t, "pods") {
			pods = append(pods, user(fmt.Sprint("p", i), rapid.Int64Range(0, 5).Draw(t, "used"), rapid.Int64Range(0, 5).Draw(t, "asked"), int32(rapid.IntRange(-1, 1).Draw(t, "priority"))))
		}
		first := Rank(MemoryAvailable, pods)
		again := Rank(MemoryAvailable, rapid.Permutation(pods).Draw(t, "order"))
		for i := range first {
			if first[i].Pod.UID != again[i].Pod.UID {
				t.Fatalf("the order depends on how pods come: %s, %s", first[i].Pod.UID, again[i].Pod.UID)
			}
			if i == 0 {
				continue
			}
			a, b := first[i-1], first[i]
			overA, overB := a.used(MemoryAvailable) > a.asked(MemoryAvailable), b.used(MemoryAvailable) > b.asked(MemoryAvailable)
			if !overA && overB || overA == overB && *a.Pod.Spec.Priority > *b.Pod.Spec.Priority {
				t.Fatalf("%s goes before %s", a.Pod.UID, b.Pod.UID)
			}
		}
	})
}

func TestAdmitUnder(t *testing.T) {
	plain, asking := pod(corev1.RestartPolicyAlways, "main:a"), sizedPod(sized("1", "1Mi"))
	tolerant := pod(corev1.RestartPolicyAlways, "main:a")
	tolerant.Spec.Tolerations = []corev1.Toleration{{Key: corev1.TaintNodeMemoryPressure, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule}}
	critical := pod(corev1.RestartPolicyAlways, "main:a")
	critical.Spec.Priority = ptr.To(int32(systemCritical))
	for _, c := range []struct {
		p    Pressure
		pod  *corev1.Pod
		want string
	}{
		{Pressure{}, plain, ""}, {Pressure{Memory: true}, plain, "MemoryPressure"}, {Pressure{Memory: true}, asking, ""}, {Pressure{Memory: true}, tolerant, ""},
		{Pressure{Disk: true}, asking, "DiskPressure"}, {Pressure{true, true, true}, critical, ""}, {Pressure{PID: true}, plain, "PIDPressure"},
	} {
		why := AdmitUnder(c.p, c.pod)
		if (why == nil) != (c.want == "") || why != nil && (why.Reason != "Evicted" || !strings.Contains(why.Message, c.want)) {
			t.Errorf("%+v: %+v, want %q", c.p, why, c.want)
		}
	}
}

func TestEvictedPodEndsAtOnce(t *testing.T) {
	v := view(pod(corev1.RestartPolicyAlways, "main:a"), up("a"))
	v.Shutdown, v.ShutdownGraceSeconds = &Rejection{"Evicted", "low on memory"}, ptr.To(int64(EvictionGraceSeconds))
	got := Decide(v)
	if words(got) != "Stop a 1" || got.Status.Phase != corev1.PodFailed || got.Status.Reason != "Evicted" {
		t.Errorf("%s, %s %s", words(got), got.Status.Phase, got.Status.Reason)
	}
	v.Standing, v.Containers["a"] = got.Status, down("a", 137)
	got = Decide(v)
	found := false
	for _, c := range got.Status.Conditions {
		found = found || c.Type == corev1.DisruptionTarget && c.Status == corev1.ConditionTrue && c.Reason == corev1.PodReasonTerminationByKubelet && c.Message == "low on memory"
	}
	if !found || words(got) != "Release" {
		t.Errorf("%s, conditions %+v", words(got), got.Status.Conditions)
	}
}
