package kubestore

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/storage"
	storagetesting "k8s.io/apiserver/pkg/storage/testing"
)

// benchClients is how many goroutines write at once.
const benchClients = 32

// inParallel runs work b.N times in benchClients goroutines and reports the processor time of each.
func inParallel(b *testing.B, work func(n int)) {
	b.Helper()
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	before := processorTime()
	for range benchClients {
		wg.Go(func() {
			for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
				work(int(n))
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64((processorTime()-before).Microseconds())/float64(b.N), "cpu-µs/op")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "op/s")
}

func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func benchKey(n int) string { return fmt.Sprintf("/configmaps/ns/object-%08d", n) }

func benchMap(n int) *corev1.ConfigMap {
	return configMap(fmt.Sprintf("object-%08d", n), strings.Repeat("v", 1<<10))
}

// fill creates objects 1 to n.
func fill(b *testing.B, s storage.Interface, n int) {
	b.Helper()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range benchClients {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				if err := s.Create(b.Context(), benchKey(int(i)), benchMap(int(i)), nil, 0); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkCreate(b *testing.B) {
	s := newKinds(b, Options{}).configMaps(b)
	inParallel(b, func(n int) {
		if err := s.Create(b.Context(), benchKey(n), benchMap(n), &corev1.ConfigMap{}, 0); err != nil {
			b.Error(err)
		}
	})
}

func BenchmarkUpdate(b *testing.B) {
	const objects = 1000
	s := newKinds(b, Options{}).configMaps(b)
	fill(b, s, objects)
	inParallel(b, func(n int) {
		err := s.GuaranteedUpdate(b.Context(), benchKey(1+n%objects), &corev1.ConfigMap{}, false, nil,
			func(in runtime.Object, _ storage.ResponseMeta) (runtime.Object, *uint64, error) {
				in.(*corev1.ConfigMap).Data["n"] = fmt.Sprint(n)
				return in, nil, nil
			}, nil)
		if err != nil {
			b.Error(err)
		}
	})
}

func BenchmarkGet(b *testing.B) {
	const objects = 10000
	s := newKinds(b, Options{}).configMaps(b)
	fill(b, s, objects)
	inParallel(b, func(n int) {
		if err := s.Get(b.Context(), benchKey(1+n%objects), storage.GetOptions{}, &corev1.ConfigMap{}); err != nil {
			b.Error(err)
		}
	})
}

func BenchmarkList30000(b *testing.B) {
	s := newKinds(b, Options{}).configMaps(b)
	fill(b, s, 30000)
	b.ReportAllocs()
	for b.Loop() {
		list := &corev1.ConfigMapList{}
		if err := s.GetList(b.Context(), "/configmaps", storage.ListOptions{Predicate: storage.Everything, Recursive: true}, list); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkWatchFanOut writes with 100 watchers of everything and counts events delivered.
func BenchmarkWatchFanOut(b *testing.B) {
	const watchers = 100
	s := newKinds(b, Options{}).configMaps(b)
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	var seen sync.WaitGroup
	for range watchers {
		w, err := s.Watch(ctx, "/configmaps", storage.ListOptions{Predicate: storage.Everything, Recursive: true, ResourceVersion: "1"})
		if err != nil {
			b.Fatal(err)
		}
		seen.Go(func() {
			for range b.N {
				if _, open := <-w.ResultChan(); !open {
					b.Error("watch ended")
					return
				}
			}
		})
	}
	inParallel(b, func(n int) {
		if err := s.Create(b.Context(), benchKey(n), benchMap(n), nil, 0); err != nil {
			b.Error(err)
		}
	})
	seen.Wait()
	b.ReportMetric(float64(b.N*watchers)/b.Elapsed().Seconds(), "event/s")
}

// BenchmarkPublished runs the apiserver library's own benchmark of lists.
func BenchmarkPublished(b *testing.B) {
	data := storagetesting.PrepareBenchmarkData(10, 100, 50)
	f := newFixture(b, Options{})
	if err := storagetesting.PrecreateBenchmarkPods(b.Context(), f, data); err != nil {
		b.Fatal(err)
	}
	storagetesting.RunBenchmarkStoreList(b.Context(), b, f, data, false)
}
