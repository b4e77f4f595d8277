package admission

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/utils/ptr"
)

// signsForA lets alice sign and attest for one signer and approve for a whole domain.
func signsForA(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	if a.GetVerb() == "sign" && a.GetName() == "example.com/a" || a.GetVerb() == "approve" && a.GetName() == "example.com/*" ||
		a.GetVerb() == "attest" && a.GetName() == "example.com/a" {
		return authorizer.DecisionAllow, "", nil
	}
	return authorizer.DecisionNoOpinion, "", nil
}

// whole is the chain of a server that serves every kind.
func whole(t *testing.T, objects ...runtime.Object) func(schema.GroupVersionResource, string, admission.Operation, runtime.Object, runtime.Object) error {
	t.Helper()
	client := fake.NewClientset(append(objects, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}})...)
	factory := informers.NewSharedInformerFactory(client, 0)
	config := Config{Client: client, Informers: factory, Authorizer: authorizer.AuthorizerFunc(signsForA), Serves: func(schema.GroupVersionResource) bool { return true }}
	c, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() { cancel(); factory.Shutdown() })
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	return func(resource schema.GroupVersionResource, sub string, operation admission.Operation, o, old runtime.Object) error {
		a := admission.NewAttributesRecord(o, old, schema.GroupVersionKind{}, "ns", "x", resource, sub, operation, nil, false, &user.DefaultInfo{Name: "alice"})
		if err := c.Admit(ctx, a, nil); err != nil {
			return err
		}
		return c.Validate(ctx, a, nil)
	}
}

func TestDefaultClasses(t *testing.T) {
	class := func(name string, age time.Duration, annotation string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(time.Unix(1_000_000, 0).Add(-age)), Annotations: map[string]string{annotation: "true"}}
	}
	admit := whole(t,
		&storagev1.StorageClass{ObjectMeta: class("old", time.Hour, "storageclass.kubernetes.io/is-default-class")},
		&storagev1.StorageClass{ObjectMeta: class("b", 0, "storageclass.beta.kubernetes.io/is-default-class"), AllowVolumeExpansion: ptr.To(true)},
		&storagev1.StorageClass{ObjectMeta: class("c", 0, "storageclass.kubernetes.io/is-default-class")},
		&storagev1.StorageClass{ObjectMeta: class("none", -time.Hour, "other")},
		&networkingv1.IngressClass{ObjectMeta: class("front", time.Hour, networkingv1.AnnotationIsDefaultIngressClass)},
		&networkingv1.IngressClass{ObjectMeta: class("back", 0, networkingv1.AnnotationIsDefaultIngressClass)},
	)
	claims, ingresses := corev1.SchemeGroupVersion.WithResource("persistentvolumeclaims"), networkingv1.SchemeGroupVersion.WithResource("ingresses")
	claim := &corev1.PersistentVolumeClaim{}
	if err := admit(claims, "", admission.Create, claim, nil); err != nil || claim.Spec.StorageClassName == nil || *claim.Spec.StorageClassName != "b" {
		t.Errorf("claim: %v %v", claim.Spec.StorageClassName, err)
	}
	claim = &corev1.PersistentVolumeClaim{Spec: corev1.PersistentVolumeClaimSpec{StorageClassName: ptr.To("")}}
	if err := admit(claims, "", admission.Create, claim, nil); err != nil || *claim.Spec.StorageClassName != "" {
		t.Errorf("claim without a class: %v %v", *claim.Spec.StorageClassName, err)
	}
	ingress := &networkingv1.Ingress{}
	if err := admit(ingresses, "", admission.Create, ingress, nil); err != nil || ingress.Spec.IngressClassName == nil || *ingress.Spec.IngressClassName != "back" {
		t.Errorf("ingress: %v %v", ingress.Spec.IngressClassName, err)
	}
	ingress = &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{ingressClassAnnotation: "mine"}}}
	if err := admit(ingresses, "", admission.Create, ingress, nil); err != nil || ingress.Spec.IngressClassName != nil {
		t.Errorf("annotated ingress: %v %v", ingress.Spec.IngressClassName, err)
	}
	sized := func(class, size string, phase corev1.PersistentVolumeClaimPhase) *corev1.PersistentVolumeClaim {
		return &corev1.PersistentVolumeClaim{Spec: corev1.PersistentVolumeClaimSpec{StorageClassName: &class, Resources: corev1.VolumeResourceRequirements{
			Requests: corev1.ResourceList{"storage": resource.MustParse(size)}}}, Status: corev1.PersistentVolumeClaimStatus{Phase: phase}}
	}
	for name, test := range map[string]struct {
		old, new *corev1.PersistentVolumeClaim
		want     string
	}{
		"grows":              {sized("b", "1Gi", corev1.ClaimBound), sized("b", "2Gi", corev1.ClaimBound), ""},
		"shrinks":            {sized("c", "2Gi", corev1.ClaimBound), sized("c", "1Gi", corev1.ClaimBound), ""},
		"is not bound":       {sized("b", "1Gi", corev1.ClaimPending), sized("b", "2Gi", corev1.ClaimPending), "Only bound persistent volume claims can be expanded"},
		"class cannot":       {sized("c", "1Gi", corev1.ClaimBound), sized("c", "2Gi", corev1.ClaimBound), "the storageclass that provisions the pvc must support resize"},
		"class is not there": {sized("gone", "1Gi", corev1.ClaimBound), sized("gone", "2Gi", corev1.ClaimBound), "must support resize"},
	} {
		err := admit(claims, "", admission.Update, test.new, test.old)
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}

func TestTopologyLabels(t *testing.T) {
	admit := whole(t, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default", Namespace: "ns"}},
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{corev1.LabelTopologyZone: "z", corev1.LabelHostname: "n"}}})
	pods := corev1.SchemeGroupVersion.WithResource("pods")
	binding := &corev1.Binding{Target: corev1.ObjectReference{Kind: "Node", Name: "n"}}
	if err := admit(pods, "binding", admission.Create, binding, nil); err != nil || len(binding.Labels) != 1 || binding.Labels[corev1.LabelTopologyZone] != "z" {
		t.Errorf("binding: %v %v", binding.Labels, err)
	}
	pod := newPod(func(p *corev1.Pod) { p.Spec.NodeName = "n" })
	if err := admit(pods, "", admission.Create, pod, nil); err != nil || pod.Labels[corev1.LabelTopologyZone] != "z" {
		t.Errorf("pod: %v %v", pod.Labels, err)
	}
	binding = &corev1.Binding{Target: corev1.ObjectReference{Name: "absent"}}
	if err := admit(pods, "binding", admission.Create, binding, nil); err != nil || len(binding.Labels) != 0 {
		t.Errorf("binding to nowhere: %v %v", binding.Labels, err)
	}
}

func TestCertificates(t *testing.T) {
	admit := whole(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	request := func(signer string, groups ...string) *certificatesv1.CertificateSigningRequest {
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{Organization: groups}}, key)
		if err != nil {
			t.Fatal(err)
		}
		return &certificatesv1.CertificateSigningRequest{Spec: certificatesv1.CertificateSigningRequestSpec{SignerName: signer,
			Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})}}
	}
	signed := func(signer string) *certificatesv1.CertificateSigningRequest {
		r := request(signer)
		r.Status.Certificate = []byte("PEM")
		return r
	}
	const client = certificatesv1.KubeAPIServerClientSignerName
	for name, test := range map[string]struct {
		sub       string
		operation admission.Operation
		new, old  *certificatesv1.CertificateSigningRequest
		want      string
	}{
		"a master":         {"", admission.Create, request(client, "system:masters"), nil, "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"},
		"another group":    {"", admission.Create, request(client, "dev"), nil, ""},
		"another signer":   {"", admission.Create, request("example.com/a", "system:masters"), nil, ""},
		"approve":          {"approval", admission.Update, request("example.com/b"), request("example.com/b"), ""},
		"approve another":  {"approval", admission.Update, request("other.com/b"), request("other.com/b"), `user not permitted to approve requests with signerName "other.com/b"`},
		"sign":             {"status", admission.Update, signed("example.com/a"), request("example.com/a"), ""},
		"sign for another": {"status", admission.Update, signed("example.com/b"), request("example.com/b"), `user not permitted to sign requests with signerName "example.com/b"`},
		"nothing signed":   {"status", admission.Update, request("example.com/b"), request("example.com/b"), ""},
	} {
		var old runtime.Object
		if test.old != nil {
			old = test.old
		}
		err := admit(certificatesv1.SchemeGroupVersion.WithResource("certificatesigningrequests"), test.sub, test.operation, test.new, old)
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}

// Trust anchors of a signer are written by who may attest for it, those of none by everybody.
func TestTrustBundlesAreAttested(t *testing.T) {
	admit := whole(t)
	for signer, want := range map[string]string{"": "", "example.com/a": "", "example.com/b": `user not permitted to attest for signerName "example.com/b"`} {
		bundle := &certificatesv1.ClusterTrustBundle{Spec: certificatesv1.ClusterTrustBundleSpec{SignerName: signer}}
		for _, operation := range []admission.Operation{admission.Create, admission.Update} {
			err := admit(certificatesv1.SchemeGroupVersion.WithResource("clustertrustbundles"), "", operation, bundle, bundle)
			if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
				t.Errorf("%q %s: %v, want %q", signer, operation, err, want)
			}
		}
	}
}
