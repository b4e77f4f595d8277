// Package devices is the kinds of resource.k8s.io: DeviceClass says what devices a claim may ask for, ResourceClaim and
// ResourceClaimTemplate ask, ResourceSlice says what a node has, and DeviceTaintRule taints devices. Nothing allocates
// devices yet. All is pure functions but for the time of taints, and safe for concurrent use. Test with `go test ./agent/api/kinds/devices`.
package devices

import (
	"encoding/json"
	"strings"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/environment"
	dracel "k8s.io/dynamic-resource-allocation/cel"

	"github.com/podvine/podvine/agent/api/kinds"
)

// Resources returns the kinds.
func Resources() []kinds.Resource {
	access := &adminAccess{}
	return []kinds.Resource{classes(), claims(access), claimTemplates(access), resourceSlices(), taintRules()}
}

func invalid(at *field.Path, value any, messages []string) field.ErrorList {
	var errs field.ErrorList
	for _, m := range messages {
		errs = append(errs, field.Invalid(at, value, m))
	}
	return errs
}

// validateSelectors checks what selects devices. Expressions that are stored may use what newer ones may not.
func validateSelectors(selectors []resourcev1.DeviceSelector, stored []resourcev1.DeviceSelector, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(selectors) > resourcev1.DeviceSelectorsMaxSize {
		return field.ErrorList{field.TooMany(at, len(selectors), resourcev1.DeviceSelectorsMaxSize)}
	}
	known := map[string]bool{}
	for _, s := range stored {
		if s.CEL != nil {
			known[s.CEL.Expression] = true
		}
	}
	for i, s := range selectors {
		own := at.Index(i).Child("cel")
		if s.CEL == nil {
			errs = append(errs, field.Required(own, ""))
			continue
		}
		errs = append(errs, validateExpression(s.CEL.Expression, known[s.CEL.Expression], own.Child("expression"))...)
	}
	return errs
}

func validateExpression(expression string, stored bool, at *field.Path) field.ErrorList {
	if len(expression) > resourcev1.CELSelectorExpressionMaxLength {
		return field.ErrorList{field.TooLong(at, "", resourcev1.CELSelectorExpressionMaxLength)}
	}
	kind := environment.NewExpressions
	if stored {
		kind = environment.StoredExpressions
	}
	result := dracel.GetCompiler(dracel.Features{}).CompileCELExpression(expression, dracel.Options{EnvType: &kind})
	switch err := result.Error; {
	case err == nil:
	case err.Type == cel.ErrorTypeRequired:
		return field.ErrorList{field.Required(at, err.Detail)}
	case err.Type == cel.ErrorTypeInvalid:
		return field.ErrorList{field.Invalid(at, expression, err.Detail)}
	default:
		return field.ErrorList{field.InternalError(at, err)}
	}
	if result.MaxCost > resourcev1.CELSelectorExpressionMaxCost {
		return field.ErrorList{field.Forbidden(at, "too complex, exceeds cost limit")}
	}
	return nil
}

func validateOpaque(c *resourcev1.OpaqueDeviceConfiguration, at *field.Path) field.ErrorList {
	if c == nil {
		return field.ErrorList{field.Required(at, "")}
	}
	var errs field.ErrorList
	driver := at.Child("driver")
	if c.Driver == "" {
		errs = append(errs, field.Required(driver, ""))
	} else {
		errs = append(errs, invalid(driver, c.Driver, content.IsDNS1123SubdomainCaseless(c.Driver))...)
	}
	if len(c.Driver) > resourcev1.DriverNameMaxLength {
		errs = append(errs, field.TooLongCharacters(driver, c.Driver, resourcev1.DriverNameMaxLength))
	}
	return append(errs, validateParameters(c.Parameters, at.Child("parameters"))...)
}

func validateParameters(p runtime.RawExtension, at *field.Path) field.ErrorList {
	var object map[string]any
	switch {
	case len(p.Raw) == 0 || string(p.Raw) == "null":
		return field.ErrorList{field.Required(at, "")}
	case len(p.Raw) > resourcev1.OpaqueParametersMaxLength:
		return field.ErrorList{field.TooLong(at, "", resourcev1.OpaqueParametersMaxLength)}
	case json.Unmarshal(p.Raw, &object) != nil:
		return field.ErrorList{field.Invalid(at, "<value omitted>", "must be a valid JSON object")}
	}
	return nil
}

// validatePool checks the name of a pool: DNS subdomains that slashes part.
func validatePool(name string, at *field.Path) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(at, "")}
	}
	var errs field.ErrorList
	if len(name) > resourcev1.PoolNameMaxLength {
		errs = append(errs, field.TooLong(at, name, resourcev1.PoolNameMaxLength))
	}
	for part := range strings.SplitSeq(name, "/") {
		errs = append(errs, invalid(at, part, validation.IsDNS1123Subdomain(part))...)
	}
	return errs
}
