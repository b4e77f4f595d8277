package pods

import (
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestFromTemplate(t *testing.T) {
	template := &v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Name: "ignored", Labels: map[string]string{"a": "b"},
		Annotations: map[string]string{"c": "d"}, Finalizers: []string{"example.com/f"}}}
	owner := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web-1", UID: "u"}}
	pod := FromTemplate(template, owner, appsv1.SchemeGroupVersion.WithKind("ReplicaSet"))
	ref := pod.OwnerReferences[0]
	if pod.Name != "" || pod.GenerateName != "web-1-" || pod.Namespace != "ns" || pod.Labels["a"] != "b" || pod.Annotations["c"] != "d" ||
		len(pod.Finalizers) != 1 || ref.UID != "u" || !*ref.Controller || !*ref.BlockOwnerDeletion || ref.APIVersion != "apps/v1" {
		t.Errorf("pod %+v", pod.ObjectMeta)
	}
	pod.Labels["a"] = "changed"
	if template.Labels["a"] != "b" {
		t.Error("the pod shares its labels with the template")
	}
	owner.Name = strings.Repeat("x", 253)
	if got := FromTemplate(template, owner, appsv1.SchemeGroupVersion.WithKind("ReplicaSet")).GenerateName; got != owner.Name {
		t.Errorf("generate name of %d bytes, want the owner's own", len(got))
	}
}

func TestStates(t *testing.T) {
	leaving := &metav1.Time{Time: time.Unix(1, 0)}
	for _, test := range []struct {
		pod                 v1.Pod
		active, terminating bool
	}{
		{pod: v1.Pod{Status: v1.PodStatus{Phase: v1.PodPending}}, active: true},
		{pod: v1.Pod{Status: v1.PodStatus{Phase: v1.PodFailed}}},
		{pod: v1.Pod{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: leaving}}, terminating: true},
		{pod: v1.Pod{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: leaving}, Status: v1.PodStatus{Phase: v1.PodSucceeded}}},
	} {
		if Active(&test.pod) != test.active || Terminating(&test.pod) != test.terminating {
			t.Errorf("%s, deleted %v: active %v, terminating %v", test.pod.Status.Phase, test.pod.DeletionTimestamp, Active(&test.pod), Terminating(&test.pod))
		}
	}
}

func TestDeletionCost(t *testing.T) {
	for text, want := range map[string]int32{"": 0, "7": 7, "-7": -7, "x": 0, "99999999999": 0} {
		pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{v1.PodDeletionCost: text}}}
		if got := DeletionCost(pod); got != want {
			t.Errorf("cost of %q is %d, want %d", text, got, want)
		}
	}
}
