package scheduler

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func decideOne(nodes []*v1.Node, pod *v1.Pod, on map[string][]*v1.Pod) Decision {
	cache := NewCache()
	for _, n := range nodes {
		cache.SetNode(n)
	}
	for node, pods := range on {
		for _, p := range pods {
			p.Spec.NodeName = node
			cache.SetPod(NewPod(p))
		}
	}
	return Decide(cache.View(), []*Pod{NewPod(pod)}, NewMemo(), rand.New(rand.NewPCG(1, 1)))[0]
}

// TestMessages pins the words that users and their tools match on.
func TestMessages(t *testing.T) {
	tainted := testNode("a", "4", "4Gi", 10)
	tainted.Spec.Taints = []v1.Taint{{Key: "k", Effect: v1.TaintEffectNoSchedule}}
	small := testNode("b", "1", "4Gi", 10)
	full := testNode("c", "1", "512Mi", 0)
	cordoned := testNode("d", "4", "4Gi", 10)
	cordoned.Spec.Unschedulable = true
	big := func(change func(*v1.Pod)) *v1.Pod {
		p := testPod("p", "2", "1Gi")
		if change != nil {
			change(p)
		}
		return p
	}
	never := v1.PreemptNever
	for _, test := range []struct {
		name  string
		nodes []*v1.Node
		on    map[string][]*v1.Pod
		pod   *v1.Pod
		want  string
	}{
		{"no nodes", nil, nil, big(nil), "no nodes available to schedule pods"},
		{"taint and cpu", []*v1.Node{tainted, small, testNode("e", "1", "4Gi", 10)}, nil, big(nil),
			"0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 Insufficient cpu. " +
				"preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."},
		{"several shortages on one node", []*v1.Node{full}, nil, big(nil),
			"0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient memory, 1 Too many pods. " +
				"preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."},
		{"used up by equals", []*v1.Node{testNode("f", "3", "4Gi", 10)},
			map[string][]*v1.Pod{"f": {testPod("other", "2", "1Gi")}}, big(nil),
			"0/1 nodes are available: 1 Insufficient cpu. " +
				"preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."},
		{"evicts", []*v1.Node{testNode("f", "3", "4Gi", 10), tainted},
			map[string][]*v1.Pod{"f": {testPod("other", "2", "1Gi")}}, big(func(p *v1.Pod) { p.Spec.Priority = new(int32(5)) }),
			"0/2 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s)."},
		{"evicting is not enough", []*v1.Node{testNode("f", "3", "4Gi", 10)},
			map[string][]*v1.Pod{"f": {important("vital", "2"), testPod("other", "1", "1Gi")}}, big(func(p *v1.Pod) { p.Spec.Priority = new(int32(5)) }),
			"0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 Insufficient cpu."},
		{"cordoned, never preempts", []*v1.Node{cordoned}, nil, big(func(p *v1.Pod) { p.Spec.PreemptionPolicy = &never }),
			"0/1 nodes are available: 1 node(s) were unschedulable. preemption: not eligible due to preemptionPolicy=Never."},
		{"selector", []*v1.Node{testNode("g", "4", "4Gi", 10)}, nil,
			big(func(p *v1.Pod) { p.Spec.NodeSelector = map[string]string{"disk": "ssd"} }),
			"0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector. " +
				"preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."},
		{"extended resource", []*v1.Node{testNode("h", "4", "4Gi", 10)}, nil, big(func(p *v1.Pod) {
			p.Spec.Containers[0].Resources.Requests["example.com/gpu"] = apiresource.MustParse("1")
		}), "0/1 nodes are available: 1 Insufficient example.com/gpu. " +
			"preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."},
		{"pinned by a DaemonSet", []*v1.Node{testNode("i", "1", "4Gi", 10), testNode("j", "4", "4Gi", 10)}, nil,
			big(func(p *v1.Pod) { p.Spec.Affinity = pinTo("i") }),
			"0/2 nodes are available: 1 Insufficient cpu, 1 node(s) didn't satisfy plugin(s) [NodeAffinity]. " +
				"preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."},
		{"gated", []*v1.Node{testNode("k", "4", "4Gi", 10)}, nil,
			big(func(p *v1.Pod) { p.Spec.SchedulingGates = []v1.PodSchedulingGate{{Name: "a"}, {Name: "b"}} }),
			"Scheduling is blocked due to non-empty scheduling gates"},
		{"claim", []*v1.Node{testNode("l", "4", "4Gi", 10)}, nil, big(func(p *v1.Pod) {
			p.Spec.Volumes = []v1.Volume{{Name: "data", VolumeSource: v1.VolumeSource{
				PersistentVolumeClaim: &v1.PersistentVolumeClaimVolumeSource{ClaimName: "c"}}}}
		}), `volume "data" needs a PersistentVolumeClaim, which Podvine does not serve yet`},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := decideOne(test.nodes, test.pod, test.on)
			if d.Refused == nil || d.Refused.Message != test.want {
				t.Errorf("got %q %+v\nwant %q", d.Node, d.Refused, test.want)
			}
		})
	}
}

func important(name, cpu string) *v1.Pod {
	p := testPod(name, cpu, "")
	p.Spec.Priority = new(int32(1000))
	return p
}

func pinTo(node string) *v1.Affinity {
	return &v1.Affinity{NodeAffinity: &v1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &v1.NodeSelector{
		NodeSelectorTerms: []v1.NodeSelectorTerm{{MatchFields: []v1.NodeSelectorRequirement{
			{Key: metav1.ObjectNameField, Operator: v1.NodeSelectorOpIn, Values: []string{node}}}}}}}}
}

// TestRequests: sidecars run beside init containers and containers, init containers alone, overhead on top.
func TestRequests(t *testing.T) {
	always := v1.ContainerRestartPolicyAlways
	pod := testPod("p", "100m", "")
	pod.Spec.Overhead = v1.ResourceList{v1.ResourceCPU: apiresource.MustParse("7m")}
	container := func(cpu string, policy *v1.ContainerRestartPolicy) v1.Container {
		return v1.Container{RestartPolicy: policy, Resources: v1.ResourceRequirements{
			Requests: v1.ResourceList{v1.ResourceCPU: apiresource.MustParse(cpu)}}}
	}
	pod.Spec.InitContainers = []v1.Container{container("50m", &always), container("300m", nil)}
	if got := NewPod(pod).Requests.MilliCPU; got != 357 {
		t.Errorf("requests %dm cpu, want 357m (init 300 beside sidecar 50, overhead 7)", got)
	}
	pod.Spec.InitContainers = []v1.Container{container("50m", nil), container("30m", &always)}
	if got := NewPod(pod).Requests.MilliCPU; got != 137 {
		t.Errorf("requests %dm cpu, want 137m (container 100 beside sidecar 30, overhead 7)", got)
	}
}

// TestPriorityThenAge is the order of the queue.
func TestPriorityThenAge(t *testing.T) {
	q := NewQueue(rand.New(rand.NewPCG(1, 1)))
	start := time.Unix(1000, 0)
	for i, priority := range []int32{0, 5, 0, 5} {
		p := testPod(fmt.Sprint(i), "", "")
		p.Spec.Priority = &priority
		q.Set(NewPod(p), start.Add(time.Duration(i)*time.Second))
	}
	got := ""
	for _, p := range q.Pop(start, 10) {
		got += p.Object.Name
	}
	if got != "1302" {
		t.Errorf("order %s, want 1302", got)
	}
}

// TestQueueWaitsForWhatHelps: a refused pod waits for an event that concerns its refusal, and its back-off.
func TestQueueWaitsForWhatHelps(t *testing.T) {
	q := NewQueue(rand.New(rand.NewPCG(1, 1)))
	now := time.Unix(1000, 0)
	pod := NewPod(testPod("p", "", ""))
	q.Set(pod, now)
	refuse := func() bool {
		t.Helper()
		if got := len(q.Pop(now, 1)); got != 1 {
			t.Fatalf("popped %d pods, want 1", got)
		}
		return q.Refused(pod.UID(), &Refusal{Message: "m", Plugins: []string{pluginFit}}, now, time.Hour)
	}
	if !refuse() {
		t.Error("a new reason was not told")
	}
	q.Move(Event{Plugins: []string{pluginTaint}}, now)
	if now = now.Add(time.Minute); len(q.Pop(now, 1)) != 0 {
		t.Error("tried again after an event that cannot help")
	}
	q.Move(podGone(NewPod(testPod("other", "", "")), nil), now)
	if refuse() {
		t.Error("the same reason was told again")
	}
	q.Move(podGone(NewPod(testPod("other", "", "")), nil), now)
	if len(q.Pop(now, 1)) != 0 {
		t.Error("tried again before its back-off ended")
	}
	if at, ok := q.Next(); !ok || at.Sub(now) != 2*time.Second {
		t.Errorf("next try in %s, want the second back-off of 2s", at.Sub(now))
	}
	now = now.Add(2 * time.Second)
	q.Pop(now, 1)
	q.Move(podGone(NewPod(testPod("other", "", "")), nil), now) // while it is in flight
	q.Refused(pod.UID(), &Refusal{Message: "m", Plugins: []string{pluginFit}}, now, time.Hour)
	if now = now.Add(4 * time.Second); len(q.Pop(now, 1)) != 1 {
		t.Error("an event during the attempt was lost")
	}
}

// TestSpreadsByDefault: a controller's pods go to different zones and hosts, even where one host is emptier.
func TestSpreadsByDefault(t *testing.T) {
	cache := NewCache()
	for i, cpu := range []string{"64", "8", "8", "8"} {
		n := testNode(fmt.Sprintf("n%d", i), cpu, "64Gi", 110)
		n.Labels = map[string]string{v1.LabelHostname: n.Name, v1.LabelTopologyZone: fmt.Sprint(i % 2)}
		cache.SetNode(n)
	}
	var pods []*Pod
	for i := range 4 {
		p := testPod(fmt.Sprint(i), "1", "1Gi")
		p.OwnerReferences = []metav1.OwnerReference{{Kind: "ReplicaSet", UID: "rs", Controller: new(true)}}
		pods = append(pods, NewPod(p))
	}
	if used := nodesUsed(cache, pods, NewMemo()); used != 4 {
		t.Errorf("four pods are on %d nodes, want one on each", used)
	}
}

// nodesUsed is on how many nodes the pods would be placed.
func nodesUsed(cache *Cache, pods []*Pod, memo *Memo) int {
	used := map[string]bool{}
	for _, d := range Decide(cache.View(), pods, memo, rand.New(rand.NewPCG(1, 1))) {
		used[d.Node] = true
	}
	return len(used)
}

// TestServicesSpreadByDefault: so do pods without a controller, or with one that nobody knows, while a service selects them. What is
// remembered of a class does not outlive the service.
func TestServicesSpreadByDefault(t *testing.T) {
	cache, memo := NewCache(), NewMemo()
	for i, cpu := range []string{"64", "8", "8", "8"} {
		n := testNode(fmt.Sprintf("n%d", i), cpu, "64Gi", 110)
		n.Labels = map[string]string{v1.LabelHostname: n.Name}
		cache.SetNode(n)
	}
	var pods []*Pod
	for i := range 4 {
		p := testPod(fmt.Sprint(i), "1", "1Gi")
		p.Labels = map[string]string{"app": "web", "tier": "front"}
		pods = append(pods, NewPod(p))
	}
	service := func(name string, selector map[string]string) {
		cache.SetService(types.NamespacedName{Namespace: "default", Name: name}, selector)
	}
	for _, step := range []struct {
		name     string
		do       func()
		selected bool
	}{
		{"no service", func() {}, false},
		{"one of others", func() { service("others", map[string]string{"app": "db"}) }, false},
		{"one without a selector", func() { service("none", nil) }, false},
		{"one of theirs", func() { service("web", map[string]string{"app": "web"}) }, true},
		{"two of theirs", func() { service("front", map[string]string{"tier": "front"}) }, true},
		{"one that was theirs", func() { service("web", nil); service("front", map[string]string{"tier": "back"}) }, false},
	} {
		step.do()
		if used := nodesUsed(cache, pods, memo); (used == 4) != step.selected {
			t.Errorf("%s: four pods are on %d nodes", step.name, used)
		}
	}
}

// TestAssumptionsExpire: what was acknowledged and never seen is given back; what is not yet answered is not.
func TestAssumptionsExpire(t *testing.T) {
	cache, now := NewCache(), time.Unix(1000, 0)
	cache.SetNode(testNode("n", "4", "4Gi", 10))
	pod := NewPod(testPod("p", "1", ""))
	cache.Assume(pod, "n")
	used := func() int64 { return cache.View().Nodes[0].Requested.MilliCPU }
	if cache.Expire(now.Add(time.Hour)); used() != 1000 {
		t.Error("an unanswered binding was given back")
	}
	cache.Bound(pod.UID(), now)
	if cache.Expire(now.Add((AssumedMaxSeconds + 1) * time.Second)); used() != 0 {
		t.Error("an acknowledged binding that nobody saw was kept")
	}
}

func testNode(name, cpu, memory string, pods int) *v1.Node {
	return &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: v1.NodeStatus{Allocatable: v1.ResourceList{
		v1.ResourceCPU: apiresource.MustParse(cpu), v1.ResourceMemory: apiresource.MustParse(memory),
		v1.ResourcePods: *apiresource.NewQuantity(int64(pods), apiresource.DecimalSI)}}}
}

func testPod(name, cpu, memory string) *v1.Pod {
	requests := v1.ResourceList{}
	if cpu != "" {
		requests[v1.ResourceCPU] = apiresource.MustParse(cpu)
	}
	if memory != "" {
		requests[v1.ResourceMemory] = apiresource.MustParse(memory)
	}
	return &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(name)},
		Spec: v1.PodSpec{SchedulerName: v1.DefaultSchedulerName, Containers: []v1.Container{{Name: "c", Image: "app",
			Resources: v1.ResourceRequirements{Requests: requests}}}}}
}
