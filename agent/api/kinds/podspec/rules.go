package podspec

import (
	"slices"
	"strings"

	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// invalid turns each message about a value into an error.
func invalid(path *field.Path, value any, messages []string) field.ErrorList {
	var errs field.ErrorList
	for _, m := range messages {
		errs = append(errs, field.Invalid(path, value, m))
	}
	return errs
}

func dnsLabel(value string, path *field.Path) field.ErrorList {
	return invalid(path, value, validation.IsDNS1123Label(value))
}

func dnsSubdomain(value string, path *field.Path) field.ErrorList {
	return invalid(path, value, validation.IsDNS1123Subdomain(value))
}

// objectName is the rule for names of objects that other objects point to: a DNS subdomain.
func objectName(value string, path *field.Path) field.ErrorList {
	return invalid(path, value, apivalidation.NameIsDNSSubdomain(value, false))
}

func qualifiedName(value string, path *field.Path) field.ErrorList {
	return invalid(path, value, validation.IsQualifiedName(value))
}

// Unique drops errors that say the same about the same field.
func Unique(errs field.ErrorList) field.ErrorList {
	seen := sets.New[string]()
	return slices.DeleteFunc(errs, func(e *field.Error) bool {
		key := e.Error()
		dup := seen.Has(key)
		seen.Insert(key)
		return dup
	})
}

// required reports an empty text.
func required(value string, path *field.Path) field.ErrorList {
	if value == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	return nil
}

// OneOf accepts the listed values, in the order in which an error names them.
func OneOf[T ~string](value T, path *field.Path, supported ...T) field.ErrorList {
	for _, s := range supported {
		if value == s {
			return nil
		}
	}
	return field.ErrorList{field.NotSupported(path, value, supported)}
}

// requiredOneOf is OneOf for a value whose absence has an error of its own.
func requiredOneOf[T ~string](value T, path *field.Path, supported ...T) field.ErrorList {
	if value == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	return OneOf(value, path, supported...)
}

// DescendingPath accepts a relative path that stays below where it starts.
func DescendingPath(value string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if strings.HasPrefix(value, "/") {
		errs = append(errs, field.Invalid(path, value, "must be a relative path"))
	}
	return append(errs, noBacksteps(value, path)...)
}

func noBacksteps(value string, path *field.Path) field.ErrorList {
	if sets.New(strings.Split(value, "/")...).Has("..") {
		return field.ErrorList{field.Invalid(path, value, "must not contain '..'")}
	}
	return nil
}

// volumeFilePath is DescendingPath for files that are written into a volume: their names may not look like the
// hidden ones of the atomic writer.
func volumeFilePath(value string, path *field.Path) field.ErrorList {
	errs := DescendingPath(value, path)
	if strings.HasPrefix(value, "..") && !strings.HasPrefix(value, "../") {
		errs = append(errs, field.Invalid(path, value, "must not start with '..'"))
	}
	return errs
}

func userID(value *int64, path *field.Path) field.ErrorList {
	if value == nil {
		return nil
	}
	return invalid(path, *value, validation.IsValidUserID(*value))
}

func groupID(value *int64, path *field.Path) field.ErrorList {
	if value == nil {
		return nil
	}
	return invalid(path, *value, validation.IsValidGroupID(*value))
}
