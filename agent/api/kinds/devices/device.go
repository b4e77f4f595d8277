package devices

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/blang/semver/v4"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/operation"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/api/validate"
	"k8s.io/apimachinery/pkg/api/validate/content"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func defaultTaints(taints []resourcev1.DeviceTaint) {
	for i := range taints {
		if taints[i].TimeAdded == nil {
			taints[i].TimeAdded = &metav1.Time{Time: time.Now().Truncate(time.Second)}
		}
	}
}

func validateDevice(d *resourcev1.Device, perDevice bool, at *field.Path) field.ErrorList {
	errs := validateLabel(d.Name, at.Child("name"))
	for name, a := range d.Attributes {
		own := at.Child("attributes").Key(string(name))
		errs = append(errs, validateQualified(string(name), own)...)
		errs = append(errs, validateAttribute(a, own)...)
	}
	for name, c := range d.Capacity {
		own := at.Child("capacity").Key(string(name))
		errs = append(errs, validateQualified(string(name), own)...)
		errs = append(errs, validatePolicy(c, d.AllowMultipleAllocations != nil && *d.AllowMultipleAllocations, own)...)
	}
	if n, limit := len(d.Attributes)+len(d.Capacity), resourcev1.ResourceSliceMaxAttributesAndCapacitiesPerDevice; n > limit {
		errs = append(errs, field.Invalid(at, n, fmt.Sprintf("the total number of attributes and capacities must not exceed %d", limit)))
	}
	errs = append(errs, atMost(d.Taints, resourcev1.DeviceTaintsMaxLength, at.Child("taints"))...)
	for i := range bounded(d.Taints, resourcev1.DeviceTaintsMaxLength) {
		errs = append(errs, validateTaint(&d.Taints[i], at.Child("taints").Index(i))...)
	}
	errs = append(errs, validateConsumption(d.ConsumesCounters, at.Child("consumesCounters"))...)
	chosen, chooses := validatePlace(d.NodeName, d.NodeSelector, d.AllNodes, at)
	switch {
	case perDevice:
		errs = append(append(errs, chooses...), exactlyOne(chosen, "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec", at)...)
	case d.NodeName != nil || d.NodeSelector != nil || d.AllNodes != nil:
		errs = append(errs, field.Invalid(at, nil, "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec"))
	}
	return append(errs, validateBindings(d.BindingConditions, d.BindingFailureConditions, at)...)
}

func validateConsumption(list []resourcev1.DeviceCounterConsumption, at *field.Path) field.ErrorList {
	errs := unique(list, resourcev1.ResourceSliceMaxDeviceCounterConsumptionsPerDevice, at, "counterSet", func(c resourcev1.DeviceCounterConsumption) string { return c.CounterSet })
	for i, c := range bounded(list, resourcev1.ResourceSliceMaxDeviceCounterConsumptionsPerDevice) {
		errs = append(errs, validateNeeded(c.CounterSet, at.Index(i).Child("counterSet"))...)
		errs = append(errs, validateCounters(c.Counters, resourcev1.ResourceSliceMaxCountersPerDeviceCounterConsumption, at.Index(i).Child("counters"))...)
	}
	return errs
}

func validateAttribute(a resourcev1.DeviceAttribute, at *field.Path) field.ErrorList {
	const kinds = "`int`, `bool`, `string`, `version`, `ints`, `bools`, `strings`, `versions`"
	var errs field.ErrorList
	var set []string
	for _, f := range []struct {
		name string
		set  bool
	}{{"int", a.IntValue != nil}, {"bool", a.BoolValue != nil}, {"string", a.StringValue != nil}, {"version", a.VersionValue != nil}} {
		if f.set {
			set = append(set, f.name)
		}
	}
	if s := a.StringValue; s != nil && len(*s) > resourcev1.DeviceAttributeMaxValueLength {
		errs = append(errs, field.TooLong(at.Child("string"), *s, resourcev1.DeviceAttributeMaxValueLength))
	}
	if v := a.VersionValue; v != nil {
		if _, err := semver.Parse(*v); err != nil {
			errs = append(errs, field.Invalid(at.Child("version"), *v, "must be a string compatible with semver.org spec 2.0.0"))
		}
		if len(*v) > resourcev1.DeviceAttributeMaxValueLength {
			errs = append(errs, field.TooLong(at.Child("version"), *v, resourcev1.DeviceAttributeMaxValueLength))
		}
	}
	switch len(set) {
	case 0:
		errs = append(errs, field.Invalid(at, "", "must specify one of: "+kinds))
	case 1:
	default:
		errs = append(errs, field.Invalid(at, "{"+strings.Join(set, ", ")+"}", "must specify exactly one of: "+kinds))
	}
	return errs
}

// validatePolicy checks how much of a capacity may be asked for.
func validatePolicy(c resourcev1.DeviceCapacity, several bool, at *field.Path) field.ErrorList {
	p := c.RequestPolicy
	if p == nil {
		return nil
	}
	own := at.Child("requestPolicy")
	if !several {
		return field.ErrorList{field.Forbidden(own, "allowMultipleAllocations must be true")}
	}
	var errs field.ErrorList
	switch {
	case p.ValidValues != nil && p.ValidRange != nil:
		errs = append(errs, field.Forbidden(own, `exactly one policy can be specified, cannot specify "validValues" and "validRange" at the same time`))
	case p.Default == nil && (p.ValidValues != nil || p.ValidRange != nil):
		errs = append(errs, field.Required(own.Child("default"), "required when validValues or validRange is defined"))
	}
	within := func(name string, q *resource.Quantity) {
		if q != nil && q.Cmp(c.Value) > 0 {
			errs = append(errs, field.Invalid(own.Child(name), q.String(), "must not be greater than the capacity's value "+c.Value.String()))
		}
	}
	within("default", p.Default)
	if r := p.ValidRange; r != nil {
		if r.Min == nil {
			errs = append(errs, field.Required(own.Child("validRange", "min"), ""))
		}
		if r.Min != nil && r.Max != nil && r.Min.Cmp(*r.Max) > 0 {
			errs = append(errs, field.Invalid(own.Child("validRange", "min"), r.Min.String(), "must not be greater than max "+r.Max.String()))
		}
		within("validRange.max", r.Max)
	}
	if p.Default != nil && len(p.ValidValues) > 0 && !slices.ContainsFunc(p.ValidValues, func(q resource.Quantity) bool { return q.Cmp(*p.Default) == 0 }) {
		errs = append(errs, field.Invalid(own.Child("default"), p.Default.String(), "must be one of validValues"))
	}
	return errs
}

// validateBindings checks the conditions for which a binding waits, and those that end it.
func validateBindings(conditions, failures []string, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, list := range []struct {
		name   string
		values []string
		limit  int
	}{{"bindingConditions", conditions, resourcev1.BindingConditionsMaxSize}, {"bindingFailureConditions", failures, resourcev1.BindingFailureConditionsMaxSize}} {
		own := at.Child(list.name)
		errs = append(errs, atMost(list.values, list.limit, own)...)
		for i, value := range bounded(list.values, list.limit) {
			errs = append(errs, metav1validation.ValidateLabelName(value, own.Index(i))...)
		}
	}
	switch {
	case len(conditions) > 0 && len(failures) == 0:
		errs = append(errs, field.Invalid(at.Child("bindingFailureConditions"), nil, "bindingFailureConditions are required to use bindingConditions"))
	case len(failures) > 0 && len(conditions) == 0:
		errs = append(errs, field.Invalid(at.Child("bindingConditions"), nil, "bindingConditions are required to use bindingFailureConditions"))
	}
	return errs
}

func taintEffects() []resourcev1.DeviceTaintEffect {
	return []resourcev1.DeviceTaintEffect{resourcev1.DeviceTaintEffectNoExecute, resourcev1.DeviceTaintEffectNoSchedule, resourcev1.DeviceTaintEffectNone}
}

func validateLabel(value string, at *field.Path) field.ErrorList {
	return invalid(at, value, content.IsDNS1123Label(value))
}

func validateNeeded(value string, at *field.Path) field.ErrorList {
	if value == "" {
		return field.ErrorList{field.Required(at, "")}
	}
	return validateLabel(value, at)
}

func validateLabelValue(value string, at *field.Path) field.ErrorList {
	return invalid(at, value, validation.IsValidLabelValue(value))
}

func validateDriver(name string, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if name == "" {
		errs = append(errs, field.Required(at, ""))
	} else {
		errs = append(errs, invalid(at, name, content.IsDNS1123SubdomainCaseless(name))...)
	}
	if len(name) > resourcev1.DriverNameMaxLength {
		errs = append(errs, field.TooLongCharacters(at, name, resourcev1.DriverNameMaxLength))
	}
	return errs
}

// validateQualified checks DOMAIN/NAME, or NAME alone.
func validateQualified(name string, at *field.Path) field.ErrorList {
	domain, id, qualified := strings.Cut(name, "/")
	if !qualified {
		return validateIdentifier(name, at)
	}
	var errs field.ErrorList
	if strings.Contains(id, "/") {
		return field.ErrorList{field.Invalid(at, name, "a qualified name must be a domain and a name separated by a slash, or a name alone")}
	}
	if domain == "" {
		errs = append(errs, field.Required(at, "the domain must not be empty"))
	} else {
		errs = append(errs, validateDriver(domain, at)...)
	}
	if id == "" {
		return append(errs, field.Required(at, "the name must not be empty"))
	}
	return append(errs, validateIdentifier(id, at)...)
}

func validateIdentifier(id string, at *field.Path) field.ErrorList {
	errs := invalid(at, id, content.IsCIdentifier(id))
	if len(id) > resourcev1.DeviceMaxIDLength {
		errs = append(errs, field.TooLong(at, id, resourcev1.DeviceMaxIDLength))
	}
	return errs
}

func validateFullyQualified(name string, at *field.Path) field.ErrorList {
	errs := validateQualified(name, at)
	if !strings.Contains(name, "/") {
		errs = append(errs, field.Invalid(at, name, "a fully qualified name must be a domain and a name separated by a slash"))
	}
	return errs
}

func validateShare(id string, at *field.Path) field.ErrorList {
	return validate.UUID(context.Background(), operation.Operation{Type: operation.Create}, at, &id, nil)
}

// atMost reports a list that is too long; what is beyond is not looked at.
func atMost[V any](list []V, limit int, at *field.Path) field.ErrorList {
	if len(list) > limit {
		return field.ErrorList{field.TooMany(at, len(list), limit)}
	}
	return nil
}

// bounded is the list, or nothing of one that is too long.
func bounded[V any](list []V, limit int) []V {
	if len(list) > limit {
		return nil
	}
	return list
}

// unique reports a list that is too long, and members with the same key, which is the field of that name or, where "", the
// member itself.
func unique[V any](list []V, limit int, at *field.Path, name string, key func(V) string) field.ErrorList {
	errs := atMost(list, limit, at)
	seen := map[string]bool{}
	for i, v := range bounded(list, limit) {
		k, own := key(v), at.Index(i)
		if name != "" {
			own = own.Child(name)
		}
		if seen[k] {
			errs = append(errs, field.Duplicate(own, k))
		}
		seen[k] = true
	}
	return errs
}
