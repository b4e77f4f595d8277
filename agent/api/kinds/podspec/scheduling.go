package podspec

import (
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// ValidateTolerations reports the errors of tolerations; runtime classes have them too.
func ValidateTolerations(list []corev1.Toleration, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i := range list {
		t, at := &list[i], path.Index(i)
		if t.Key != "" {
			errs = append(errs, metav1validation.ValidateLabelName(t.Key, at.Child("key"))...)
		} else if t.Operator != corev1.TolerationOpExists {
			errs = append(errs, field.Invalid(at.Child("operator"), t.Operator,
				"operator must be Exists when `key` is empty, which means \"match all values and all keys\""))
		}
		if t.TolerationSeconds != nil && t.Effect != corev1.TaintEffectNoExecute {
			errs = append(errs, field.Invalid(at.Child("effect"), t.Effect, "effect must be 'NoExecute' when `tolerationSeconds` is set"))
		}
		errs = append(errs, tolerationOperator(t, at)...)
		if t.Effect != "" {
			errs = append(errs, OneOf(t.Effect, at.Child("effect"), corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute)...)
		}
	}
	return errs
}

func tolerationOperator(t *corev1.Toleration, at *field.Path) field.ErrorList {
	path := at.Child("operator")
	switch t.Operator {
	case corev1.TolerationOpEqual, "":
		return invalid(path, t.Value, validation.IsValidLabelValue(t.Value))
	case corev1.TolerationOpExists:
		if t.Value != "" {
			return field.ErrorList{field.Invalid(path, InternalView(t), "value must be empty when `operator` is 'Exists'")}
		}
		return nil
	}
	return OneOf(t.Operator, path, corev1.TolerationOpEqual, corev1.TolerationOpExists)
}

func readinessGates(gates []corev1.PodReadinessGate, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, g := range gates {
		errs = append(errs, qualifiedName(string(g.ConditionType), path.Index(i).Child("conditionType"))...)
	}
	return errs
}

func schedulingGates(gates []corev1.PodSchedulingGate, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	seen := sets.New[string]()
	for i, g := range gates {
		errs = append(errs, qualifiedName(g.Name, path.Index(i))...)
		if seen.Has(g.Name) {
			errs = append(errs, field.Duplicate(path.Index(i), g.Name))
		}
		seen.Insert(g.Name)
	}
	return errs
}

func schedulingGroup(g *corev1.PodSchedulingGroup, path *field.Path) field.ErrorList {
	if g.PodGroupName == nil {
		return field.ErrorList{field.Invalid(path, "", "must specify one of: `podGroupName`")}
	}
	return objectName(*g.PodGroupName, path.Child("podGroupName"))
}

func (c *checker) topologySpread(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	list := c.spec.TopologySpreadConstraints
	for i := range list {
		t, at := &list[i], path.Index(i)
		if t.MaxSkew <= 0 {
			errs = append(errs, field.Invalid(at.Child("maxSkew"), t.MaxSkew, "must be greater than zero"))
		}
		if t.TopologyKey == "" {
			errs = append(errs, field.Required(at.Child("topologyKey"), "can not be empty"))
		}
		errs = append(errs, OneOf(t.WhenUnsatisfiable, at.Child("whenUnsatisfiable"), corev1.DoNotSchedule, corev1.ScheduleAnyway)...)
		pair := topologyPair(t)
		for j := range list[i+1:] {
			if topologyPair(&list[i+1+j]) == pair {
				errs = append(errs, field.Duplicate(at.Child("{topologyKey, whenUnsatisfiable}"), pair))
			}
		}
		errs = append(errs, minDomains(t, at.Child("minDomains"))...)
		errs = append(errs, inclusion(t.NodeAffinityPolicy, at.Child("nodeAffinityPolicy"))...)
		errs = append(errs, inclusion(t.NodeTaintsPolicy, at.Child("nodeTaintsPolicy"))...)
		errs = append(errs, labelKeys(t.MatchLabelKeys, t.LabelSelector, at.Child("matchLabelKeys"))...)
		errs = append(errs, metav1validation.ValidateLabelSelector(t.LabelSelector, c.selectorOptions(), at.Child("labelSelector"))...)
	}
	return errs
}

func topologyPair(t *corev1.TopologySpreadConstraint) string {
	return fmt.Sprintf("{%v, %v}", t.TopologyKey, t.WhenUnsatisfiable)
}

func minDomains(t *corev1.TopologySpreadConstraint, path *field.Path) field.ErrorList {
	if t.MinDomains == nil {
		return nil
	}
	var errs field.ErrorList
	if *t.MinDomains <= 0 {
		errs = append(errs, field.Invalid(path, *t.MinDomains, "must be greater than zero"))
	}
	if t.WhenUnsatisfiable != corev1.DoNotSchedule {
		errs = append(errs, field.Invalid(path, *t.MinDomains, fmt.Sprintf("can only use minDomains if whenUnsatisfiable=%s, not %s", corev1.DoNotSchedule, t.WhenUnsatisfiable)))
	}
	return errs
}

func inclusion(policy *corev1.NodeInclusionPolicy, path *field.Path) field.ErrorList {
	if policy == nil {
		return nil
	}
	return OneOf(*policy, path, corev1.NodeInclusionPolicyHonor, corev1.NodeInclusionPolicyIgnore)
}

func (c *checker) resourceClaims(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	seen := sets.New[string]()
	for i := range c.spec.ResourceClaims {
		claim, at := &c.spec.ResourceClaims[i], path.Index(i)
		if claim.Name == "" {
			errs = append(errs, field.Required(at.Child("name"), ""))
		} else {
			if seen.Has(claim.Name) {
				errs = append(errs, field.Duplicate(at.Child("name"), claim.Name))
			} else {
				errs = append(errs, dnsLabel(claim.Name, at.Child("name"))...)
			}
			seen.Insert(claim.Name)
		}
		if c.meta != nil && claim.ResourceClaimTemplateName != nil {
			errs = append(errs, generatedClaimName(c.meta.Name, claim.Name, at.Child("name"))...)
		}
		switch {
		case claim.ResourceClaimName != nil && claim.ResourceClaimTemplateName != nil:
			errs = append(errs, field.Invalid(at, InternalView(claim), "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"))
		case claim.ResourceClaimName == nil && claim.ResourceClaimTemplateName == nil:
			errs = append(errs, field.Invalid(at, InternalView(claim), "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"))
		}
		if claim.ResourceClaimName != nil {
			errs = append(errs, objectName(*claim.ResourceClaimName, at.Child("resourceClaimName"))...)
		}
		if claim.ResourceClaimTemplateName != nil {
			errs = append(errs, objectName(*claim.ResourceClaimTemplateName, at.Child("resourceClaimTemplateName"))...)
		}
	}
	return errs
}

// generatedClaimName checks the name that a claim made for the pod begins with.
func generatedClaimName(pod, claim string, path *field.Path) field.ErrorList {
	if claim == "" || pod == "" || len(validation.IsDNS1123Label(claim)) > 0 {
		return nil
	}
	name := pod + "-" + claim + "-"
	var errs field.ErrorList
	for _, m := range validation.IsDNS1123Subdomain(name + "x") {
		errs = append(errs, field.Invalid(path, claim, fmt.Sprintf("final ResourceClaim name: %q: %s", name, m)))
	}
	return errs
}

// isInt32 says whether a text is a whole number of 32 bits as Kubernetes writes it.
func isInt32(s string) bool {
	n, err := strconv.ParseInt(s, 10, 32)
	return err == nil && strconv.FormatInt(n, 10) == s
}
