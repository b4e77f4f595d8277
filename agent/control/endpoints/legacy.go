package endpoints

import (
	"context"
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
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/endpointslice"
	endpointsliceutil "k8s.io/endpointslice/util"
	netutils "k8s.io/utils/net"

	"github.com/podvine/podvine/agent/control/loop"
)

// overCapacity is the annotation's value where addresses were left out.
const overCapacity = "truncated"

// legacyLoop keeps the Endpoints of services with a selector.
type legacyLoop struct {
	view     *view
	client   kubernetes.Interface
	triggers *endpointsliceutil.TriggerTimeTracker
}

func (l *legacyLoop) reconcile(ctx context.Context, key string) (time.Duration, error) {
	namespace, name, err := loop.SplitKey(key)
	if err != nil {
		return 0, err
	}
	current, err := l.view.endpoints.Endpoints(namespace).Get(name)
	if err != nil && !apierrors.IsNotFound(err) {
		return 0, wrap("get endpoints", key, err)
	}
	service, err := l.view.services.Services(namespace).Get(name)
	if apierrors.IsNotFound(err) {
		l.triggers.DeleteService(namespace, name)
		if current == nil || isLock(current) {
			return 0, nil
		}
		return 0, wrap("delete endpoints", key, l.delete(ctx, current))
	}
	if err != nil {
		return 0, wrap("get service", key, err)
	}
	if service.Spec.Selector == nil || service.Spec.Type == corev1.ServiceTypeExternalName {
		return 0, nil // written by others
	}
	pods, err := l.view.pods.Pods(namespace).List(labels.Set(service.Spec.Selector).AsSelectorPreValidated())
	if err != nil {
		return 0, wrap("list pods of service", key, err)
	}
	changed := l.triggers.ComputeEndpointLastChangeTriggerTime(namespace, service, pods)
	wanted := desiredEndpoints(service, pods, current, changed)
	return 0, wrap("write endpoints", key, l.apply(ctx, current, wanted))
}

func (l *legacyLoop) delete(ctx context.Context, e *corev1.Endpoints) error {
	err := l.client.CoreV1().Endpoints(e.Namespace).Delete(ctx, e.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &e.UID}})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

func (l *legacyLoop) apply(ctx context.Context, current, wanted *corev1.Endpoints) error {
	switch {
	case wanted == nil:
		return nil
	case current == nil:
		_, err := l.client.CoreV1().Endpoints(wanted.Namespace).Create(ctx, wanted, metav1.CreateOptions{})
		if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return nil
		}
		return err
	}
	_, err := l.client.CoreV1().Endpoints(wanted.Namespace).Update(ctx, wanted, metav1.UpdateOptions{})
	return err
}

// isLock says that an object is a leader election's and no service's.
func isLock(e *corev1.Endpoints) bool {
	_, ok := e.Annotations[resourcelock.LeaderElectionRecordAnnotationKey]
	return ok
}

// desiredEndpoints decides what a service's Endpoints are to be; nil where the current ones (nil for none) are right.
// changed is when what caused this happened, zero if unknown.
func desiredEndpoints(service *corev1.Service, pods []*corev1.Pod, current *corev1.Endpoints, changed time.Time) *corev1.Endpoints {
	subsets := repack(subsetsOf(service, pods))
	subsets, truncated := truncate(subsets, maxEndpointsAddresses)
	wantLabels := maps.Clone(service.Labels)
	if wantLabels == nil {
		wantLabels = map[string]string{}
	}
	if service.Spec.ClusterIP == "" || service.Spec.ClusterIP == corev1.ClusterIPNone {
		wantLabels[corev1.IsHeadlessService] = ""
	} else {
		delete(wantLabels, corev1.IsHeadlessService)
	}
	wantLabels["endpoints.kubernetes.io/managed-by"] = "endpoint-controller"
	wanted := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: service.Namespace, Name: service.Name}}
	if current != nil {
		wanted = current.DeepCopy()
		same := apiequality.Semantic.DeepEqual(current.Subsets, subsets) && apiequality.Semantic.DeepEqual(current.Labels, wantLabels) &&
			(current.Annotations[corev1.EndpointsOverCapacity] == overCapacity) == truncated
		if same {
			return nil
		}
	}
	wanted.Subsets, wanted.Labels = subsets, wantLabels
	if wanted.Annotations == nil {
		wanted.Annotations = map[string]string{}
	}
	delete(wanted.Annotations, corev1.EndpointsLastChangeTriggerTime)
	if !changed.IsZero() {
		wanted.Annotations[corev1.EndpointsLastChangeTriggerTime] = changed.UTC().Format(time.RFC3339Nano)
	}
	delete(wanted.Annotations, corev1.EndpointsOverCapacity)
	if truncated {
		wanted.Annotations[corev1.EndpointsOverCapacity] = overCapacity
	}
	return wanted
}

// subsetsOf gives each pod a subset for each of its ports.
func subsetsOf(service *corev1.Service, pods []*corev1.Pod) []corev1.EndpointSubset {
	var subsets []corev1.EndpointSubset
	family := corev1.IPv4Protocol
	if len(service.Spec.IPFamilies) > 0 {
		family = service.Spec.IPFamilies[0]
	}
	for _, pod := range pods {
		if !endpointsliceutil.ShouldPodBeInEndpoints(pod, service.Spec.PublishNotReadyAddresses) {
			continue
		}
		address, ok := addressOf(service, pod, family)
		if !ok {
			continue
		}
		serves := service.Spec.PublishNotReadyAddresses || endpointsliceutil.IsPodReady(pod)
		add := func(ports []corev1.EndpointPort) {
			s := corev1.EndpointSubset{Ports: ports}
			if serves {
				s.Addresses = []corev1.EndpointAddress{address}
			} else {
				s.NotReadyAddresses = []corev1.EndpointAddress{address}
			}
			subsets = append(subsets, s)
		}
		if len(service.Spec.Ports) == 0 {
			add(nil) // headless: DNS needs no port
			continue
		}
		for i := range service.Spec.Ports {
			p := &service.Spec.Ports[i]
			number, err := endpointslice.FindPort(pod, p)
			if err != nil {
				continue // the pod has no port of that name
			}
			add([]corev1.EndpointPort{{Name: p.Name, Port: int32(number), Protocol: p.Protocol, AppProtocol: p.AppProtocol}})
		}
	}
	return subsets
}

func addressOf(service *corev1.Service, pod *corev1.Pod, family corev1.IPFamily) (corev1.EndpointAddress, bool) {
	ips := make([]string, 0, len(pod.Status.PodIPs)+1)
	for _, ip := range pod.Status.PodIPs {
		ips = append(ips, ip.IP)
	}
	if len(ips) == 0 {
		ips = append(ips, pod.Status.PodIP)
	}
	for _, ip := range ips {
		if netutils.IsIPv6String(ip) != (family == corev1.IPv6Protocol) {
			continue
		}
		a := corev1.EndpointAddress{
			IP:        ip,
			TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
		}
		if pod.Spec.NodeName != "" {
			node := pod.Spec.NodeName
			a.NodeName = &node
		}
		if endpointsliceutil.ShouldSetHostname(pod, service) {
			a.Hostname = pod.Spec.Hostname
		}
		return a, true
	}
	return corev1.EndpointAddress{}, false
}

// repack puts addresses with the same ports into one subset, in an order that depends on nothing but the content.
func repack(parts []corev1.EndpointSubset) []corev1.EndpointSubset {
	type place struct {
		address corev1.EndpointAddress
		ready   bool
		ports   []corev1.EndpointPort
	}
	places := map[string]*place{}
	note := func(a corev1.EndpointAddress, ready bool, ports []corev1.EndpointPort) {
		key := a.IP
		if a.TargetRef != nil {
			key += "/" + string(a.TargetRef.UID)
		}
		p := places[key]
		if p == nil {
			p = &place{address: a, ready: ready}
			places[key] = p
		}
		p.ready = p.ready && ready
		p.ports = append(p.ports, ports...)
	}
	for _, part := range parts {
		for _, a := range part.Addresses {
			note(a, true, part.Ports)
		}
		for _, a := range part.NotReadyAddresses {
			note(a, false, part.Ports)
		}
	}
	byPorts := map[string]*corev1.EndpointSubset{}
	for _, key := range slices.Sorted(maps.Keys(places)) {
		p := places[key]
		slices.SortFunc(p.ports, comparePorts)
		p.ports = slices.CompactFunc(p.ports, func(a, b corev1.EndpointPort) bool { return comparePorts(a, b) == 0 })
		group := portsKey(p.ports)
		s := byPorts[group]
		if s == nil {
			s = &corev1.EndpointSubset{Ports: p.ports}
			byPorts[group] = s
		}
		if p.ready {
			s.Addresses = append(s.Addresses, p.address)
		} else {
			s.NotReadyAddresses = append(s.NotReadyAddresses, p.address)
		}
	}
	var out []corev1.EndpointSubset
	for _, group := range slices.Sorted(maps.Keys(byPorts)) {
		out = append(out, *byPorts[group])
	}
	return out
}

func comparePorts(a, b corev1.EndpointPort) int {
	if c := strings.Compare(a.Name, b.Name); c != 0 {
		return c
	}
	if a.Port != b.Port {
		return int(a.Port - b.Port)
	}
	return strings.Compare(string(a.Protocol), string(b.Protocol))
}

func portsKey(ports []corev1.EndpointPort) string {
	parts := make([]discoveryv1.EndpointPort, len(ports))
	for i := range ports {
		parts[i] = slicePort(&ports[i])
	}
	return string(endpointsliceutil.NewPortMapKey(parts))
}

func slicePort(p *corev1.EndpointPort) discoveryv1.EndpointPort {
	name, number, protocol := p.Name, p.Port, p.Protocol
	return discoveryv1.EndpointPort{Name: &name, Port: &number, Protocol: &protocol, AppProtocol: p.AppProtocol}
}

// truncate leaves at most limit addresses, the ready ones first.
func truncate(subsets []corev1.EndpointSubset, limit int) (kept []corev1.EndpointSubset, truncated bool) {
	total := 0
	for i := range subsets {
		total += len(subsets[i].Addresses) + len(subsets[i].NotReadyAddresses)
	}
	if total <= limit {
		return subsets, false
	}
	left := limit
	take := func(list []corev1.EndpointAddress) []corev1.EndpointAddress {
		n := min(left, len(list))
		left -= n
		if n == 0 {
			return nil
		}
		return list[:n]
	}
	out := slices.Clone(subsets)
	for i := range out {
		out[i].Addresses = take(out[i].Addresses)
	}
	for i := range out {
		out[i].NotReadyAddresses = take(out[i].NotReadyAddresses)
	}
	return slices.DeleteFunc(out, func(s corev1.EndpointSubset) bool {
		return len(s.Addresses)+len(s.NotReadyAddresses) == 0
	}), true
}
