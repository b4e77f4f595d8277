package podspec

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	resourcehelper "k8s.io/component-helpers/resource"
)

// IsHugePages says whether a resource is a kind of huge pages.
func IsHugePages(name corev1.ResourceName) bool {
	return strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix)
}

// IsNative says whether a resource belongs to Kubernetes itself.
func IsNative(name corev1.ResourceName) bool {
	return !strings.Contains(string(name), "/") || strings.Contains(string(name), corev1.ResourceDefaultNamespacePrefix)
}

// IsExtended says whether a resource is one of the user's own.
func IsExtended(name corev1.ResourceName) bool {
	if IsNative(name) || strings.HasPrefix(string(name), corev1.DefaultResourceRequestsPrefix) {
		return false
	}
	return len(validation.IsQualifiedName(corev1.DefaultResourceRequestsPrefix+string(name))) == 0
}

// Overcommits says whether a limit of the resource may lie above the request.
func Overcommits(name corev1.ResourceName) bool { return IsNative(name) && !IsHugePages(name) }

// isStandard says whether a resource without a prefix is one that quotas, limits or containers know.
func isStandard(name corev1.ResourceName) bool {
	known := sets.New[corev1.ResourceName]("cpu", "memory", "ephemeral-storage", "requests.cpu", "requests.memory", "requests.ephemeral-storage",
		"limits.cpu", "limits.memory", "limits.ephemeral-storage", "pods", "resourcequotas", "services", "replicationcontrollers", "secrets",
		"configmaps", "persistentvolumeclaims", "storage", "requests.storage", "services.nodeports", "services.loadbalancers")
	return known.Has(name) || IsHugePages(name) || strings.HasPrefix(string(name), corev1.DefaultResourceRequestsPrefix+corev1.ResourceHugePagesPrefix)
}

// IsCount says whether only whole numbers of a resource make sense.
func IsCount(name corev1.ResourceName) bool {
	counts := sets.New[corev1.ResourceName]("pods", "resourcequotas", "services", "replicationcontrollers", "secrets", "configmaps",
		"persistentvolumeclaims", "services.nodeports", "services.loadbalancers")
	return counts.Has(name) || IsExtended(name)
}

// ValidateResourceName checks the form of a resource's name.
func ValidateResourceName(name corev1.ResourceName, path *field.Path) field.ErrorList {
	errs := qualifiedName(string(name), path)
	if len(errs) == 0 && !strings.Contains(string(name), "/") && !isStandard(name) {
		errs = append(errs, field.Invalid(path, string(name), "must be a standard resource type or fully qualified"))
	}
	return errs
}

// ValidateContainerResourceName checks the name of a resource that containers ask for.
func ValidateContainerResourceName(name corev1.ResourceName, path *field.Path) field.ErrorList {
	errs := ValidateResourceName(name, path)
	if !strings.Contains(string(name), "/") {
		standard := name == corev1.ResourceCPU || name == corev1.ResourceMemory || name == corev1.ResourceEphemeralStorage || IsHugePages(name)
		if !standard {
			errs = append(errs, field.Invalid(path, string(name), "must be a standard resource for containers"))
		}
	} else if !IsNative(name) && !IsExtended(name) {
		errs = append(errs, field.Invalid(path, string(name), "doesn't follow extended resource name standard"))
	}
	return errs
}

func podResourceName(name corev1.ResourceName, path *field.Path) field.ErrorList {
	errs := ValidateResourceName(name, path)
	if len(errs) == 0 && !isPodLevel(name) {
		errs = append(errs, field.NotSupported(path, name, []string{"cpu", "hugepages-", "memory"}))
	}
	return errs
}

// isPodLevel says whether a resource can be set for all containers of a pod together.
func isPodLevel(name corev1.ResourceName) bool {
	return name == corev1.ResourceCPU || name == corev1.ResourceMemory || IsHugePages(name)
}

// ValidateQuantity checks an amount of a resource.
func ValidateQuantity(name corev1.ResourceName, amount resource.Quantity, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if amount.Sign() < 0 {
		errs = append(errs, field.Invalid(path, amount.String(), "must be greater than or equal to 0"))
	}
	if IsCount(name) && amount.MilliValue()%1000 != 0 {
		errs = append(errs, field.Invalid(path, amount, "must be an integer"))
	}
	return errs
}

func (c *checker) hugePages(name corev1.ResourceName, amount resource.Quantity, path *field.Path) field.ErrorList {
	if !IsHugePages(name) || c.opts.AllowIndivisibleHugePages {
		return nil
	}
	page, err := resource.ParseQuantity(strings.TrimPrefix(string(name), corev1.ResourceHugePagesPrefix))
	whole := err == nil && page.Sign() > 0 && page.MilliValue()%1000 == 0 && amount.Value()%page.Value() == 0
	if whole {
		return nil
	}
	return field.ErrorList{field.Invalid(path, amount.String(), fmt.Sprintf("%s is not positive integer multiple of %s", amount.String(), name))}
}

// requirements checks limits, requests and claims of a container, or of a pod as a whole.
func (c *checker) requirements(r *corev1.ResourceRequirements, path *field.Path, nameRule func(corev1.ResourceName, *field.Path) field.ErrorList) field.ErrorList {
	var errs field.ErrorList
	limits, requests := path.Child("limits"), path.Child("requests")
	pages, compute := false, false
	visit := func(name corev1.ResourceName, amount resource.Quantity, at *field.Path) {
		errs = append(errs, nameRule(name, at)...)
		errs = append(errs, ValidateQuantity(name, amount, at)...)
		errs = append(errs, c.hugePages(name, amount, at)...)
		pages = pages || IsHugePages(name)
		compute = compute || name == corev1.ResourceCPU || name == corev1.ResourceMemory
	}
	for _, name := range slices.Sorted(maps.Keys(r.Limits)) {
		visit(name, r.Limits[name], limits.Key(string(name)))
	}
	for _, name := range slices.Sorted(maps.Keys(r.Requests)) {
		amount := r.Requests[name]
		visit(name, amount, requests.Key(string(name)))
		limit, limited := r.Limits[name]
		switch {
		case !limited && !Overcommits(name):
			errs = append(errs, field.Required(limits, "Limit must be set for non overcommitable resources"))
		case limited && !Overcommits(name) && amount.Cmp(limit) != 0:
			errs = append(errs, field.Invalid(requests, amount.String(), fmt.Sprintf("must be equal to %s limit of %s", name, limit.String())))
		case limited && amount.Cmp(limit) > 0:
			errs = append(errs, field.Invalid(requests, amount.String(), fmt.Sprintf("must be less than or equal to %s limit of %s", name, limit.String())))
		}
	}
	if pages && !compute {
		errs = append(errs, field.Forbidden(path, "HugePages require cpu or memory"))
	}
	return append(errs, c.claims(r.Claims, path.Child("claims"))...)
}

// ValidateOverhead reports the errors of what running a pod takes beyond its containers; runtime classes have it too.
func ValidateOverhead(overhead corev1.ResourceList, path *field.Path) field.ErrorList {
	return new(checker).overhead(overhead, path)
}

// overhead is checked, and its errors are named, as the limits of a container.
func (c *checker) overhead(list corev1.ResourceList, path *field.Path) field.ErrorList {
	return c.requirements(&corev1.ResourceRequirements{Limits: list}, path, ValidateContainerResourceName)
}

// claims checks which of the pod's resource claims a container uses.
func (c *checker) claims(claims []corev1.ResourceClaim, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	whole, parts := sets.New[string](), sets.New[string]()
	for i, claim := range claims {
		at := path.Index(i)
		if claim.Name == "" {
			errs = append(errs, field.Required(at, ""))
			continue
		}
		key := claim.Name
		if claim.Request != "" {
			key += "/" + claim.Request
		}
		if whole.Has(claim.Name) || parts.Has(key) || (claim.Request == "" && partOf(parts, claim.Name)) {
			errs = append(errs, field.Duplicate(at, key))
		} else if claim.Request == "" {
			whole.Insert(claim.Name)
		} else {
			parts.Insert(key)
		}
		if !c.claimNames.Has(claim.Name) {
			missing := field.NotFound(at, claim.Name)
			missing.Detail = "must be one of the names in pod.spec.resourceClaims which is empty"
			if c.claimNames.Len() > 0 {
				missing.Detail = "must be one of the names in pod.spec.resourceClaims: " + strings.Join(sets.List(c.claimNames), ", ")
			}
			errs = append(errs, missing)
		}
		if claim.Request != "" {
			errs = append(errs, dnsLabel(claim.Request, at.Child("request"))...)
		}
	}
	return errs
}

func partOf(parts sets.Set[string], name string) bool {
	for p := range parts {
		if strings.HasPrefix(p, name+"/") {
			return true
		}
	}
	return false
}

// podResources checks the resources that all containers share against those of each.
func (c *checker) podResources(path *field.Path) field.ErrorList {
	r := c.spec.Resources
	if r == nil {
		return nil
	}
	at := path.Child("resources")
	var errs field.ErrorList
	if len(r.Claims) > 0 {
		errs = append(errs, field.Forbidden(at.Child("claims"), "claims cannot be set for Resources at pod-level"))
	}
	bare := corev1.ResourceRequirements{Limits: r.Limits, Requests: r.Requests}
	errs = append(errs, c.requirements(&bare, at, podResourceName)...)
	total := resourcehelper.AggregateContainerRequests(&corev1.Pod{Spec: *c.spec}, resourcehelper.PodResourcesOptions{})
	for _, name := range slices.Sorted(maps.Keys(total)) {
		sum := total[name]
		if asked, ok := r.Requests[name]; ok && isPodLevel(name) && sum.Cmp(asked) > 0 {
			errs = append(errs, field.Invalid(at.Child("requests").Key(string(name)), asked.String(),
				fmt.Sprintf("must be greater than or equal to aggregate container requests of %s", sum.String())))
		}
	}
	check := func(list []corev1.Container, lists *field.Path) {
		for i, ctr := range list {
			for _, name := range slices.Sorted(maps.Keys(ctr.Resources.Limits)) {
				limit := ctr.Resources.Limits[name]
				if bound, ok := r.Limits[name]; ok && isPodLevel(name) && limit.Cmp(bound) > 0 {
					errs = append(errs, field.Invalid(lists.Index(i).Child("resources", "limits").Key(string(name)), limit.String(),
						fmt.Sprintf("must be less than or equal to pod limits of %s", bound.String())))
				}
			}
		}
	}
	check(c.spec.Containers, path.Child("containers"))
	check(c.spec.InitContainers, path.Child("initContainers"))
	return errs
}

// defaultPodResources requests for the pod what has a limit and no request: as much as its containers together, or
// as is allowed.
func defaultPodResources(spec *corev1.PodSpec) {
	r := spec.Resources
	if r == nil || len(r.Limits) == 0 {
		return
	}
	total := resourcehelper.AggregateContainerRequests(&corev1.Pod{Spec: *spec}, resourcehelper.PodResourcesOptions{})
	for name, limit := range r.Limits {
		if _, ok := r.Requests[name]; ok || !isPodLevel(name) {
			continue
		}
		amount := limit
		if sum, ok := total[name]; ok && !IsHugePages(name) {
			amount = sum
		}
		if r.Requests == nil {
			r.Requests = corev1.ResourceList{}
		}
		r.Requests[name] = amount.DeepCopy()
	}
}

// LimitPodHugePages gives a new pod with resources of its own those huge pages that its containers ask for.
func LimitPodHugePages(spec *corev1.PodSpec) {
	r := spec.Resources
	if r == nil || (len(r.Limits) == 0 && len(r.Requests) == 0) {
		return
	}
	for name, total := range resourcehelper.AggregateContainerLimits(&corev1.Pod{Spec: *spec}, resourcehelper.PodResourcesOptions{}) {
		_, limited := r.Limits[name]
		_, requested := r.Requests[name]
		if !IsHugePages(name) || limited || requested {
			continue
		}
		if r.Limits == nil {
			r.Limits = corev1.ResourceList{}
		}
		if r.Requests == nil {
			r.Requests = corev1.ResourceList{}
		}
		r.Limits[name], r.Requests[name] = total.DeepCopy(), total.DeepCopy()
	}
}

// ValidateSinglePageSize refuses pods that use huge pages of several sizes.
func ValidateSinglePageSize(spec *corev1.PodSpec, path *field.Path) field.ErrorList {
	sizes := sets.New[string]()
	collect := func(list []corev1.Container) {
		for _, ctr := range list {
			for name := range ctr.Resources.Requests {
				if IsHugePages(name) {
					sizes.Insert(string(name))
				}
			}
		}
	}
	collect(spec.InitContainers)
	collect(spec.Containers)
	if sizes.Len() > 1 {
		return field.ErrorList{field.Invalid(path, sets.List(sizes), "must use a single hugepage size in a pod spec")}
	}
	return nil
}
