package service

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/podvine/podvine/agent/api/kinds"
)

const (
	none = "<none>"
)

func columns() []kinds.Column[*corev1.Service] {
	doc := corev1.ServiceSpec{}.SwaggerDoc()
	return []kinds.Column[*corev1.Service]{
		kinds.NameColumn[*corev1.Service](),
		{Name: "Type", Description: doc["type"], Cell: func(s *corev1.Service) any { return string(s.Spec.Type) }},
		{Name: "Cluster-IP", Description: doc["clusterIP"], Cell: func(s *corev1.Service) any { return clusterIPCell(s) }},
		{Name: "External-IP", Description: doc["externalIPs"], Cell: func(s *corev1.Service) any { return externalCell(s) }},
		{Name: "Port(s)", Description: doc["ports"], Cell: func(s *corev1.Service) any { return portsCell(s.Spec.Ports) }},
		kinds.AgeColumn[*corev1.Service](),
		{Name: "Selector", Priority: 1, Description: doc["selector"], Cell: func(s *corev1.Service) any { return labels.FormatLabels(s.Spec.Selector) }},
	}
}

func clusterIPCell(s *corev1.Service) string {
	if len(s.Spec.ClusterIPs) > 0 {
		return s.Spec.ClusterIPs[0]
	}
	return none
}

func externalCell(s *corev1.Service) string {
	switch s.Spec.Type {
	case corev1.ServiceTypeExternalName:
		return s.Spec.ExternalName
	case corev1.ServiceTypeLoadBalancer:
		all := append([]string(nil), s.Spec.ExternalIPs...)
		if balancer := balancerCell(s); balancer != "" {
			all = append(all, strings.Split(balancer, ",")...)
		}
		if len(all) == 0 {
			return "<pending>"
		}
		return strings.Join(all, ",")
	}
	if len(s.Spec.ExternalIPs) == 0 {
		return none
	}
	return strings.Join(s.Spec.ExternalIPs, ",")
}

// balancerCell is what the load balancer is reached at.
func balancerCell(s *corev1.Service) string {
	var all []string
	seen := map[string]bool{}
	for _, i := range s.Status.LoadBalancer.Ingress {
		at := i.IP
		if at == "" {
			at = i.Hostname
		}
		if at != "" && !seen[at] {
			seen[at] = true
			all = append(all, at)
		}
	}
	return strings.Join(all, ",")
}

func portsCell(ports []corev1.ServicePort) string {
	if len(ports) == 0 {
		return none
	}
	all := make([]string, 0, len(ports))
	for _, p := range ports {
		if p.NodePort > 0 {
			all = append(all, fmt.Sprintf("%d:%d/%s", p.Port, p.NodePort, p.Protocol))
		} else {
			all = append(all, fmt.Sprintf("%d/%s", p.Port, p.Protocol))
		}
	}
	return strings.Join(all, ",")
}
