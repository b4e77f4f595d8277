package api

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
)

const (
	kubernetesServiceName = "kubernetes"
	kubernetesServicePort = 443
	kubernetesPortName    = "https"
)

// KubernetesService says where the service default/kubernetes leads.
type KubernetesService struct {
	// ClusterIP is the service's address, by custom the first of the service range.
	ClusterIP netip.Addr
	// Endpoints are the addresses under which members serve this API now, all with the same port. It is called
	// whenever Changed delivers, and once at the start.
	Endpoints func() (addresses []netip.Addr, port int32)
	// Changed delivers after the endpoints or the writer have changed; nil means never.
	Changed <-chan struct{}
	// Writes tells whether this member is the one that writes the objects; nil means that it is.
	Writes func() bool
}

// keepKubernetesService keeps the service, its endpoints and its slice as they should be.
func (s *Server) keepKubernetesService(hook HookContext) error {
	client, err := kubernetes.NewForConfig(hook.LoopbackClientConfig)
	if err != nil {
		return err
	}
	reconcile := func(ctx context.Context) error { return reconcileKubernetes(ctx, client, s.config.KubernetesService) }
	if err := s.retry(hook, "make service default/kubernetes", reconcile); err != nil {
		return err
	}
	go func() {
		for {
			select {
			case <-hook.Done():
				return
			case <-s.config.KubernetesService.Changed:
				if err := s.retry(hook, "update service default/kubernetes", reconcile); err != nil {
					return // the server ends
				}
			}
		}
	}()
	return nil
}

func reconcileKubernetes(ctx context.Context, client kubernetes.Interface, wanted *KubernetesService) error {
	if wanted.Writes != nil && !wanted.Writes() {
		// Its writer sees to the rest. A server is not ready before somebody has made the service.
		if _, err := client.CoreV1().Services(metav1.NamespaceDefault).Get(ctx, kubernetesServiceName, metav1.GetOptions{}); err != nil {
			return fmt.Errorf("wait for the service: %w", err)
		}
		return nil
	}
	addresses, port := wanted.Endpoints()
	slices.SortFunc(addresses, netip.Addr.Compare)
	if err := reconcileService(ctx, client, wanted.ClusterIP, port); err != nil {
		return fmt.Errorf("reconcile service: %w", err)
	}
	if err := reconcileEndpoints(ctx, client, addresses, port); err != nil {
		return fmt.Errorf("reconcile endpoints: %w", err)
	}
	if err := reconcileSlice(ctx, client, addresses, port); err != nil {
		return fmt.Errorf("reconcile endpoint slice: %w", err)
	}
	return nil
}

func reconcileService(ctx context.Context, client kubernetes.Interface, ip netip.Addr, port int32) error {
	services := client.CoreV1().Services(metav1.NamespaceDefault)
	ports := []corev1.ServicePort{{
		Name: kubernetesPortName, Protocol: corev1.ProtocolTCP, Port: kubernetesServicePort, TargetPort: intstr.FromInt32(port)}}
	have, err := services.Get(ctx, kubernetesServiceName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		_, err = services.Create(ctx, &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: kubernetesServiceName, Labels: map[string]string{"provider": "kubernetes", "component": "apiserver"}},
			Spec: corev1.ServiceSpec{
				Type: corev1.ServiceTypeClusterIP, ClusterIP: ip.String(), SessionAffinity: corev1.ServiceAffinityNone, Ports: ports},
		}, metav1.CreateOptions{})
		return ignoreExists(err)
	}
	if err != nil || equality.Semantic.DeepEqual(have.Spec.Ports, ports) {
		return err
	}
	have.Spec.Ports = ports
	_, err = services.Update(ctx, have, metav1.UpdateOptions{})
	return err
}

func reconcileEndpoints(ctx context.Context, client kubernetes.Interface, addresses []netip.Addr, port int32) error {
	endpoints := client.CoreV1().Endpoints(metav1.NamespaceDefault)
	subset := corev1.EndpointSubset{Ports: []corev1.EndpointPort{{Name: kubernetesPortName, Port: port, Protocol: corev1.ProtocolTCP}}}
	for _, a := range addresses {
		subset.Addresses = append(subset.Addresses, corev1.EndpointAddress{IP: a.String()})
	}
	wanted := []corev1.EndpointSubset{subset}
	if len(addresses) == 0 {
		wanted = nil
	}
	have, err := endpoints.Get(ctx, kubernetesServiceName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		_, err = endpoints.Create(ctx, &corev1.Endpoints{
			ObjectMeta: metav1.ObjectMeta{Name: kubernetesServiceName, Labels: map[string]string{discoveryv1.LabelSkipMirror: "true"}},
			Subsets:    wanted,
		}, metav1.CreateOptions{})
		return ignoreExists(err)
	}
	if err != nil || equality.Semantic.DeepEqual(have.Subsets, wanted) {
		return err
	}
	have.Subsets = wanted
	_, err = endpoints.Update(ctx, have, metav1.UpdateOptions{})
	return err
}

func reconcileSlice(ctx context.Context, client kubernetes.Interface, addresses []netip.Addr, port int32) error {
	name, protocol, ready := kubernetesPortName, corev1.ProtocolTCP, true
	wanted := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: kubernetesServiceName, Labels: map[string]string{discoveryv1.LabelServiceName: kubernetesServiceName}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &name, Port: &port, Protocol: &protocol}},
	}
	for _, a := range addresses {
		if a.Is6() {
			wanted.AddressType = discoveryv1.AddressTypeIPv6
		}
		wanted.Endpoints = append(wanted.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{a.String()}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}})
	}
	slicesClient := client.DiscoveryV1().EndpointSlices(metav1.NamespaceDefault)
	have, err := slicesClient.Get(ctx, kubernetesServiceName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		_, err = slicesClient.Create(ctx, wanted, metav1.CreateOptions{})
		return ignoreExists(err)
	}
	if err != nil || equality.Semantic.DeepEqual(have.Endpoints, wanted.Endpoints) && equality.Semantic.DeepEqual(have.Ports, wanted.Ports) {
		return err
	}
	have.Endpoints, have.Ports = wanted.Endpoints, wanted.Ports
	_, err = slicesClient.Update(ctx, have, metav1.UpdateOptions{})
	return err
}
