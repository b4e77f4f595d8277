package nodeauth

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

func testPod(name, node string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns"},
		Spec: corev1.PodSpec{
			NodeName: node, ServiceAccountName: "sa",
			ImagePullSecrets: []corev1.LocalObjectReference{{Name: "pull"}},
			Containers: []corev1.Container{{Name: "c", EnvFrom: []corev1.EnvFromSource{
				{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "env"}}}}}},
			Volumes: []corev1.Volume{
				{Name: "s", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "mounted"}}},
				{Name: "c", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "claim"}}},
			},
		},
	}
}

func newTestAuthorizer() *Authorizer {
	a := &Authorizer{graph: newGraph(), rules: []rbacv1.PolicyRule{
		{Verbs: []string{"get", "list", "watch"}, APIGroups: []string{""}, Resources: []string{"services"}}}}
	a.graph.setPod(testPod("pod", "n1"))
	a.graph.setVolume(&corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv"}, Spec: corev1.PersistentVolumeSpec{
		ClaimRef: &corev1.ObjectReference{Namespace: "ns", Name: "claim"},
		PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{
			NodeStageSecretRef: &corev1.SecretReference{Namespace: "storage", Name: "stage"}}}}})
	a.graph.setAttachment(&storagev1.VolumeAttachment{ObjectMeta: metav1.ObjectMeta{Name: "va"}, Spec: storagev1.VolumeAttachmentSpec{NodeName: "n1"}})
	return a
}

func as(node string) user.Info {
	return &user.DefaultInfo{Name: "system:node:" + node, Groups: []string{"system:nodes"}}
}

func ask(verb, resource, namespace, name string) authorizer.AttributesRecord {
	return authorizer.AttributesRecord{Verb: verb, Resource: resource, Namespace: namespace, Name: name, ResourceRequest: true}
}

func sub(r authorizer.AttributesRecord, subresource string) authorizer.AttributesRecord {
	r.Subresource = subresource
	return r
}

func in(group string, r authorizer.AttributesRecord) authorizer.AttributesRecord {
	r.APIGroup = group
	return r
}

func onNode(r authorizer.AttributesRecord, node string) authorizer.AttributesRecord {
	r.FieldSelectorRequirements = fields.Requirements{{Field: "spec.nodeName", Operator: selection.Equals, Value: node}}
	return r
}

func TestDecisions(t *testing.T) {
	a := newTestAuthorizer()
	const none = "no relationship found between node 'n2' and this object"
	for _, c := range []struct {
		node   string
		attrs  authorizer.AttributesRecord
		reason string // "+" is allowed
	}{
		{"n1", ask("get", "secrets", "ns", "mounted"), "+"},
		{"n1", ask("watch", "secrets", "ns", "pull"), "+"},
		{"n1", ask("get", "secrets", "storage", "stage"), "+"},
		{"n1", ask("get", "configmaps", "ns", "env"), "+"},
		{"n1", ask("get", "persistentvolumeclaims", "ns", "claim"), "+"},
		{"n1", ask("get", "persistentvolumes", "", "pv"), "+"},
		{"n1", in("storage.k8s.io", ask("get", "volumeattachments", "", "va")), "+"},
		{"n1", ask("get", "pods", "ns", "pod"), "+"},
		{"n1", sub(ask("create", "serviceaccounts", "ns", "sa"), "token"), "+"},
		{"n2", ask("get", "secrets", "ns", "mounted"), none},
		{"n2", ask("get", "secrets", "storage", "stage"), none},
		{"n2", ask("get", "persistentvolumes", "", "pv"), none},
		{"n2", ask("get", "pods", "ns", "pod"), none},
		{"n2", sub(ask("create", "serviceaccounts", "ns", "sa"), "token"), none},
		{"n1", ask("list", "secrets", "ns", ""), "No Object name found"},
		{"n1", ask("list", "secrets", "", ""), "can only read namespaced object of this type"},
		{"n1", ask("delete", "configmaps", "ns", "env"), "can only read resources of this type"},
		{"n1", ask("list", "persistentvolumes", "", ""), "can only get individual resources of this type"},
		{"n1", ask("list", "pods", "", ""), "can only list/watch pods with spec.nodeName field selector"},
		{"n1", onNode(ask("list", "pods", "", ""), "n2"), "can only list/watch pods with spec.nodeName field selector"},
		{"n1", onNode(ask("watch", "pods", "", ""), "n1"), "+"},
		{"n1", sub(ask("patch", "pods", "ns", "pod"), "status"), "+"},
		{"n1", sub(ask("get", "pods", "ns", "pod"), "log"), ""},
		{"n1", ask("get", "nodes", "", "n1"), "+"},
		{"n1", ask("get", "nodes", "", "n2"), "node 'n1' cannot read 'n2', only its own Node object"},
		{"n1", ask("list", "nodes", "", ""), "node 'n1' cannot read all nodes, only its own Node object"},
		{"n1", sub(ask("update", "nodes", "", "n1"), "status"), "+"},
		{"n1", in("coordination.k8s.io", ask("update", "leases", "kube-node-lease", "n1")), "+"},
		{"n1", in("coordination.k8s.io", ask("update", "leases", "kube-node-lease", "n2")), "can only access node lease with the same name as the requesting node"},
		{"n1", in("coordination.k8s.io", ask("update", "leases", "ns", "n1")), `can only access leases in the "kube-node-lease" system namespace`},
		{"n1", ask("list", "services", "", ""), "+"},
		{"n1", in("apps", ask("list", "deployments", "", "")), ""},
	} {
		c.attrs.User = as(c.node)
		decision, reason, err := a.Authorize(context.Background(), c.attrs)
		allowed := decision == authorizer.DecisionAllow
		if err != nil || decision == authorizer.DecisionDeny || allowed != (c.reason == "+") || !allowed && reason != c.reason {
			t.Errorf("%s %s %s/%s of %s: %v %q, want %q", c.node, c.attrs.Verb, c.attrs.Resource, c.attrs.Subresource, c.attrs.Name, decision, reason, c.reason)
		}
	}
}

func TestOthersAreNoneOfItsBusiness(t *testing.T) {
	a := newTestAuthorizer()
	for _, u := range []user.Info{&user.DefaultInfo{Name: "system:node:n1"}, &user.DefaultInfo{Name: "n1", Groups: []string{"system:nodes"}}} {
		r := ask("get", "secrets", "ns", "mounted")
		r.User = u
		if decision, reason, _ := a.Authorize(context.Background(), r); decision != authorizer.DecisionNoOpinion || reason != "" {
			t.Errorf("%v: %v %q", u, decision, reason)
		}
	}
}

func TestGraphForgets(t *testing.T) {
	g := newGraph()
	secret := key{secrets, "ns", "mounted"}
	g.setPod(testPod("a", "n1"))
	g.setPod(testPod("b", "n1"))
	g.withdraw(key{pods, "ns", "a"})
	if !g.needs("n1", secret) {
		t.Error("the second pod needs the secret still")
	}
	moved := testPod("b", "n2")
	g.setPod(moved)
	if g.needs("n1", secret) || !g.needs("n2", secret) {
		t.Error("the pod is elsewhere now")
	}
	moved.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
	g.setPod(moved)
	if g.needs("n2", secret) {
		t.Error("a mirror pod opened a secret")
	}
	g.withdraw(podKey(moved))
	if len(g.declared) != 0 || len(g.users) != 0 {
		t.Errorf("left over: %v %v", g.declared, g.users)
	}
}
