package endpoints

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"
	netutils "k8s.io/utils/net"
	"k8s.io/utils/ptr"

	"github.com/podvine/podvine/agent/control/loop"
)

// maxNameStem leaves room in a name of 253 characters for a hash.
const maxNameStem = 236

// mirrorLoop keeps EndpointSlices of Endpoints that people write for services without a selector.
type mirrorLoop struct {
	view     *view
	client   kubernetes.Interface
	recorder record.EventRecorder
}

func (m *mirrorLoop) reconcile(ctx context.Context, key string) (time.Duration, error) {
	namespace, name, err := loop.SplitKey(key)
	if err != nil {
		return 0, err
	}
	service, err := m.view.services.Services(namespace).Get(name)
	if err != nil && !apierrors.IsNotFound(err) {
		return 0, wrap("get service", key, err)
	}
	written, err := m.view.endpoints.Endpoints(namespace).Get(name)
	if err != nil && !apierrors.IsNotFound(err) {
		return 0, wrap("get endpoints", key, err)
	}
	owned := labels.Set{discoveryv1.LabelServiceName: name, discoveryv1.LabelManagedBy: mirrorController}
	current, err := m.view.slices.EndpointSlices(namespace).List(owned.AsSelectorPreValidated())
	if err != nil {
		return 0, wrap("list slices of service", key, err)
	}
	plan := planMirror(service, written, current)
	if len(plan.create)+len(plan.update) > 0 {
		m.tell(written, plan)
	}
	return 0, wrap("mirror endpoints", key, m.apply(ctx, namespace, plan))
}

// mirrorPlan is what to do to the mirrored slices of one service.
type mirrorPlan struct {
	create, update, remove []*discoveryv1.EndpointSlice
	// skipped are the addresses beyond what is mirrored of a subset, invalid those that are none.
	skipped, invalid int
}

// tell says in events what is not mirrored.
func (m *mirrorLoop) tell(written *corev1.Endpoints, plan mirrorPlan) {
	if plan.invalid > 0 {
		m.recorder.Eventf(written, corev1.EventTypeWarning, "InvalidIPAddress", "Skipped %d invalid IP addresses when mirroring to EndpointSlices", plan.invalid)
	}
	if plan.skipped > 0 {
		m.recorder.Eventf(written, corev1.EventTypeWarning, "TooManyAddressesToMirror",
			"A max of %d addresses can be mirrored to EndpointSlices per Endpoints subset. %d addresses were skipped", maxMirroredAddresses, plan.skipped)
	}
}

// planMirror decides how the slices of Endpoints become like them. service and written are nil where there is none;
// current are the slices that this loop wrote.
func planMirror(service *corev1.Service, written *corev1.Endpoints, current []*discoveryv1.EndpointSlice) mirrorPlan {
	var plan mirrorPlan
	wanted := map[string]*discoveryv1.EndpointSlice{}
	if service != nil && service.Spec.Selector == nil && isMirrored(written) {
		wanted, plan.skipped, plan.invalid = mirrored(written)
	}
	current = slices.Clone(current)
	slices.SortFunc(current, func(a, b *discoveryv1.EndpointSlice) int { return strings.Compare(a.Name, b.Name) })
	for _, have := range current {
		if have.DeletionTimestamp != nil {
			continue
		}
		key := sliceKey(have.AddressType, have.Ports)
		want := wanted[key]
		if want == nil || !metav1.IsControlledBy(have, written) {
			plan.remove = append(plan.remove, have)
			continue
		}
		delete(wanted, key)
		if sameMirror(have, want) {
			continue
		}
		changed := have.DeepCopy()
		changed.Labels, changed.Annotations, changed.Endpoints = want.Labels, want.Annotations, want.Endpoints
		plan.update = append(plan.update, changed)
	}
	for _, key := range slices.Sorted(maps.Keys(wanted)) {
		plan.create = append(plan.create, wanted[key])
	}
	return plan
}

func sameMirror(a, b *discoveryv1.EndpointSlice) bool {
	return apiequality.Semantic.DeepEqual(a.Endpoints, b.Endpoints) && apiequality.Semantic.DeepEqual(a.Labels, b.Labels) &&
		apiequality.Semantic.DeepEqual(a.Annotations, b.Annotations)
}

// isMirrored says that Endpoints are meant to be seen as slices.
func isMirrored(e *corev1.Endpoints) bool {
	return e != nil && e.DeletionTimestamp == nil && !isLock(e) && e.Labels[discoveryv1.LabelSkipMirror] != "true"
}

func sliceKey(t discoveryv1.AddressType, ports []discoveryv1.EndpointPort) string {
	core := make([]corev1.EndpointPort, len(ports))
	for i, p := range ports {
		core[i] = corev1.EndpointPort{Name: ptr.Deref(p.Name, ""), Port: ptr.Deref(p.Port, 0), Protocol: ptr.Deref(p.Protocol, corev1.ProtocolTCP), AppProtocol: p.AppProtocol}
	}
	slices.SortFunc(core, comparePorts)
	return string(t) + "/" + portsKey(core)
}

// mirrored are the slices that Endpoints amount to: one for each IP family and set of ports. Addresses are written as slices have
// them, without the leading zeros that Endpoints may have.
func mirrored(e *corev1.Endpoints) (wanted map[string]*discoveryv1.EndpointSlice, skipped, invalid int) {
	wanted = map[string]*discoveryv1.EndpointSlice{}
	for _, subset := range repack(e.Subsets) {
		ports := make([]discoveryv1.EndpointPort, len(subset.Ports))
		for i := range subset.Ports {
			ports[i] = slicePort(&subset.Ports[i])
		}
		left := maxMirroredAddresses
		add := func(list []corev1.EndpointAddress, ready bool) {
			for i := range list {
				ip := netutils.ParseIPSloppy(list[i].IP)
				switch {
				case left == 0:
					skipped++
					continue
				case ip == nil:
					invalid++
					continue
				}
				left--
				t := discoveryv1.AddressTypeIPv4
				if netutils.IsIPv6(ip) {
					t = discoveryv1.AddressTypeIPv6
				}
				key := sliceKey(t, ports)
				if wanted[key] == nil {
					wanted[key] = newMirror(e, key, t, ports)
				}
				wanted[key].Endpoints = append(wanted[key].Endpoints, mirroredEndpoint(&list[i], ip.String(), ready))
			}
		}
		add(subset.Addresses, true)
		add(subset.NotReadyAddresses, false)
	}
	return wanted, skipped, invalid
}

// newMirror is a slice without endpoints. Its name follows from what it mirrors, so that creating it again because the
// informer is behind does nothing.
func newMirror(e *corev1.Endpoints, key string, t discoveryv1.AddressType, ports []discoveryv1.EndpointPort) *discoveryv1.EndpointSlice {
	hash := fnv.New64a()
	hash.Write([]byte(string(e.UID) + "/" + key))
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:       e.Namespace,
			Name:            fmt.Sprintf("%s-%016x", strings.TrimRight(e.Name[:min(len(e.Name), maxNameStem)], ".-"), hash.Sum64()),
			Labels:          maps.Clone(e.Labels),
			Annotations:     maps.Clone(e.Annotations),
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(e, corev1.SchemeGroupVersion.WithKind("Endpoints"))},
		},
		AddressType: t,
		Ports:       ports,
	}
	if s.Labels == nil {
		s.Labels = map[string]string{}
	}
	s.Labels[discoveryv1.LabelServiceName] = e.Name
	s.Labels[discoveryv1.LabelManagedBy] = mirrorController
	delete(s.Annotations, corev1.EndpointsLastChangeTriggerTime)
	delete(s.Annotations, corev1.LastAppliedConfigAnnotation)
	return s
}

func mirroredEndpoint(a *corev1.EndpointAddress, ip string, ready bool) discoveryv1.Endpoint {
	out := discoveryv1.Endpoint{
		Addresses:  []string{ip},
		Conditions: discoveryv1.EndpointConditions{Ready: &ready},
		TargetRef:  a.TargetRef.DeepCopy(),
		NodeName:   a.NodeName,
	}
	if a.Hostname != "" {
		host := a.Hostname
		out.Hostname = &host
	}
	return out
}

func (m *mirrorLoop) apply(ctx context.Context, namespace string, plan mirrorPlan) error {
	client := m.client.DiscoveryV1().EndpointSlices(namespace)
	var errs []error
	for _, s := range plan.create {
		_, err := client.Create(ctx, s, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) && !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			errs = append(errs, err)
		}
	}
	for _, s := range plan.update {
		if _, err := client.Update(ctx, s, metav1.UpdateOptions{}); err != nil {
			errs = append(errs, err)
		}
	}
	for _, s := range plan.remove {
		err := client.Delete(ctx, s.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &s.UID}})
		if err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
