// Package storage is the kinds of storage.k8s.io: StorageClass, VolumeAttributesClass, CSIDriver, CSINode,
// CSIStorageCapacity and VolumeAttachment. Here are their defaults, rules and columns; nothing provisions, attaches or
// mounts what they describe yet. All is pure functions and safe for concurrent use.
// Test with `go test ./agent/api/kinds/storage`.
package storage

import (
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/podvine/podvine/agent/api/kinds"
)

// Limits of the parameters of classes, Kubernetes' own.
const (
	maxParameters     = 512
	maxParameterBytes = 256 * 1024
)

// Resources returns the kinds.
func Resources() []kinds.Resource {
	return []kinds.Resource{classes(), attributesClasses(), drivers(), nodes(), capacities(), attachments()}
}

func invalid(at *field.Path, value any, messages []string) field.ErrorList {
	var errs field.ErrorList
	for _, m := range messages {
		errs = append(errs, field.Invalid(at, value, m))
	}
	return errs
}

func notSupported[V ~string](at *field.Path, value V, supported ...V) field.ErrorList {
	if slices.Contains(supported, value) {
		return nil
	}
	return field.ErrorList{field.NotSupported(at, value, supported)}
}

// validateParameters checks what a class hands to its driver.
func validateParameters(parameters map[string]string, required bool, at *field.Path) field.ErrorList {
	if len(parameters) == 0 && required {
		return field.ErrorList{field.Required(at, "must contain at least one key/value pair")}
	}
	if len(parameters) > maxParameters {
		return field.ErrorList{field.TooLong(at, "", maxParameters)}
	}
	var errs field.ErrorList
	size := 0
	for _, key := range slices.Sorted(maps.Keys(parameters)) {
		if key == "" {
			errs = append(errs, field.Invalid(at, key, "field can not be empty."))
		}
		size += len(key) + len(parameters[key])
	}
	if size > maxParameterBytes {
		errs = append(errs, field.TooLong(at, "", maxParameterBytes))
	}
	return errs
}

// validateDriver checks the name of a driver or provisioner.
func validateDriver(name string, at *field.Path) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(at, "")}
	}
	return invalid(at, strings.ToLower(name), validation.IsQualifiedName(strings.ToLower(name)))
}
