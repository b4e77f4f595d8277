// Package node serves core/v1 Node: a machine of the cluster.
//
// The agent of a machine writes its status, agent/control gives it its pod range and its taints; liveness comes from
// gossip and is not stored here. Everything here is stateless and safe for concurrent use.
// Test with `go test ./agent/api/kinds/node`.
package node

import (
	"context"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"

	"github.com/podvine/podvine/agent/api/kinds"
)

// Resource returns the kind.
func Resource() kinds.Resource {
	return &kinds.Kind[*corev1.Node]{
		GroupVersion:     corev1.SchemeGroupVersion,
		Kind:             "Node",
		Resource:         "nodes",
		Singular:         "node",
		ShortNames:       []string{"no"},
		New:              func() *corev1.Node { return &corev1.Node{} },
		NewList:          func() runtime.Object { return &corev1.NodeList{} },
		Default:          setDefaults,
		PrepareForCreate: prepareForCreate,
		PrepareForUpdate: prepareForUpdate,
		Validate:         validate,
		ValidateUpdate:   validateUpdate,
		WarningsOnCreate: func(_ context.Context, n *corev1.Node) []string { return warnings(n) },
		WarningsOnUpdate: func(_ context.Context, n, _ *corev1.Node) []string { return warnings(n) },
		FieldLabels:      []string{"spec.unschedulable"},
		Fields: func(n *corev1.Node) fields.Set {
			return fields.Set{"spec.unschedulable": strconv.FormatBool(n.Spec.Unschedulable)}
		},
		Status: &kinds.Status[*corev1.Node]{
			PrepareForUpdate: prepareForStatusUpdate,
			ValidateUpdate:   validateUpdate,
			WarningsOnUpdate: func(_ context.Context, n, _ *corev1.Node) []string { return warnings(n) },
		},
		Columns: columns(),
		Extend: func(env kinds.Env, store, _ *genericregistry.Store, storage map[string]rest.Storage) error {
			storage["nodes/proxy"] = &proxyREST{nodes: store, connect: env.Nodes}
			return nil
		},
	}
}

// setDefaults gives what is allocatable to every resource that has a capacity, and keeps the two forms of the pod
// ranges the same; the single one, which older clients know, wins.
func setDefaults(n *corev1.Node) {
	switch one, all := n.Spec.PodCIDR, n.Spec.PodCIDRs; {
	case one != "" && (len(all) == 0 || all[0] != one):
		n.Spec.PodCIDRs = []string{one}
	case one == "" && len(all) > 0:
		n.Spec.PodCIDR = all[0]
	}
	if n.Status.Allocatable == nil && n.Status.Capacity != nil {
		n.Status.Allocatable = make(corev1.ResourceList, len(n.Status.Capacity))
		for name, quantity := range n.Status.Capacity {
			n.Status.Allocatable[name] = quantity.DeepCopy()
		}
	}
}

// prepareForCreate taints a new node until it is seen ready, so that no pod lands on it before.
func prepareForCreate(_ context.Context, n *corev1.Node) {
	n.Spec.ConfigSource = nil
	n.Status.Config = nil
	n.Spec.PodPreemptionPolicy = nil
	taint := corev1.Taint{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoSchedule}
	if !slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.MatchTaint(&taint) }) {
		n.Spec.Taints = append(n.Spec.Taints, taint)
	}
}

func prepareForUpdate(_ context.Context, n, old *corev1.Node) {
	if old.Spec.ConfigSource == nil {
		n.Spec.ConfigSource = nil
	}
	if old.Spec.PodPreemptionPolicy == nil {
		n.Spec.PodPreemptionPolicy = nil
	}
}

func prepareForStatusUpdate(_ context.Context, n, old *corev1.Node) {
	n.Spec = old.Spec
	if old.Status.Config == nil {
		n.Status.Config = nil
	}
}

// warnings names deprecated fields and ranges that are not in canonical form.
func warnings(n *corev1.Node) []string {
	var out []string
	if n.Spec.ConfigSource != nil {
		out = append(out, "spec.configSource: the feature is removed")
	}
	if n.Spec.DoNotUseExternalID != "" {
		out = append(out, "spec.externalID: this field is deprecated, and is unused by Kubernetes")
	}
	for i, cidr := range n.Spec.PodCIDRs {
		if len(validation.IsValidCIDRForLegacyField(nil, cidr, false, nil)) == 0 {
			out = append(out, validation.GetWarningsForCIDR(field.NewPath("spec", "podCIDRs").Index(i), cidr)...)
		}
	}
	return out
}
