package kubestore

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/component-base/metrics/legacyregistry"
)

// requests are the requests counted so far by operation, of ConfigMaps.
func requests(t *testing.T, metric string) map[string]float64 {
	t.Helper()
	families, err := legacyregistry.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]float64{}
	for _, family := range families {
		if family.GetName() != metric {
			continue
		}
		for _, m := range family.Metric {
			labels := map[string]string{}
			for _, l := range m.Label {
				labels[l.GetName()] = l.GetValue()
			}
			if labels["resource"] == "configmaps" {
				counts[labels["operation"]] = m.GetCounter().GetValue()
			}
		}
	}
	return counts
}

func TestRequestsAreMeasured(t *testing.T) {
	s := newKinds(t, Options{}).configMaps(t)
	before, failed := requests(t, "etcd_requests_total"), requests(t, "etcd_request_errors_total")
	out := &corev1.ConfigMap{}
	mustCreate(t, s, "/configmaps/ns/a", configMap("a", "1"), out)
	if err := s.Get(t.Context(), "/configmaps/ns/a", storage.GetOptions{}, out); err != nil {
		t.Fatal(err)
	}
	if err := s.Get(t.Context(), "/configmaps/ns/none", storage.GetOptions{}, out); !storage.IsNotFound(err) {
		t.Fatal(err)
	}
	if err := s.GetList(t.Context(), "/configmaps", storage.ListOptions{Recursive: true, Predicate: storage.Everything}, &corev1.ConfigMapList{}); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), "/configmaps/ns/a", out, nil, storage.ValidateAllObjectFunc, nil, storage.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	after := requests(t, "etcd_requests_total")
	for verb, want := range map[string]float64{verbCreate: 1, verbGet: 2, verbList: 1, verbDelete: 1} {
		if got := after[verb] - before[verb]; got != want {
			t.Errorf("%s: %v requests, want %v", verb, got, want)
		}
	}
	if now := requests(t, "etcd_request_errors_total")[verbGet]; now != failed[verbGet] {
		t.Errorf("an object that is not there counts as %v errors", now-failed[verbGet])
	}
}
