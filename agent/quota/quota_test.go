package quota

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	quotav1 "k8s.io/apiserver/pkg/quota/v1"
	"k8s.io/apiserver/pkg/quota/v1/generic"
	"k8s.io/utils/ptr"
)

func of(t *testing.T, name string) quotav1.Evaluator {
	t.Helper()
	unlisted := func(schema.GroupResource) generic.ListFuncByNamespace { return nil }
	for _, e := range Evaluators(unlisted, func() time.Time { return time.Unix(0, 0) }) {
		if e.GroupResource() == corev1.Resource(name) {
			return e
		}
	}
	t.Fatalf("no evaluator of %s", name)
	return nil
}

func amounts(pairs ...string) corev1.ResourceList {
	list := corev1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		list[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return list
}

func TestUsage(t *testing.T) {
	pod := &corev1.Pod{Spec: corev1.PodSpec{
		InitContainers: []corev1.Container{{Name: "i", Resources: corev1.ResourceRequirements{Requests: amounts("cpu", "3")}}},
		Containers: []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{
			Requests: amounts("cpu", "1", "example.com/gpu", "2", "hugepages-2Mi", "4Mi"), Limits: amounts("cpu", "2", "ephemeral-storage", "1Gi")}}}}}
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "c"}, Spec: corev1.PersistentVolumeClaimSpec{
		StorageClassName: ptr.To("gold"), Resources: corev1.VolumeResourceRequirements{Requests: amounts("storage", "2Gi")}}}
	ports := []corev1.ServicePort{{}, {}, {}}
	for name, test := range map[string]struct {
		of     string
		object runtime.Object
		want   corev1.ResourceList
	}{
		"pod": {"pods", pod, amounts("count/pods", "1", "pods", "1", "cpu", "3", "requests.cpu", "3", "limits.cpu", "2", "requests.example.com/gpu", "2",
			"hugepages-2Mi", "4Mi", "requests.hugepages-2Mi", "4Mi", "limits.ephemeral-storage", "1Gi")},
		"ended pod": {"pods", &corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodFailed}}, amounts("count/pods", "1")},
		"claim": {"persistentvolumeclaims", claim, amounts("count/persistentvolumeclaims", "1", "persistentvolumeclaims", "1", "requests.storage", "2Gi",
			"gold.storageclass.storage.k8s.io/persistentvolumeclaims", "1", "gold.storageclass.storage.k8s.io/requests.storage", "2Gi")},
		"node ports": {"services", &corev1.Service{Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, Ports: ports}},
			amounts("count/services", "1", "services", "1", "services.nodeports", "3", "services.loadbalancers", "0")},
		"load balancer without node ports": {"services", &corev1.Service{Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Ports: ports, AllocateLoadBalancerNodePorts: ptr.To(false)}},
			amounts("count/services", "1", "services", "1", "services.nodeports", "0", "services.loadbalancers", "1")},
		"secret": {"secrets", &corev1.Secret{}, amounts("count/secrets", "1", "secrets", "1")},
	} {
		got, err := of(t, test.of).Usage(test.object)
		if err != nil || !quotav1.Equals(got, test.want) {
			t.Errorf("%s: %v %v, want %v", name, got, err, test.want)
		}
	}
	for _, resource := range []string{"pods", "services", "persistentvolumeclaims"} {
		if _, err := of(t, resource).Usage(&corev1.Secret{}); err == nil {
			t.Errorf("%s: a secret is counted", resource)
		}
	}
}

func TestMatchingResources(t *testing.T) {
	for resource, want := range map[string]string{
		"pods":                   "requests.cpu requests.example.com/gpu hugepages-2Mi",
		"persistentvolumeclaims": "gold.storageclass.storage.k8s.io/requests.storage requests.storage",
		"services":               "services.nodeports",
	} {
		var got []string
		for _, name := range of(t, resource).MatchingResources([]corev1.ResourceName{"requests.cpu", "gold.storageclass.storage.k8s.io/requests.storage",
			"requests.storage", "services.nodeports", "requests.example.com/gpu", "hugepages-2Mi", "count/deployments.apps"}) {
			got = append(got, string(name))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %v, want %s", resource, got, want)
		}
	}
}

func TestPodsMustSayWhatIsLimited(t *testing.T) {
	pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{
		{Name: "b"}, {Name: "a", Resources: corev1.ResourceRequirements{Limits: amounts("memory", "1Gi")}},
		{Name: "c", Resources: corev1.ResourceRequirements{Requests: amounts("cpu", "1"), Limits: amounts("memory", "1Gi")}}}}}
	err := of(t, "pods").Constraints([]corev1.ResourceName{"requests.cpu", "limits.memory", "pods"}, pod)
	if err == nil || err.Error() != "must specify limits.memory for: b; requests.cpu for: a,b" {
		t.Errorf("%v", err)
	}
	pod.Spec.Resources = &corev1.ResourceRequirements{Requests: amounts("cpu", "1"), Limits: amounts("memory", "1Gi")}
	if err := of(t, "pods").Constraints([]corev1.ResourceName{"requests.cpu", "limits.memory"}, pod); err != nil {
		t.Errorf("said for the whole pod: %v", err)
	}
}

func TestScopesOfPods(t *testing.T) {
	affine := &corev1.Pod{Spec: corev1.PodSpec{Affinity: &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
		PreferredDuringSchedulingIgnoredDuringExecution: []corev1.WeightedPodAffinityTerm{{PodAffinityTerm: corev1.PodAffinityTerm{Namespaces: []string{"other"}}}}}}}}
	short := &corev1.Pod{Spec: corev1.PodSpec{ActiveDeadlineSeconds: ptr.To[int64](5), PriorityClassName: "high",
		Containers: []corev1.Container{{Resources: corev1.ResourceRequirements{Limits: amounts("cpu", "1")}}}}}
	requirement := func(scope corev1.ResourceQuotaScope, operator corev1.ScopeSelectorOperator, values ...string) corev1.ScopedResourceSelectorRequirement {
		return corev1.ScopedResourceSelectorRequirement{ScopeName: scope, Operator: operator, Values: values}
	}
	for _, test := range []struct {
		scope         corev1.ScopedResourceSelectorRequirement
		affine, short bool
	}{
		{requirement("Terminating", "Exists"), false, true},
		{requirement("NotTerminating", "Exists"), true, false},
		{requirement("BestEffort", "Exists"), true, false},
		{requirement("NotBestEffort", "Exists"), false, true},
		{requirement("CrossNamespacePodAffinity", "Exists"), true, false},
		{requirement("PriorityClass", "Exists"), false, true},
		{requirement("PriorityClass", "In", "high"), false, true},
		{requirement("PriorityClass", "NotIn", "high"), true, false},
		{requirement("PriorityClass", "DoesNotExist"), true, false},
	} {
		for pod, want := range map[*corev1.Pod]bool{affine: test.affine, short: test.short} {
			if found, err := of(t, "pods").MatchingScopes(pod, []corev1.ScopedResourceSelectorRequirement{test.scope}); err != nil || (len(found) == 1) != want {
				t.Errorf("%v: %v %v, want %v", test.scope, found, err, want)
			}
		}
	}
}
