package node

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"

	"github.com/podvine/podvine/agent/api/kinds"
)

// The labels that say a node's roles.
const (
	rolePrefix      = "node-role.kubernetes.io/"
	rolePrefixOlder = "kubernetes.io/role"
)

const unknown = "<unknown>"

func columns() []kinds.Column[*corev1.Node] {
	info := func(name, description string, cell func(corev1.NodeSystemInfo) string) kinds.Column[*corev1.Node] {
		return kinds.Column[*corev1.Node]{Name: name, Priority: 1, Description: description,
			Cell: func(n *corev1.Node) any { return orUnknown(cell(n.Status.NodeInfo)) }}
	}
	return []kinds.Column[*corev1.Node]{
		kinds.NameColumn[*corev1.Node](),
		{Name: "Status", Description: "Whether the node is ready, and whether new pods may land on it.",
			Cell: func(n *corev1.Node) any { return statusCell(n) }},
		{Name: "Roles", Description: "The roles that labels give the node.",
			Cell: func(n *corev1.Node) any { return rolesCell(n) }},
		kinds.AgeColumn[*corev1.Node](),
		{Name: "Version", Description: corev1.NodeSystemInfo{}.SwaggerDoc()["kubeletVersion"],
			Cell: func(n *corev1.Node) any { return n.Status.NodeInfo.KubeletVersion }},
		{Name: "Internal-IP", Priority: 1, Description: corev1.NodeStatus{}.SwaggerDoc()["addresses"],
			Cell: func(n *corev1.Node) any { return addressCell(n, corev1.NodeInternalIP) }},
		{Name: "External-IP", Priority: 1, Description: corev1.NodeStatus{}.SwaggerDoc()["addresses"],
			Cell: func(n *corev1.Node) any { return addressCell(n, corev1.NodeExternalIP) }},
		info("OS-Image", corev1.NodeSystemInfo{}.SwaggerDoc()["osImage"], func(i corev1.NodeSystemInfo) string { return i.OSImage }),
		info("Kernel-Version", corev1.NodeSystemInfo{}.SwaggerDoc()["kernelVersion"], kernelCell),
		info("Container-Runtime", corev1.NodeSystemInfo{}.SwaggerDoc()["containerRuntimeVersion"],
			func(i corev1.NodeSystemInfo) string { return i.ContainerRuntimeVersion }),
	}
}

func orUnknown(s string) string {
	if s == "" {
		return unknown
	}
	return s
}

func kernelCell(i corev1.NodeSystemInfo) string {
	if i.KernelVersion == "" || i.Architecture == "" {
		return i.KernelVersion
	}
	return i.KernelVersion + " (" + i.Architecture + ")"
}

func statusCell(n *corev1.Node) string {
	status := "Unknown"
	for _, c := range n.Status.Conditions {
		if c.Type != corev1.NodeReady {
			continue
		}
		if status = "NotReady"; c.Status == corev1.ConditionTrue {
			status = "Ready"
		}
	}
	if n.Spec.Unschedulable {
		status += ",SchedulingDisabled"
	}
	return status
}

func rolesCell(n *corev1.Node) string {
	roles := sets.New[string]()
	for key, value := range n.Labels {
		if role, ok := strings.CutPrefix(key, rolePrefix); ok {
			if role != "" {
				roles.Insert(role)
			}
		} else if key == rolePrefixOlder && value != "" {
			roles.Insert(value)
		}
	}
	if len(roles) == 0 {
		return "<none>"
	}
	return strings.Join(sets.List(roles), ",")
}

func addressCell(n *corev1.Node, t corev1.NodeAddressType) string {
	for _, a := range n.Status.Addresses {
		if a.Type == t {
			return a.Address
		}
	}
	return "<none>"
}
