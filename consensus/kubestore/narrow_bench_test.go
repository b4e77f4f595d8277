package kubestore

import (
	"context"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/storage"
)

// BenchmarkWatchNarrow is what a write costs while 10,000 watches are about other objects, namespaces or nodes than its own;
// the one that is about it gets it.
func BenchmarkWatchNarrow(b *testing.B) {
	for name, of := range map[string]func(i int) (key, selector string){
		"object":    func(i int) (string, string) { return fmt.Sprintf("/pods/ns-%d/pod", i), "" },
		"namespace": func(i int) (string, string) { return fmt.Sprintf("/pods/ns-%d/", i), "" },
		"node":      func(i int) (string, string) { return "/pods/", fmt.Sprintf("spec.nodeName=node-%d", i) },
	} {
		for _, watches := range []int{1, 10_000} {
			b.Run(fmt.Sprintf("by=%s/watches=%d", name, watches), func(b *testing.B) { benchmarkNarrow(b, watches, of) })
		}
	}
}

func benchmarkNarrow(b *testing.B, watches int, of func(i int) (key, selector string)) {
	b.Helper()
	s := newKinds(b, Options{}).pods(b)
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	var mine <-chan struct{}
	for i := range watches {
		key, selector := of(i)
		recursive := key[len(key)-1] == '/'
		w, err := s.Watch(ctx, key, storage.ListOptions{ResourceVersion: "1", Recursive: recursive, Predicate: storage.SelectionPredicate{
			Label: labels.Everything(), Field: fields.ParseSelectorOrDie(selector), GetAttrs: podAttributes}})
		if err != nil {
			b.Fatal(err)
		}
		got := make(chan struct{}, 1)
		go func() {
			for range w.ResultChan() {
				got <- struct{}{}
			}
		}()
		if i == 0 {
			mine = got
		}
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "pod", Namespace: "ns-0"}, Spec: corev1.PodSpec{NodeName: "node-0"}}
	b.ReportAllocs()
	begun := processorTime()
	for n := 0; b.Loop(); n++ {
		err := s.GuaranteedUpdate(ctx, "/pods/ns-0/pod", &corev1.Pod{}, true, nil, func(runtime.Object, storage.ResponseMeta) (runtime.Object, *uint64, error) {
			next := pod.DeepCopy()
			next.Annotations = map[string]string{"n": fmt.Sprint(n)}
			return next, nil, nil
		}, nil)
		if err != nil {
			b.Fatal(err)
		}
		<-mine
	}
	b.ReportMetric(float64((processorTime()-begun).Microseconds())/float64(b.N), "cpu-µs/op")
}
