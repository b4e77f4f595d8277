package admission

import (
	"context"
	"slices"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"

	"github.com/podvine/podvine/agent/api/auth/nodeauth"
)

// nodeRestriction keeps a node's agent to its own node and pods.
type nodeRestriction struct {
	*admission.Handler
	client kubernetes.Interface
	pods   corelisters.PodLister
	nodes  corelisters.NodeLister
}

var _ admission.ValidationInterface = (*nodeRestriction)(nil)

func newNodeRestriction(client kubernetes.Interface, factory informers.SharedInformerFactory) *nodeRestriction {
	podInformer, nodeInformer := factory.Core().V1().Pods(), factory.Core().V1().Nodes()
	p := &nodeRestriction{
		Handler: admission.NewHandler(admission.Create, admission.Update, admission.Delete),
		client:  client, pods: podInformer.Lister(), nodes: nodeInformer.Lister(),
	}
	// Calling Informer registers both with the factory, so that it starts them.
	podsSynced, nodesSynced := podInformer.Informer().HasSynced, nodeInformer.Informer().HasSynced
	p.SetReadyFunc(func() bool { return podsSynced() && nodesSynced() })
	return p
}

// Validate refuses what is not the node's own.
func (p *nodeRestriction) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	node, ok := nodeauth.NodeName(a.GetUserInfo())
	if !ok {
		return nil
	}
	if node == "" {
		return forbidden(a, "could not determine node from user %q", a.GetUserInfo().GetName())
	}
	switch a.GetResource().GroupResource() {
	case pods():
		switch a.GetSubresource() {
		case "":
			return p.pod(ctx, node, a)
		case "status":
			return podStatus(node, a)
		case "eviction":
			return p.eviction(ctx, node, a)
		}
		return forbidden(a, "unexpected pod subresource %q, only 'status' and 'eviction' are allowed", a.GetSubresource())
	case nodes():
		return ownNode(node, a)
	case accounts():
		return p.token(ctx, node, a)
	case leases():
		return lease(node, a)
	case storageNodes():
		return storageNode(node, a)
	}
	return nil
}

func (p *nodeRestriction) findPod(ctx context.Context, namespace, name string) (*corev1.Pod, error) {
	pod, err := p.pods.Pods(namespace).Get(name)
	if apierrors.IsNotFound(err) {
		return p.client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
	}
	return pod, err
}

// refuse passes "not found" on and forbids for other errors.
func refuse(a admission.Attributes, err error) error {
	if apierrors.IsNotFound(err) {
		return err
	}
	return admission.NewForbidden(a, err)
}

func (p *nodeRestriction) pod(ctx context.Context, node string, a admission.Attributes) error {
	switch a.GetOperation() {
	case admission.Create:
		return p.mirror(ctx, node, a)
	case admission.Delete:
		pod, err := p.findPod(ctx, a.GetNamespace(), a.GetName())
		if err != nil {
			return refuse(a, err)
		}
		if pod.Spec.NodeName != node {
			return forbidden(a, "node %q can only delete pods with spec.nodeName set to itself", node)
		}
		return nil
	}
	return forbidden(a, "unexpected operation %q", a.GetOperation())
}

// mirror checks a pod that a node creates: only a picture of a static pod, owned by the node, which refers to nothing.
func (p *nodeRestriction) mirror(ctx context.Context, node string, a admission.Attributes) error {
	pod, err := object[*corev1.Pod](a)
	if err != nil {
		return err
	}
	if !isMirror(pod) {
		return forbidden(a, "pod does not have %q annotation, node %q can only create mirror pods", corev1.MirrorPodAnnotationKey, node)
	}
	if pod.Spec.NodeName != node {
		return forbidden(a, "node %q can only create pods with spec.nodeName set to itself", node)
	}
	if err := p.mirrorOwner(ctx, node, a, pod); err != nil {
		return err
	}
	used := referencesOf(pod)
	switch {
	case pod.Spec.ServiceAccountName != "":
		return forbidden(a, "node %q can not create pods that reference a service account", node)
	case used.secrets:
		return forbidden(a, "node %q can not create pods that reference secrets", node)
	case used.configMaps:
		return forbidden(a, "node %q can not create pods that reference configmaps", node)
	case used.claims:
		return forbidden(a, "node %q can not create pods that reference persistentvolumeclaims", node)
	case used.trustBundles:
		return forbidden(a, "node %q can not create pods that reference clustertrustbundles", node)
	case len(pod.Spec.ResourceClaims) > 0:
		return forbidden(a, "node %q can not create pods that reference resourceclaims", node)
	}
	return nil
}

func (p *nodeRestriction) mirrorOwner(ctx context.Context, node string, a admission.Attributes, pod *corev1.Pod) error {
	switch len(pod.OwnerReferences) {
	case 0:
		return forbidden(a, "node %q can only create pods with an owner reference set to itself", node)
	case 1:
	default:
		return forbidden(a, "node %q can only create pods with a single owner reference set to itself", node)
	}
	owner := pod.OwnerReferences[0]
	switch {
	case owner.APIVersion != "v1" || owner.Kind != "Node" || owner.Name != node:
		return forbidden(a, "node %q can only create pods with an owner reference set to itself", node)
	case owner.Controller == nil || !*owner.Controller:
		return forbidden(a, "node %q can only create pods with a controller owner reference set to itself", node)
	case owner.BlockOwnerDeletion != nil && *owner.BlockOwnerDeletion:
		return forbidden(a, "node %q must not set blockOwnerDeletion on an owner reference", node)
	}
	self, err := p.nodes.Get(node)
	if apierrors.IsNotFound(err) {
		self, err = p.client.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
	}
	if err != nil {
		return refuse(a, err)
	}
	if owner.UID != self.UID {
		return forbidden(a, "node %s UID mismatch: expected %s got %s", owner.Name, owner.UID, self.UID)
	}
	return nil
}

func podStatus(node string, a admission.Attributes) error {
	if a.GetOperation() != admission.Update {
		return forbidden(a, "unexpected operation %q", a.GetOperation())
	}
	old, err := oldObject[*corev1.Pod](a)
	if err != nil {
		return err
	}
	pod, err := object[*corev1.Pod](a)
	if err != nil {
		return err
	}
	if old.Spec.NodeName != node {
		return forbidden(a, "node %q can only update pod status for pods with spec.nodeName set to itself", node)
	}
	if !equality.Semantic.DeepEqual(old.Labels, pod.Labels) {
		return forbidden(a, "node %q cannot update labels through pod status", node)
	}
	if !equality.Semantic.DeepEqual(old.Status.ResourceClaimStatuses, pod.Status.ResourceClaimStatuses) {
		return forbidden(a, "node %q cannot update resource claim statuses", node)
	}
	return nil
}

func (p *nodeRestriction) eviction(ctx context.Context, node string, a admission.Attributes) error {
	if a.GetOperation() != admission.Create {
		return forbidden(a, "unexpected operation %s", a.GetOperation())
	}
	eviction, err := object[*policyv1.Eviction](a)
	if err != nil {
		return err
	}
	name := a.GetName()
	if name == "" {
		name = eviction.Name
	}
	if name == "" {
		return forbidden(a, "could not determine pod from request data")
	}
	pod, err := p.findPod(ctx, a.GetNamespace(), name)
	if err != nil {
		return refuse(a, err)
	}
	if pod.Spec.NodeName != node {
		return forbidden(a, "node %s can only evict pods with spec.nodeName set to itself", node)
	}
	return nil
}

func ownNode(node string, a admission.Attributes) error {
	if a.GetName() != node {
		return forbidden(a, "node %q is not allowed to modify node %q", node, a.GetName())
	}
	switch a.GetOperation() {
	case admission.Create:
		self, err := object[*corev1.Node](a)
		if err != nil {
			return err
		}
		if self.Spec.ConfigSource != nil {
			return forbidden(a, "node %q is not allowed to create pods with a non-nil configSource", node)
		}
		if labels := restricted(changedLabels(self.Labels, nil), false); len(labels) > 0 {
			return forbidden(a, "node %q is not allowed to set the following labels: %s", node, strings.Join(labels, ", "))
		}
	case admission.Update:
		self, err := object[*corev1.Node](a)
		if err != nil {
			return err
		}
		old, err := oldObject[*corev1.Node](a)
		if err != nil {
			return err
		}
		return ownNodeUpdate(node, a, self, old)
	}
	return nil
}

func ownNodeUpdate(node string, a admission.Attributes, self, old *corev1.Node) error {
	if self.Spec.ConfigSource != nil && !equality.Semantic.DeepEqual(self.Spec.ConfigSource, old.Spec.ConfigSource) {
		return forbidden(a, "node %q is not allowed to update configSource to a new non-nil configSource", node)
	}
	if !equality.Semantic.DeepEqual(self.Spec.Taints, old.Spec.Taints) {
		return forbidden(a, "node %q is not allowed to modify taints", node)
	}
	if labels := restricted(changedLabels(self.Labels, old.Labels), true); len(labels) > 0 {
		return forbidden(a, "is not allowed to modify labels: %s", strings.Join(labels, ", "))
	}
	if !equality.Semantic.DeepEqual(self.OwnerReferences, old.OwnerReferences) {
		return forbidden(a, "node %q is not allowed to modify ownerReferences", node)
	}
	return nil
}

// changedLabels are the keys that were added, changed or removed, sorted.
func changedLabels(labels, old map[string]string) []string {
	var keys []string
	for k, v := range labels {
		if was, ok := old[k]; !ok || was != v {
			keys = append(keys, k)
		}
	}
	for k := range old {
		if _, ok := labels[k]; !ok {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	return keys
}

// restricted are the keys that a node may not set on itself; on update also those of Kubernetes that no kubelet sets.
func restricted(keys []string, update bool) []string {
	return slices.DeleteFunc(keys, func(key string) bool {
		domain, _, ok := strings.Cut(key, "/")
		if !ok {
			return true
		}
		within := func(d string) bool { return domain == d || strings.HasSuffix(domain, "."+d) }
		if within(corev1.LabelNamespaceNodeRestriction) {
			return false
		}
		return !update || !within("kubernetes.io") && !within("k8s.io") || kubeletLabel(key) ||
			within(corev1.LabelNamespaceSuffixKubelet) || within(corev1.LabelNamespaceSuffixNode)
	})
}

func kubeletLabel(key string) bool {
	switch key {
	case corev1.LabelHostname, corev1.LabelTopologyZone, corev1.LabelTopologyRegion, corev1.LabelFailureDomainBetaZone,
		corev1.LabelFailureDomainBetaRegion, corev1.LabelInstanceType, corev1.LabelInstanceTypeStable, corev1.LabelOSStable,
		corev1.LabelArchStable, "beta.kubernetes.io/os", "beta.kubernetes.io/arch":
		return true
	}
	return false
}

// token lets a node make tokens that are bound to one of its pods.
func (p *nodeRestriction) token(ctx context.Context, node string, a admission.Attributes) error {
	if a.GetOperation() != admission.Create || a.GetSubresource() != "token" {
		return nil
	}
	request, err := object[*authenticationv1.TokenRequest](a)
	if err != nil {
		return err
	}
	ref := request.Spec.BoundObjectRef
	switch {
	case ref == nil || ref.APIVersion != "v1" || ref.Kind != "Pod" || ref.Name == "":
		return forbidden(a, "node requested token not bound to a pod")
	case ref.UID == "":
		return forbidden(a, "node requested token with a pod binding without a uid")
	}
	pod, err := p.findPod(ctx, a.GetNamespace(), ref.Name)
	if err != nil {
		return refuse(a, err)
	}
	switch {
	case ref.UID != pod.UID:
		return forbidden(a, "the UID in the bound object reference (%s) does not match the UID in record. The object might have been deleted and then recreated", ref.UID)
	case pod.Spec.NodeName != node:
		return forbidden(a, "node requested token bound to a pod scheduled on a different node")
	}
	return nil
}

func lease(node string, a admission.Attributes) error {
	if a.GetNamespace() != corev1.NamespaceNodeLease {
		return forbidden(a, "can only access leases in the %q system namespace", corev1.NamespaceNodeLease)
	}
	name := a.GetName()
	if a.GetOperation() == admission.Create {
		l, err := object[*coordinationv1.Lease](a)
		if err != nil {
			return err
		}
		name = l.Name
	}
	if name != node {
		return forbidden(a, "can only access node lease with the same name as the requesting node")
	}
	return nil
}

func storageNode(node string, a admission.Attributes) error {
	name := a.GetName()
	if o, ok := a.GetObject().(metav1.Object); ok && a.GetOperation() == admission.Create {
		name = o.GetName()
	}
	if name != node {
		return forbidden(a, "can only access CSINode with the same name as the requesting node")
	}
	return nil
}
