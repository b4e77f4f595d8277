package agent

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"

	"github.com/podvine/podvine/agent/api"
	"github.com/podvine/podvine/dataplane/services"
)

const (
	// dnsPort is where netd answers, on the node's own address in the pod range: high, because the host's 53 is not ours.
	dnsPort = 10053
	// dnsServicePort is what everybody asks.
	dnsServicePort = 53
	dnsServiceName = "kube-dns"
)

// dnsService leads kube-dns to the netd of this node.
func dnsService(clusterIP netip.Addr, own []netip.Addr) *services.Service {
	s := &services.Service{Name: "node/" + dnsServiceName, Static: true, ClusterIPs: []netip.Addr{clusterIP}}
	for _, protocol := range []services.Protocol{services.UDP, services.TCP} {
		port := services.Port{Name: fmt.Sprint("dns-", protocol), Protocol: protocol, Port: dnsServicePort}
		for _, address := range own {
			port.Endpoints = append(port.Endpoints, services.Endpoint{Addr: netip.AddrPortFrom(address, dnsPort), Ready: true, Serving: true, Local: true})
		}
		s.Ports = append(s.Ports, port)
	}
	return s
}

// apiService leads default/kubernetes to the agent of this node, so that pods need no other.
func apiService(clusterIP netip.Addr, agent netip.AddrPort) *services.Service {
	return &services.Service{
		Name: "node/kubernetes", Static: true, ClusterIPs: []netip.Addr{clusterIP},
		Ports: []services.Port{{
			Name: "https", Protocol: services.TCP, Port: 443,
			Endpoints: []services.Endpoint{{Addr: agent, Ready: true, Serving: true, Local: true}},
		}},
	}
}

// dnsBootstrap makes the Service object kube-dns, so that users find what answers names. It has no selector: each node
// answers for itself.
func dnsBootstrap(clusterIP netip.Addr) api.BootstrapHook {
	return api.BootstrapHook{Name: "kube-dns-service", Run: func(hook api.HookContext) error {
		client, err := kubernetes.NewForConfig(hook.LoopbackClientConfig)
		if err != nil {
			return err
		}
		return retry(hook, func(ctx context.Context) error {
			_, err := client.CoreV1().Services(metav1.NamespaceSystem).Create(ctx, dnsServiceObject(clusterIP), metav1.CreateOptions{})
			if apierrors.IsAlreadyExists(err) || apierrors.IsInvalid(err) && strings.Contains(err.Error(), "already allocated") {
				return nil
			}
			return err
		})
	}}
}

func dnsServiceObject(clusterIP netip.Addr) *corev1.Service {
	port := func(name string, protocol corev1.Protocol) corev1.ServicePort {
		return corev1.ServicePort{Name: name, Protocol: protocol, Port: dnsServicePort, TargetPort: intstr.FromInt32(dnsPort)}
	}
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Name:   dnsServiceName,
			Labels: map[string]string{"k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS", "kubernetes.io/cluster-service": "true"},
		},
		Spec: corev1.ServiceSpec{
			ClusterIP: clusterIP.String(), ClusterIPs: []string{clusterIP.String()},
			Ports: []corev1.ServicePort{port("dns", corev1.ProtocolUDP), port("dns-tcp", corev1.ProtocolTCP)},
		},
	}
}

// retry calls again until it succeeds or the context ends.
func retry(ctx context.Context, call func(context.Context) error) error {
	const pause = 50 * time.Millisecond
	for {
		err := call(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w (last error: %w)", ctx.Err(), err)
		case <-time.After(pause):
		}
	}
}
