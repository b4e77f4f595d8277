package admission

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/tools/cache"

	"github.com/podvine/podvine/agent/api/kinds"
	psp "github.com/podvine/podvine/agent/api/kinds/podsecuritypolicy"
)

const (
	// policyAnnotation of a pod names the policy that it was admitted by.
	policyAnnotation = "kubernetes.io/psp"
	// policyAudit begins the names of what the audit log is told.
	policyAudit = "podsecuritypolicy.policy.k8s.io/"
	// policyVerb is what those may do with a policy whose pods it admits.
	policyVerb = "use"
)

// securityPolicies admit a pod that one of the PodSecurityPolicies allows which its maker or its service account may use. Of those
// that allow it, one that need not change the pod comes first, then the first by name. Without any, no pod is admitted.
type securityPolicies struct {
	*admission.Handler
	policies   cache.Store
	authorizer authorizer.Authorizer
}

var (
	_ admission.MutationInterface   = (*securityPolicies)(nil)
	_ admission.ValidationInterface = (*securityPolicies)(nil)
)

func newSecurityPolicies(policies cache.SharedIndexInformer, authorizer authorizer.Authorizer) *securityPolicies {
	p := &securityPolicies{admission.NewHandler(admission.Create, admission.Update), policies.GetStore(), authorizer}
	p.SetReadyFunc(policies.HasSynced)
	return p
}

// Admit finds the policy of a new pod, and fills in what the policy asks for.
func (p *securityPolicies) Admit(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if a.GetOperation() != admission.Create {
		return nil
	}
	pod, err := p.concerned(a)
	if pod == nil || err != nil {
		return err
	}
	allowed, name, errs, err := p.find(ctx, a, pod, true)
	if err != nil {
		return forbidden(a, "PodSecurityPolicy: %w", err)
	}
	if allowed == nil {
		return forbidden(a, "PodSecurityPolicy: unable to admit pod: %v", errs)
	}
	*pod = *allowed
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	pod.Annotations[policyAnnotation] = name
	return a.AddAnnotation(policyAudit+"admit-policy", name)
}

// Validate refuses a pod that no policy allows as it is.
func (p *securityPolicies) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	pod, err := p.concerned(a)
	if pod == nil || err != nil {
		return err
	}
	allowed, name, errs, err := p.find(ctx, a, pod, false)
	if err != nil {
		return forbidden(a, "PodSecurityPolicy: %w", err)
	}
	if allowed == nil {
		return forbidden(a, "PodSecurityPolicy: unable to validate pod: %v", errs)
	}
	return a.AddAnnotation(policyAudit+"validate-policy", name)
}

// concerned returns the pod of a request that policies have a say in, nil for any other request. What garbage collection changes
// is none of their business.
func (p *securityPolicies) concerned(a admission.Attributes) (*corev1.Pod, error) {
	if !concerns(a, pods(), "") {
		return nil, nil
	}
	pod, err := object[*corev1.Pod](a)
	if err != nil {
		return nil, err
	}
	if a.GetOperation() == admission.Update && kinds.OnlyCollected(pod, a.GetOldObject()) {
		return nil, nil
	}
	if !p.WaitForReady() {
		return nil, forbidden(a, "not yet ready to handle request")
	}
	return pod, nil
}

// find returns the pod as a policy admits it, and the policy's name; no pod and the faults that the policies found where none does.
func (p *securityPolicies) find(ctx context.Context, a admission.Attributes, pod *corev1.Pod, mayChange bool) (*corev1.Pod, string, field.ErrorList, error) {
	hint := ""
	if !mayChange {
		hint = pod.Annotations[policyAnnotation]
	}
	policies := p.inOrder(hint)
	if len(policies) == 0 {
		return nil, "", nil, errors.New("no providers available to validate pod request")
	}
	var faults field.ErrorList
	var changed *corev1.Pod
	by := ""
	for _, policy := range policies {
		candidate := pod.DeepCopy()
		applyPolicy(&policyOf{policy}, candidate)
		errs := holdToPolicy(&policyOf{policy}, candidate)
		same := equality.Semantic.DeepEqual(pod, candidate)
		if len(errs) == 0 && !same && (!mayChange || changed != nil) {
			continue
		}
		if !p.mayUse(ctx, a, pod, policy.Name) {
			continue
		}
		switch {
		case len(errs) > 0:
			faults = append(faults, errs...)
		case same:
			return candidate, policy.Name, nil, nil
		default:
			changed, by = candidate, policy.Name
		}
	}
	if changed != nil {
		return changed, by, nil, nil
	}
	return nil, "", faults, nil
}

// inOrder returns the policies that can be held to, by name, but the one of the hint first.
func (p *securityPolicies) inOrder(hint string) []*psp.PodSecurityPolicy {
	var policies []*psp.PodSecurityPolicy
	for _, o := range p.policies.List() {
		if policy, ok := o.(*psp.PodSecurityPolicy); ok && usable(&policy.Spec) {
			policies = append(policies, policy)
		}
	}
	slices.SortFunc(policies, func(a, b *psp.PodSecurityPolicy) int {
		switch {
		case a.Name == b.Name:
			return 0
		case a.Name == hint:
			return -1
		case b.Name == hint:
			return 1
		}
		return strings.Compare(a.Name, b.Name)
	})
	return policies
}

// usable says that the strategies of a policy have what their rules need.
func usable(s *psp.PodSecurityPolicySpec) bool {
	ranged := func(rule string, ranges []psp.IDRange) bool {
		return rule != psp.MustRunAs && rule != psp.MayRunAs || len(ranges) > 0
	}
	return ranged(string(s.RunAsUser.Rule), s.RunAsUser.Ranges) && ranged(string(s.FSGroup.Rule), s.FSGroup.Ranges) &&
		ranged(string(s.SupplementalGroups.Rule), s.SupplementalGroups.Ranges) &&
		(s.RunAsGroup == nil || ranged(string(s.RunAsGroup.Rule), s.RunAsGroup.Ranges)) &&
		(s.SELinux.Rule != psp.MustRunAs || s.SELinux.SELinuxOptions != nil)
}

// mayUse asks for the pod's service account first, for most pods are made by controllers, and then for who makes it. Roles may
// still name the policies under the group that they had at first.
func (p *securityPolicies) mayUse(ctx context.Context, a admission.Attributes, pod *corev1.Pod, policy string) bool {
	var askers []user.Info
	if account := pod.Spec.ServiceAccountName; account != "" {
		askers = append(askers, serviceaccount.UserInfo(a.GetNamespace(), account, ""))
	}
	if who := a.GetUserInfo(); who != nil {
		askers = append(askers, who)
	}
	for _, who := range askers {
		for _, group := range []string{psp.GroupVersion().Group, "extensions"} {
			decision, _, err := p.authorizer.Authorize(ctx, authorizer.AttributesRecord{
				User: who, Verb: policyVerb, Namespace: a.GetNamespace(), Name: policy,
				APIGroup: group, APIVersion: "*", Resource: "podsecuritypolicies", ResourceRequest: true,
			})
			if err == nil && decision == authorizer.DecisionAllow {
				return true
			}
		}
	}
	return false
}

// policyOf shows a policy as the rules need it.
type policyOf struct{ *psp.PodSecurityPolicy }

// allowedProfiles are those that an annotation lists, in its words too.
func (p *policyOf) allowedProfiles(annotation string) (profiles []string, words string, restricted bool) {
	words, restricted = p.Annotations[annotation]
	return strings.Split(words, ","), words, restricted
}

// mayEscalate is so unless the policy says otherwise.
func (p *policyOf) mayEscalate() bool {
	return p.Spec.AllowPrivilegeEscalation == nil || *p.Spec.AllowPrivilegeEscalation
}

// ports writes the ranges of ports of the host that the policy allows.
func (p *policyOf) ports() string {
	texts := make([]string, len(p.Spec.HostPorts))
	for i, r := range p.Spec.HostPorts {
		if texts[i] = fmt.Sprintf("%d-%d", r.Min, r.Max); r.Min == r.Max {
			texts[i] = fmt.Sprint(r.Min)
		}
	}
	return strings.Join(texts, ",")
}
