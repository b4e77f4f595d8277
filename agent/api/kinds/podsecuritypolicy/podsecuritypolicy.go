package podsecuritypolicy

import (
	"context"
	"strconv"
	"strings"

	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/podvine/podvine/agent/api/kinds"
)

// GroupVersion returns the one that the kind is served in.
func GroupVersion() schema.GroupVersion {
	return schema.GroupVersion{Group: policyv1.GroupName, Version: "v1beta1"}
}

// Resource returns the kind PodSecurityPolicy.
func Resource() kinds.Resource {
	return &kinds.Kind[*PodSecurityPolicy]{
		GroupVersion: GroupVersion(),
		Kind:         "PodSecurityPolicy", Resource: "podsecuritypolicies", Singular: "podsecuritypolicy", ShortNames: []string{"psp"},
		New:        func() *PodSecurityPolicy { return &PodSecurityPolicy{} },
		NewList:    func() runtime.Object { return &PodSecurityPolicyList{} },
		ExtraTypes: addTypes,
		Default: func(p *PodSecurityPolicy) {
			if p.Spec.AllowPrivilegeEscalation == nil {
				yes := true
				p.Spec.AllowPrivilegeEscalation = &yes
			}
		},
		Validate: func(_ context.Context, p *PodSecurityPolicy) field.ErrorList { return validate(p) },
		ValidateUpdate: func(_ context.Context, p, old *PodSecurityPolicy) field.ErrorList {
			errs := kinds.ValidateObjectMetaUpdate(&p.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
			return append(errs, validateContent(p)...)
		},
		Columns: columns(),
	}
}

// addTypes registers the types as the version's, and as the group's own, as all other types are.
func addTypes(scheme *runtime.Scheme) error {
	version, internal := GroupVersion(), schema.GroupVersion{Group: policyv1.GroupName, Version: runtime.APIVersionInternal}
	for _, v := range []schema.GroupVersion{version, internal} {
		scheme.AddKnownTypes(v, &PodSecurityPolicy{}, &PodSecurityPolicyList{})
	}
	metav1.AddToGroupVersion(scheme, version)
	return scheme.SetVersionPriority(policyv1.SchemeGroupVersion, version)
}

// columns are Kubernetes' of 1.24, which had no age.
func columns() []kinds.Column[*PodSecurityPolicy] {
	column := func(name, description string, cell func(*PodSecurityPolicySpec) string) kinds.Column[*PodSecurityPolicy] {
		return kinds.Column[*PodSecurityPolicy]{Name: name, Description: description, Cell: func(p *PodSecurityPolicy) any { return cell(&p.Spec) }}
	}
	return []kinds.Column[*PodSecurityPolicy]{
		kinds.NameColumn[*PodSecurityPolicy](),
		column("Priv", "Containers may be privileged.", func(s *PodSecurityPolicySpec) string { return strconv.FormatBool(s.Privileged) }),
		column("Caps", "Capabilities that containers may add.", func(s *PodSecurityPolicySpec) string { return joined(s.AllowedCapabilities) }),
		column("SELinux", "Which SELinux labels processes may have.", func(s *PodSecurityPolicySpec) string { return string(s.SELinux.Rule) }),
		column("RunAsUser", "Which users processes may run as.", func(s *PodSecurityPolicySpec) string { return string(s.RunAsUser.Rule) }),
		column("FsGroup", "Which group may own the volumes of a pod.", func(s *PodSecurityPolicySpec) string { return string(s.FSGroup.Rule) }),
		column("SupGroup", "Which further groups processes may belong to.", func(s *PodSecurityPolicySpec) string { return string(s.SupplementalGroups.Rule) }),
		column("ReadOnlyRootFs", "Containers must have a root file system that they cannot write to.",
			func(s *PodSecurityPolicySpec) string { return strconv.FormatBool(s.ReadOnlyRootFilesystem) }),
		column("Volumes", "Kinds of volumes that pods may have.", func(s *PodSecurityPolicySpec) string { return joined(s.Volumes) }),
	}
}

func joined[T ~string](list []T) string {
	texts := make([]string, len(list))
	for i, item := range list {
		texts[i] = string(item)
	}
	return strings.Join(texts, ",")
}
