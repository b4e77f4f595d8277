package quota

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	quotav1 "k8s.io/apiserver/pkg/quota/v1"
	"k8s.io/apiserver/pkg/quota/v1/generic"

	"github.com/podvine/podvine/agent/quota"
)

// View is what a decision is made from.
type View struct {
	Quota *corev1.ResourceQuota
	// Objects of the quota's namespace by their resource: all that [Counted] names.
	Objects map[schema.GroupResource][]runtime.Object
}

// Plan is what a quota's status is to be.
type Plan struct {
	Status corev1.ResourceQuotaStatus
	// Changed says that it is not.
	Changed bool
	// Again is how long time alone changes nothing; 0 is for ever.
	Again time.Duration
}

// Counted are the resources whose objects a quota counts, in a fixed order.
func Counted(q *corev1.ResourceQuota) []schema.GroupResource {
	counted := map[schema.GroupResource]bool{}
	hard := quotav1.ResourceNames(q.Spec.Hard)
	unlisted := func(schema.GroupResource) generic.ListFuncByNamespace { return nil }
	for _, e := range quota.Evaluators(unlisted, func() time.Time { return time.Time{} }) {
		if len(e.MatchingResources(hard)) > 0 {
			counted[e.GroupResource()] = true
		}
	}
	for name := range q.Spec.Hard {
		if resource, ok := strings.CutPrefix(string(name), "count/"); ok {
			counted[schema.ParseGroupResource(resource)] = true
		}
	}
	for ignored := range quota.Uncounted() {
		delete(counted, ignored)
	}
	return slices.SortedFunc(maps.Keys(counted), func(a, b schema.GroupResource) int { return strings.Compare(a.String(), b.String()) })
}

// Decide counts. It is pure.
func Decide(v View, now time.Time) (Plan, error) {
	list := func(resource schema.GroupResource) generic.ListFuncByNamespace {
		return func(string) ([]runtime.Object, error) { return v.Objects[resource], nil }
	}
	registry := generic.NewRegistry(quota.Evaluators(list, func() time.Time { return now }))
	for _, resource := range Counted(v.Quota) {
		if registry.Get(resource) == nil {
			registry.Add(generic.NewObjectCountEvaluator(resource, list(resource), ""))
		}
	}
	q := v.Quota
	hard := quotav1.Add(corev1.ResourceList{}, q.Spec.Hard)
	used, err := quotav1.CalculateUsage(q.Namespace, q.Spec.Scopes, hard, registry, q.Spec.ScopeSelector)
	if err != nil {
		return Plan{}, fmt.Errorf("count what quota %s/%s limits: %w", q.Namespace, q.Name, err)
	}
	// What nothing here counts keeps the number that somebody else gave it.
	p := Plan{Status: corev1.ResourceQuotaStatus{Hard: hard, Used: quotav1.Mask(q.Status.Used, quotav1.ResourceNames(hard))}}
	maps.Copy(p.Status.Used, used)
	p.Changed = !quotav1.Equals(hard, q.Status.Hard) || !quotav1.Equals(p.Status.Used, q.Status.Used)
	for _, o := range v.Objects[corev1.Resource("pods")] {
		until, ends := quota.RunsUntil(o.(*corev1.Pod))
		if left := until.Sub(now); ends && left > 0 && (p.Again == 0 || left < p.Again) {
			p.Again = left
		}
	}
	return p, nil
}
