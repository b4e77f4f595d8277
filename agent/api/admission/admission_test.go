package admission

import (
	"context"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/utils/ptr"
)

func objectMeta(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Name: name, Namespace: "ns"} }

// chain is the whole chain over a small cluster.
func chain(t *testing.T) admission.Interface {
	t.Helper()
	client := fake.NewClientset(
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "strict", Labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"}}},
		&corev1.ServiceAccount{ObjectMeta: objectMeta("default"), ImagePullSecrets: []corev1.LocalObjectReference{{Name: "pull"}}},
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default", Namespace: "strict"}},
		&corev1.ServiceAccount{ObjectMeta: objectMeta("quiet"), AutomountServiceAccountToken: ptr.To(false)},
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "narrow", Namespace: "ns", Annotations: map[string]string{enforceSecrets: "true"}},
			Secrets: []corev1.ObjectReference{{Name: "mine"}}},
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", UID: "n1-uid"}},
		&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "on-n1", Namespace: "ns", UID: "pod-uid"}, Spec: corev1.PodSpec{NodeName: "n1"}},
		&schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "high"}, Value: 1000, PreemptionPolicy: ptr.To(corev1.PreemptNever)},
		&nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: "plain"}, Handler: "runc"},
		&nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: "sandboxed"}, Handler: "runsc",
			Overhead: &nodev1.Overhead{PodFixed: corev1.ResourceList{"cpu": resource.MustParse("10m")}},
			Scheduling: &nodev1.Scheduling{NodeSelector: map[string]string{"sandbox": "yes"},
				Tolerations: []corev1.Toleration{{Key: "sandbox", Operator: corev1.TolerationOpExists}}}},
	)
	factory := informers.NewSharedInformerFactory(client, 0)
	c, err := New(Config{Client: client, Informers: factory, Authorizer: authorizerfactory.NewAlwaysAllowAuthorizer()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() { cancel(); factory.Shutdown() })
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	return c
}

type request struct {
	operation       admission.Operation
	resource, sub   string
	namespace, name string
	object, old     runtime.Object
	node            string // the request is that of a node
}

// admit runs both halves of the chain.
func admit(c admission.Interface, r request) error {
	u := &user.DefaultInfo{Name: "alice"}
	if r.node != "" {
		u = &user.DefaultInfo{Name: "system:node:" + r.node, Groups: []string{"system:nodes"}}
	}
	gvr := schema.GroupVersionResource{Version: "v1", Resource: r.resource}
	if r.resource == "priorityclasses" {
		gvr.Group = "scheduling.k8s.io"
	}
	a := admission.NewAttributesRecord(r.object, r.old, schema.GroupVersionKind{Version: "v1", Kind: "X"}, r.namespace, r.name, gvr, r.sub, r.operation, nil, false, u)
	if m, ok := c.(admission.MutationInterface); ok {
		if err := m.Admit(context.Background(), a, nil); err != nil {
			return err
		}
	}
	if v, ok := c.(admission.ValidationInterface); ok {
		return v.Validate(context.Background(), a, nil)
	}
	return nil
}

func newPod(edit func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: objectMeta("p"), Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	if edit != nil {
		edit(p)
	}
	return p
}

func TestNewPodIsCompleted(t *testing.T) {
	p := newPod(nil)
	if err := admit(chain(t), request{admission.Create, "pods", "", "ns", "p", p, nil, ""}); err != nil {
		t.Fatal(err)
	}
	s := p.Spec
	if s.ServiceAccountName != "default" || s.ImagePullSecrets[0].Name != "pull" || *s.Priority != 0 || *s.PreemptionPolicy != corev1.PreemptLowerPriority {
		t.Errorf("%+v", s)
	}
	if len(s.Tolerations) != 2 || *s.Tolerations[0].TolerationSeconds != DefaultTolerationSeconds {
		t.Errorf("tolerations %v", s.Tolerations)
	}
	mount := s.Containers[0].VolumeMounts[0]
	if len(s.Volumes) != 1 || !strings.HasPrefix(mount.Name, "kube-api-access-") || mount.MountPath != tokenMountPath || !mount.ReadOnly ||
		*s.Volumes[0].Projected.Sources[0].ServiceAccountToken.ExpirationSeconds != 3607 {
		t.Errorf("volumes %v, mount %v", s.Volumes, mount)
	}
}

func TestTokenIsMountedOnlyWhereWanted(t *testing.T) {
	c := chain(t)
	for name, edit := range map[string]func(*corev1.Pod){
		"account says no": func(p *corev1.Pod) { p.Spec.ServiceAccountName = "quiet" },
		"pod says no":     func(p *corev1.Pod) { p.Spec.AutomountServiceAccountToken = ptr.To(false) },
		"path is taken": func(p *corev1.Pod) {
			p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "own", MountPath: tokenMountPath}}
		},
	} {
		p := newPod(edit)
		if err := admit(c, request{admission.Create, "pods", "", "ns", "p", p, nil, ""}); err != nil || len(p.Spec.Volumes) != 0 {
			t.Errorf("%s: %v %v", name, p.Spec.Volumes, err)
		}
	}
}

func TestRefusedPods(t *testing.T) {
	c := chain(t)
	for name, test := range map[string]struct {
		edit func(*corev1.Pod)
		want string
	}{
		"absent account": {func(p *corev1.Pod) { p.Spec.ServiceAccountName = "absent" }, `error looking up service account ns/absent: serviceaccount "absent" not found`},
		"foreign secret": {func(p *corev1.Pod) {
			p.Spec.ServiceAccountName = "narrow"
			p.Spec.Volumes = []corev1.Volume{{Name: "s", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "other"}}}}
		}, `volume with secret.secretName="other" is not allowed because service account narrow does not reference that secret`},
		"absent priority": {func(p *corev1.Pod) { p.Spec.PriorityClassName = "absent" }, "no PriorityClass with name absent was found"},
		"own priority":    {func(p *corev1.Pod) { p.Spec.Priority = ptr.To[int32](5) }, "the integer value of priority (5) must not be provided in pod spec; priority admission controller computed 0"},
		"own preemption": {func(p *corev1.Pod) {
			p.Spec.PriorityClassName, p.Spec.PreemptionPolicy = "high", ptr.To(corev1.PreemptLowerPriority)
		}, "the string value of PreemptionPolicy (PreemptLowerPriority) must not be provided"},
		"runtime class": {func(p *corev1.Pod) { p.Spec.RuntimeClassName = ptr.To("gv") }, `pod rejected: RuntimeClass "gv" not found`},
		"overhead": {func(p *corev1.Pod) {
			p.Spec.Overhead = corev1.ResourceList{"cpu": resource.MustParse("1")}
		}, "Pod Overhead set without corresponding RuntimeClass defined Overhead"},
	} {
		err := admit(c, request{admission.Create, "pods", "", "ns", "p", newPod(test.edit), nil, ""})
		if err == nil || !strings.HasPrefix(err.Error(), `pods "p" is forbidden: `) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	strict := newPod(func(p *corev1.Pod) { p.Namespace = "strict" })
	if err := admit(c, request{admission.Create, "pods", "", "strict", "p", strict, nil, ""}); err == nil || !strings.Contains(err.Error(), `violates PodSecurity "restricted:latest"`) {
		t.Errorf("restricted namespace: %v", err)
	}
	if err := admit(c, request{admission.Create, "pods", "", "absent", "p", newPod(nil), nil, ""}); err == nil || !strings.Contains(err.Error(), `namespaces "absent" not found`) {
		t.Errorf("absent namespace: %v", err)
	}
}

func TestNodesAreTaintedAtBirth(t *testing.T) {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n2"}}
	if err := admit(chain(t), request{admission.Create, "nodes", "", "", "n2", n, nil, ""}); err != nil || len(n.Spec.Taints) != 1 || n.Spec.Taints[0].Key != corev1.TaintNodeNotReady {
		t.Errorf("%v %v", n.Spec.Taints, err)
	}
}

func TestOnlyOneDefaultClass(t *testing.T) {
	first := &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "first"}, GlobalDefault: true, Value: 7}
	client := fake.NewClientset(first)
	factory := informers.NewSharedInformerFactory(client, 0)
	p := newPriority(client, factory)
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() { cancel(); factory.Shutdown() })
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	second := &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "second"}, GlobalDefault: true}
	if err := admit(p, request{admission.Update, "priorityclasses", "", "", "first", first, first, ""}); err != nil {
		t.Errorf("the first stays: %v", err)
	}
	if err := admit(p, request{admission.Create, "priorityclasses", "", "", "second", second, nil, ""}); err == nil || !strings.Contains(err.Error(), "PriorityClass first is already marked as default") {
		t.Errorf("the second: %v", err)
	}
	pod := newPod(nil)
	if err := admit(p, request{admission.Create, "pods", "", "ns", "p", pod, nil, ""}); err != nil || *pod.Spec.Priority != 7 || pod.Spec.PriorityClassName != "first" {
		t.Errorf("%+v %v", pod.Spec, err)
	}
}

func TestNodesKeepToTheirOwn(t *testing.T) {
	c := chain(t)
	mirror := newPod(func(p *corev1.Pod) {
		p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
		p.Spec.NodeName = "n1"
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: "n1", UID: "n1-uid", Controller: ptr.To(true)}}
	})
	node := func(edit func(*corev1.Node)) *corev1.Node {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}
		edit(n)
		return n
	}
	same := func(*corev1.Node) {}
	token := func() *authenticationv1.TokenRequest {
		return &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{BoundObjectRef: &authenticationv1.BoundObjectReference{
			APIVersion: "v1", Kind: "Pod", Name: "on-n1", UID: "pod-uid"}}}
	}
	for name, test := range map[string]struct {
		request request
		want    string
	}{
		"mirror pod":         {request{admission.Create, "pods", "", "ns", "p", mirror.DeepCopy(), nil, "n1"}, ""},
		"mirror of another":  {request{admission.Create, "pods", "", "ns", "p", mirror.DeepCopy(), nil, "n2"}, "can only create pods with spec.nodeName set to itself"},
		"ordinary pod":       {request{admission.Create, "pods", "", "ns", "p", newPod(nil), nil, "n1"}, "can only create mirror pods"},
		"own pod deleted":    {request{admission.Delete, "pods", "", "ns", "on-n1", nil, nil, "n1"}, ""},
		"other's deleted":    {request{admission.Delete, "pods", "", "ns", "on-n1", nil, nil, "n2"}, "can only delete pods with spec.nodeName set to itself"},
		"own node":           {request{admission.Update, "nodes", "", "", "n1", node(same), node(same), "n1"}, ""},
		"another node":       {request{admission.Update, "nodes", "", "", "n1", node(same), node(same), "n2"}, `node "n2" is not allowed to modify node "n1"`},
		"own taints":         {request{admission.Update, "nodes", "", "", "n1", node(func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{{Key: "a"}} }), node(same), "n1"}, "not allowed to modify taints"},
		"restricted label":   {request{admission.Update, "nodes", "", "", "n1", node(func(n *corev1.Node) { n.Labels = map[string]string{"node-restriction.kubernetes.io/a": "b"} }), node(same), "n1"}, "is not allowed to modify labels: node-restriction.kubernetes.io/a"},
		"kubelet's label":    {request{admission.Update, "nodes", "", "", "n1", node(func(n *corev1.Node) { n.Labels = map[string]string{corev1.LabelHostname: "b"} }), node(same), "n1"}, ""},
		"token of a pod":     {request{admission.Create, "serviceaccounts", "token", "ns", "sa", token(), nil, "n1"}, ""},
		"other node's token": {request{admission.Create, "serviceaccounts", "token", "ns", "sa", token(), nil, "n2"}, "bound to a pod scheduled on a different node"},
		"unbound token":      {request{admission.Create, "serviceaccounts", "token", "ns", "sa", &authenticationv1.TokenRequest{}, nil, "n1"}, "not bound to a pod"},
	} {
		err := admit(c, test.request)
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}

func TestRuntimeClassCompletesAPod(t *testing.T) {
	p := newPod(func(p *corev1.Pod) {
		p.Spec.RuntimeClassName = ptr.To("sandboxed")
		p.Spec.NodeSelector = map[string]string{"disk": "fast", "sandbox": "yes"}
	})
	if err := admit(chain(t), request{admission.Create, "pods", "", "ns", "p", p, nil, ""}); err != nil {
		t.Fatal(err)
	}
	s := p.Spec
	if !s.Overhead.Cpu().Equal(resource.MustParse("10m")) || len(s.NodeSelector) != 2 ||
		s.Tolerations[len(s.Tolerations)-1].Key != "sandbox" {
		t.Errorf("overhead %v, node selector %v, tolerations %v", s.Overhead, s.NodeSelector, s.Tolerations)
	}
}

func TestRuntimeClassRefusesWhatContradictsIt(t *testing.T) {
	c := chain(t)
	for name, edit := range map[string]func(*corev1.PodSpec){
		`RuntimeClass "absent" not found`: func(s *corev1.PodSpec) { s.RuntimeClassName = ptr.To("absent") },
		"Pod's Overhead doesn't match RuntimeClass's defined Overhead": func(s *corev1.PodSpec) {
			s.RuntimeClassName, s.Overhead = ptr.To("sandboxed"), corev1.ResourceList{"cpu": resource.MustParse("20m")}
		},
		"Pod Overhead set without corresponding RuntimeClass defined Overhead": func(s *corev1.PodSpec) {
			s.RuntimeClassName, s.Overhead = ptr.To("plain"), corev1.ResourceList{"cpu": resource.MustParse("20m")}
		},
		"conflict: runtimeClass.scheduling.nodeSelector[sandbox] = yes; pod.spec.nodeSelector[sandbox] = no": func(s *corev1.PodSpec) {
			s.RuntimeClassName, s.NodeSelector = ptr.To("sandboxed"), map[string]string{"sandbox": "no"}
		},
	} {
		p := newPod(func(p *corev1.Pod) { edit(&p.Spec) })
		if err := admit(c, request{admission.Create, "pods", "", "ns", "p", p, nil, ""}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want %s", err, name)
		}
	}
}
