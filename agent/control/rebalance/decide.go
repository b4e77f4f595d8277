package rebalance

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/podvine/podvine/agent/control/scheduler"
	"github.com/podvine/podvine/agent/phase"
)

// Limits of the loop.
const (
	// JoinedMinutes is how long a node counts as one that joined: long enough for some hundred pods, one at a time. It gets pods of nodes
	// that are older than it is.
	JoinedMinutes = 60
	// pauseSeconds is between two evictions: what was evicted is to run elsewhere first.
	pauseSeconds = 5
	// lastMaxSeconds is how long one replica set that does not become whole again holds back all others.
	lastMaxSeconds = 120
	// maxTried bounds the pods that the scheduler is asked about in one pass, maxCandidates those of them that are offered to the API.
	maxTried      = 64
	maxCandidates = 8
)

// View is what a decision is made on.
type View struct {
	Nodes []*v1.Node
	Pods  []*v1.Pod
	Sets  []*appsv1.ReplicaSet
	// Namespaces are the labels of namespaces; Services are the cluster's.
	Namespaces map[string]map[string]string
	Services   []*v1.Service
	// Last is the replica set that lost the last pod, at Since.
	Last  types.UID
	Since time.Time
}

// Plan is what to do next.
type Plan struct {
	// Candidates are the pods of which one is to be evicted, best first.
	Candidates []*v1.Pod
	// Again is when to look again; 0 is when a node joins.
	Again time.Duration
}

// Decide finds pods that the scheduler would now put onto a node that joined. Those of a replica set that is not whole, or has no
// second pod, stay, as do those with data on their node. A move takes a pod from an older node with at least two more pods, and at least
// one more of the same set, than where it goes: so moves come to an end. Pure.
func Decide(view View, now time.Time, rng *rand.Rand) Plan {
	joined := map[string]bool{}
	for _, n := range view.Nodes {
		if isJoined(n, now) {
			joined[n.Name] = true
		}
	}
	if len(joined) == 0 {
		return Plan{}
	}
	plan := Plan{Again: pauseSeconds * time.Second}
	sets := map[types.UID]*appsv1.ReplicaSet{}
	for _, set := range view.Sets {
		sets[set.UID] = set
	}
	if last := sets[view.Last]; last != nil && !whole(last) && now.Sub(view.Since) < lastMaxSeconds*time.Second {
		return plan
	}
	c := newCluster(view)
	tried := 0
	for _, pod := range c.fromFullest(view.Pods) {
		set := sets[controller(pod)]
		if set == nil || !whole(set) || !movable(pod) || !c.couldImprove(pod, joined) {
			continue
		}
		if tried++; tried > maxTried {
			break
		}
		if to := c.place(pod, rng); joined[to] && c.improves(pod, to) {
			if plan.Candidates = append(plan.Candidates, pod); len(plan.Candidates) == maxCandidates {
				break
			}
		}
	}
	return plan
}

// isJoined tells whether a node takes pods and came a short while ago.
func isJoined(n *v1.Node, now time.Time) bool {
	ready := slices.ContainsFunc(n.Status.Conditions, func(c v1.NodeCondition) bool { return c.Type == v1.NodeReady && c.Status == v1.ConditionTrue })
	return ready && !n.Spec.Unschedulable && n.DeletionTimestamp == nil && now.Sub(n.CreationTimestamp.Time) < JoinedMinutes*time.Minute
}

// whole tells whether a set has all its pods, and more than one.
func whole(set *appsv1.ReplicaSet) bool {
	want := int32(1)
	if set.Spec.Replicas != nil {
		want = *set.Spec.Replicas
	}
	s := set.Status
	return want > 1 && s.ObservedGeneration == set.Generation && s.Replicas == want && s.AvailableReplicas == want
}

// movable tells whether a pod runs and leaves nothing behind.
func movable(pod *v1.Pod) bool {
	return pod.DeletionTimestamp == nil && pod.Spec.NodeName != "" && pod.Status.Phase == v1.PodRunning &&
		!slices.ContainsFunc(pod.Spec.Volumes, func(v v1.Volume) bool {
			return v.EmptyDir != nil && v.EmptyDir.Medium != v1.StorageMediumMemory || v.HostPath != nil || v.PersistentVolumeClaim != nil || v.Ephemeral != nil
		})
}

func controller(pod *v1.Pod) types.UID {
	if owner := metav1.GetControllerOfNoCopy(pod); owner != nil && owner.Kind == "ReplicaSet" {
		return owner.UID
	}
	return ""
}

// cluster is the view as the scheduler sees it.
type cluster struct {
	view View
	// cache and memo are nil until the scheduler is asked: mostly the counts say that nothing is to be moved.
	cache *scheduler.Cache
	memo  *scheduler.Memo
	// pods and mates count pods by node, and by node and set.
	pods  map[string]int
	mates map[string]map[types.UID]int
	// made is when each node was.
	made map[string]time.Time
}

func newCluster(view View) *cluster {
	c := &cluster{view: view, pods: map[string]int{}, mates: map[string]map[types.UID]int{}, made: map[string]time.Time{}}
	for _, n := range view.Nodes {
		c.mates[n.Name], c.made[n.Name] = map[types.UID]int{}, n.CreationTimestamp.Time
	}
	for _, p := range view.Pods {
		if !placed(p) {
			continue
		}
		c.pods[p.Spec.NodeName]++
		if mates := c.mates[p.Spec.NodeName]; mates != nil {
			mates[controller(p)]++
		}
	}
	return c
}

func placed(pod *v1.Pod) bool { return pod.Spec.NodeName != "" && !phase.Ended(pod.Status.Phase) }

// fill gives the scheduler all that it looks at.
func (c *cluster) fill() {
	c.cache, c.memo = scheduler.NewCache(), scheduler.NewMemo()
	for _, n := range c.view.Nodes {
		c.cache.SetNode(n)
	}
	for name, labels := range c.view.Namespaces {
		c.cache.SetNamespace(name, labels, true)
	}
	for _, s := range c.view.Services {
		c.cache.SetService(types.NamespacedName{Namespace: s.Namespace, Name: s.Name}, s.Spec.Selector)
	}
	for _, p := range c.view.Pods {
		if placed(p) {
			c.cache.SetPod(scheduler.NewPod(p))
		}
	}
}

// fromFullest sorts pods by how many are on their node, the most first.
func (c *cluster) fromFullest(pods []*v1.Pod) []*v1.Pod {
	return slices.SortedFunc(slices.Values(pods), func(a, b *v1.Pod) int {
		return cmp.Or(cmp.Compare(c.pods[b.Spec.NodeName], c.pods[a.Spec.NodeName]), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
}

func (c *cluster) couldImprove(pod *v1.Pod, joined map[string]bool) bool {
	for to := range joined {
		if c.improves(pod, to) {
			return true
		}
	}
	return false
}

func (c *cluster) improves(pod *v1.Pod, to string) bool {
	from, set := pod.Spec.NodeName, controller(pod)
	return c.made[from].Before(c.made[to]) && c.pods[from] >= c.pods[to]+2 && c.mates[from][set] > c.mates[to][set]
}

// place asks the scheduler where the pod would go if it were made anew.
func (c *cluster) place(pod *v1.Pod, rng *rand.Rand) string {
	if c.cache == nil {
		c.fill()
	}
	c.cache.RemovePod(pod.UID)
	defer c.cache.SetPod(scheduler.NewPod(pod))
	fresh := pod.DeepCopy()
	fresh.Spec.NodeName, fresh.UID, fresh.Status = "", "rebalance", v1.PodStatus{}
	if decisions := scheduler.Decide(c.cache.View(), []*scheduler.Pod{scheduler.NewPod(fresh)}, c.memo, rng); decisions[0].Refused == nil {
		return decisions[0].Node
	}
	return ""
}
