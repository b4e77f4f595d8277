package scheduler

import (
	"fmt"
	"math/rand/v2"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func benchmarkCache(nodes int) *Cache {
	cache := NewCache()
	for i := range nodes {
		n := testNode(fmt.Sprintf("node-%05d", i), "32", "128Gi", 110)
		n.Labels = map[string]string{v1.LabelHostname: n.Name, v1.LabelTopologyZone: fmt.Sprint(i % 3)}
		cache.SetNode(n)
	}
	return cache
}

// ask makes the pods of one kind of workload. Their number in the benchmark tells pods of one workload apart.
type ask func(made int) *v1.Pod

func plain(int) *v1.Pod {
	p := testPod("", "100m", "128Mi")
	p.Labels = map[string]string{"app": "x"}
	return p
}

// controlled pods are spread by default.
func controlled(made int) *v1.Pod {
	p := plain(made)
	p.OwnerReferences = []metav1.OwnerReference{{Kind: "ReplicaSet", UID: "x", Controller: new(true)}}
	return p
}

func different(made int) *v1.Pod {
	p := controlled(made)
	p.Labels["app"] = fmt.Sprint(made)
	p.OwnerReferences[0].UID = types.UID(p.Labels["app"])
	return p
}

func spreadOver(made int) *v1.Pod {
	p := plain(made)
	selector := &metav1.LabelSelector{MatchLabels: p.Labels}
	p.Spec.TopologySpreadConstraints = []v1.TopologySpreadConstraint{
		{TopologyKey: v1.LabelTopologyZone, LabelSelector: selector, MaxSkew: 1, WhenUnsatisfiable: v1.DoNotSchedule},
		{TopologyKey: v1.LabelHostname, LabelSelector: selector, MaxSkew: 2, WhenUnsatisfiable: v1.ScheduleAnyway}}
	return p
}

func affine(made int) *v1.Pod {
	p := plain(made)
	terms := []v1.PodAffinityTerm{{TopologyKey: v1.LabelTopologyZone, LabelSelector: &metav1.LabelSelector{MatchLabels: p.Labels}}}
	p.Spec.Affinity = &v1.Affinity{PodAffinity: &v1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: terms},
		PodAntiAffinity: &v1.PodAntiAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []v1.WeightedPodAffinityTerm{{Weight: 10,
			PodAffinityTerm: v1.PodAffinityTerm{TopologyKey: v1.LabelHostname, LabelSelector: terms[0].LabelSelector}}}}}
	return p
}

func benchmarkDecide(b *testing.B, nodes, batch int, want ask) {
	cache := benchmarkCache(nodes)
	memo, rng := NewMemo(), rand.New(rand.NewPCG(1, 1))
	made, placed := 0, 0
	for b.Loop() {
		pods := make([]*Pod, batch)
		for i := range pods {
			p := want(made)
			p.Name = fmt.Sprint(made)
			p.UID = types.UID(p.Name)
			made++
			pods[i] = NewPod(p)
		}
		for _, d := range Decide(cache.View(), pods, memo, rng) {
			if d.Refused != nil {
				b.Fatal(d.Refused.Message)
			}
			cache.Assume(d.Pod, d.Node)
			placed++
		}
		if placed > nodes*25 { // affine pods fill one zone of three
			b.StopTimer()
			for _, n := range cache.View().Nodes {
				for _, p := range n.Pods {
					cache.RemovePod(p.UID())
				}
			}
			placed = 0
			b.StartTimer()
		}
	}
	b.ReportMetric(float64(made)/b.Elapsed().Seconds(), "pods/s")
}

func BenchmarkDecide(b *testing.B) {
	for _, nodes := range []int{100, 1000, 5000} {
		for _, kind := range []struct {
			name string
			want ask
		}{{"plain", plain}, {"template", controlled}, {"spread", spreadOver}, {"affinity", affine}, {"all-different", different}} {
			b.Run(fmt.Sprintf("nodes=%d/%s", nodes, kind.name), func(b *testing.B) { benchmarkDecide(b, nodes, 256, kind.want) })
		}
	}
	b.Run("nodes=5000/template/alone", func(b *testing.B) { benchmarkDecide(b, 5000, 1, controlled) })
}

// BenchmarkPreempt makes room for pods on nodes that less important ones fill.
func BenchmarkPreempt(b *testing.B) {
	for _, nodes := range []int{100, 1000, 5000} {
		b.Run(fmt.Sprintf("nodes=%d", nodes), func(b *testing.B) {
			cache := benchmarkCache(nodes)
			for i := range nodes * 10 {
				p := testPod(fmt.Sprint("low", i), "3", "1Gi")
				p.Spec.Priority = new(int32(i % 3))
				cache.Assume(NewPod(p), fmt.Sprintf("node-%05d", i%nodes))
			}
			memo, rng, made := NewMemo(), rand.New(rand.NewPCG(1, 1)), 0
			for b.Loop() {
				p := testPod(fmt.Sprint("high", made), "4", "1Gi")
				p.Spec.Priority = new(int32(100))
				made++
				d := Decide(cache.View(), []*Pod{NewPod(p)}, memo, rng)[0]
				if d.Refused == nil || d.Refused.Preemption == nil {
					b.Fatalf("no room was made: %+v", d)
				}
			}
			b.ReportMetric(float64(made)/b.Elapsed().Seconds(), "pods/s")
		})
	}
}
