package networking

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
	"k8s.io/utils/ptr"

	"github.com/podvine/podvine/agent/api/kinds"
)

// NetworkPolicies returns the kind NetworkPolicy.
func NetworkPolicies() kinds.Resource {
	type T = *networkingv1.NetworkPolicy
	return &kinds.Kind[T]{
		GroupVersion: networkingv1.SchemeGroupVersion,
		Kind:         "NetworkPolicy", Resource: "networkpolicies", Singular: "networkpolicy", ShortNames: []string{"netpol"},
		Namespaced: true,
		New:        func() T { return &networkingv1.NetworkPolicy{} },
		NewList:    func() runtime.Object { return &networkingv1.NetworkPolicyList{} },

		Default:       defaultPolicy,
		HasGeneration: true,
		Validate:      func(_ context.Context, p T) field.ErrorList { return validatePolicy(p, nil) },
		ValidateUpdate: func(_ context.Context, p, old T) field.ErrorList {
			errs := kinds.ValidateObjectMetaUpdate(&p.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
			return append(errs, validatePolicy(p, old)...)
		},
		Columns: []kinds.Column[T]{
			kinds.NameColumn[T](),
			{Name: "Pod-Selector", Description: networkingv1.NetworkPolicySpec{}.SwaggerDoc()["podSelector"],
				Cell: func(p T) any { return metav1.FormatLabelSelector(&p.Spec.PodSelector) }},
			kinds.AgeColumn[T](),
		},
	}
}

func defaultPolicy(p *networkingv1.NetworkPolicy) {
	spec := &p.Spec
	if len(spec.PolicyTypes) == 0 {
		spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
		if len(spec.Egress) > 0 {
			spec.PolicyTypes = append(spec.PolicyTypes, networkingv1.PolicyTypeEgress)
		}
	}
	for i := range spec.Ingress {
		defaultPorts(spec.Ingress[i].Ports)
	}
	for i := range spec.Egress {
		defaultPorts(spec.Egress[i].Ports)
	}
}

func defaultPorts(ports []networkingv1.NetworkPolicyPort) {
	for i := range ports {
		if ports[i].Protocol == nil {
			ports[i].Protocol = ptr.To(corev1.ProtocolTCP)
		}
	}
}

// policyChecker checks one policy. What the stored one has already is not checked as strictly.
type policyChecker struct {
	selectors metav1validation.LabelSelectorValidationOptions
	stored    []string // blocks of addresses
}

func validatePolicy(p, old *networkingv1.NetworkPolicy) field.ErrorList {
	c := &policyChecker{}
	if old != nil {
		c.stored = blocks(&old.Spec)
	}
	errs := kinds.ValidateObjectMeta(&p.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
	spec, at := &p.Spec, field.NewPath("spec")
	errs = append(errs, metav1validation.ValidateLabelSelector(&spec.PodSelector, c.selectors, at.Child("podSelector"))...)
	for i, rule := range spec.Ingress {
		own := at.Child("ingress").Index(i)
		errs = append(errs, c.ports(rule.Ports, own.Child("ports"))...)
		errs = append(errs, c.peers(rule.From, own.Child("from"))...)
	}
	for i, rule := range spec.Egress {
		own := at.Child("egress").Index(i)
		errs = append(errs, c.ports(rule.Ports, own.Child("ports"))...)
		errs = append(errs, c.peers(rule.To, own.Child("to"))...)
	}
	types := []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}
	if len(spec.PolicyTypes) > len(types) {
		return append(errs, field.Invalid(at.Child("policyTypes"), &spec.PolicyTypes, "may not specify more than two policyTypes"))
	}
	for i, t := range spec.PolicyTypes {
		if !slices.Contains(types, t) {
			errs = append(errs, field.NotSupported(at.Child("policyTypes").Index(i), t, types))
		}
	}
	return errs
}

func blocks(spec *networkingv1.NetworkPolicySpec) []string {
	var out []string
	add := func(peers []networkingv1.NetworkPolicyPeer) {
		for _, p := range peers {
			if p.IPBlock != nil {
				out = append(append(out, p.IPBlock.CIDR), p.IPBlock.Except...)
			}
		}
	}
	for i := range spec.Ingress {
		add(spec.Ingress[i].From)
	}
	for i := range spec.Egress {
		add(spec.Egress[i].To)
	}
	return out
}

func (c *policyChecker) ports(ports []networkingv1.NetworkPolicyPort, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i := range ports {
		errs = append(errs, validatePort(&ports[i], at.Index(i))...)
	}
	return errs
}

func validatePort(p *networkingv1.NetworkPolicyPort, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if p.Protocol != nil && !slices.Contains(protocols(), *p.Protocol) {
		errs = append(errs, field.NotSupported(at.Child("protocol"), *p.Protocol, protocols()))
	}
	end := at.Child("endPort")
	switch {
	case p.Port == nil:
		if p.EndPort != nil {
			errs = append(errs, field.Invalid(end, *p.EndPort, "may not be specified when `port` is not specified"))
		}
	case p.Port.Type == intstr.Int:
		if p.EndPort != nil {
			if *p.EndPort < p.Port.IntVal {
				errs = append(errs, field.Invalid(end, *p.EndPort, "must be greater than or equal to `port`"))
			}
			errs = append(errs, invalid(end, *p.EndPort, validation.IsValidPortNum(int(*p.EndPort)))...)
		}
		errs = append(errs, invalid(at.Child("port"), p.Port.IntVal, validation.IsValidPortNum(int(p.Port.IntVal)))...)
	default:
		if p.EndPort != nil {
			errs = append(errs, field.Invalid(end, *p.EndPort, "may not be specified when `port` is non-numeric"))
		}
		errs = append(errs, invalid(at.Child("port"), p.Port.StrVal, validation.IsValidPortName(p.Port.StrVal))...)
	}
	return errs
}

func (c *policyChecker) peers(peers []networkingv1.NetworkPolicyPeer, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i := range peers {
		errs = append(errs, c.peer(&peers[i], at.Index(i))...)
	}
	return errs
}

func (c *policyChecker) peer(p *networkingv1.NetworkPolicyPeer, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	count := 0
	for _, s := range []struct {
		name     string
		selector *metav1.LabelSelector
	}{{"podSelector", p.PodSelector}, {"namespaceSelector", p.NamespaceSelector}} {
		if s.selector != nil {
			count++
			errs = append(errs, metav1validation.ValidateLabelSelector(s.selector, c.selectors, at.Child(s.name))...)
		}
	}
	if p.IPBlock != nil {
		count++
		errs = append(errs, c.block(p.IPBlock, at.Child("ipBlock"))...)
	}
	switch {
	case count == 0:
		errs = append(errs, field.Required(at, "must specify a peer"))
	case count > 1 && p.IPBlock != nil:
		errs = append(errs, field.Forbidden(at, "may not specify both ipBlock and another peer"))
	}
	return errs
}

func (c *policyChecker) block(b *networkingv1.IPBlock, at *field.Path) field.ErrorList {
	if b.CIDR == "" {
		return field.ErrorList{field.Required(at.Child("cidr"), "")}
	}
	errs := validation.IsValidCIDRForLegacyField(at.Child("cidr"), b.CIDR, true, c.stored)
	_, whole, err := netutils.ParseCIDRSloppy(b.CIDR)
	if err != nil {
		return errs
	}
	size, _ := whole.Mask.Size()
	for i, except := range b.Except {
		own := at.Child("except").Index(i)
		errs = append(errs, validation.IsValidCIDRForLegacyField(own, except, true, c.stored)...)
		_, part, err := netutils.ParseCIDRSloppy(except)
		if err != nil {
			continue
		}
		if partSize, _ := part.Mask.Size(); !whole.Contains(part.IP) || size >= partSize {
			errs = append(errs, field.Invalid(own, except, "must be a strict subset of `cidr`"))
		}
	}
	return errs
}
