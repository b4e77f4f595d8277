package podspec

import (
	"fmt"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func (c *checker) env(vars []corev1.EnvVar, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i := range vars {
		at := path.Index(i)
		if vars[i].Name == "" {
			errs = append(errs, field.Required(at.Child("name"), ""))
		} else {
			errs = append(errs, invalid(at.Child("name"), vars[i].Name, validation.IsRelaxedEnvVarName(vars[i].Name))...)
		}
		errs = append(errs, c.envSource(&vars[i], at.Child("valueFrom"))...)
	}
	return errs
}

func (c *checker) envSource(v *corev1.EnvVar, path *field.Path) field.ErrorList {
	from := v.ValueFrom
	if from == nil {
		return nil
	}
	var errs field.ErrorList
	count := 0
	if from.FieldRef != nil {
		count++
		errs = append(errs, fieldSelector(from.FieldRef, envFieldPaths(), path.Child("fieldRef"))...)
	}
	if from.ResourceFieldRef != nil {
		count++
		errs = append(errs, resourceFieldSelector(from.ResourceFieldRef, false, path.Child("resourceFieldRef"))...)
	}
	if ref := from.ConfigMapKeyRef; ref != nil {
		count++
		errs = append(errs, keySelector(ref.Name, ref.Key, path.Child("configMapKeyRef"))...)
	}
	if ref := from.SecretKeyRef; ref != nil {
		count++
		errs = append(errs, keySelector(ref.Name, ref.Key, path.Child("secretKeyRef"))...)
	}
	if from.FileKeyRef != nil {
		count++
		errs = append(errs, c.fileSelector(from.FileKeyRef, path.Child("fileKeyRef"))...)
	}
	switch {
	case count == 0:
		errs = append(errs, field.Invalid(path, "", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"))
	case v.Value != "":
		errs = append(errs, field.Invalid(path, "", "may not be specified when `value` is not empty"))
	case count > 1:
		errs = append(errs, field.Invalid(path, "", "may not have more than one field specified at a time"))
	}
	return errs
}

func keySelector(name, key string, path *field.Path) field.ErrorList {
	errs := objectName(name, path.Child("name"))
	if key == "" {
		return append(errs, field.Required(path.Child("key"), ""))
	}
	return append(errs, invalid(path.Child("key"), key, validation.IsConfigMapKey(key))...)
}

// maxEnvFileKeyBytes bounds the key of a variable that comes from a file.
const maxEnvFileKeyBytes = 128

func (c *checker) fileSelector(ref *corev1.FileKeySelector, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if ref.VolumeName == "" {
		errs = append(errs, field.Required(path.Child("volumeName"), ""))
	} else {
		errs = append(errs, dnsLabel(ref.VolumeName, path.Child("volumeName"))...)
		if source, ok := c.volumes[ref.VolumeName]; !ok {
			errs = append(errs, field.NotFound(path.Child("volumeName"), ref.VolumeName))
		} else if source.EmptyDir == nil {
			errs = append(errs, field.Invalid(path.Child("volumeName"), ref.VolumeName, "referenced volume must be of type emptyDir"))
		}
	}
	if ref.Key == "" {
		errs = append(errs, field.Required(path.Child("key"), ""))
	} else {
		errs = append(errs, invalid(path.Child("key"), ref.Key, validation.IsRelaxedEnvVarName(ref.Key))...)
		if len(ref.Key) > maxEnvFileKeyBytes {
			errs = append(errs, field.TooLong(path.Child("key"), ref.Key, maxEnvFileKeyBytes))
		}
	}
	if ref.Path == "" {
		return append(errs, field.Required(path.Child("path"), ""))
	}
	return append(errs, volumeFilePath(ref.Path, path.Child("path"))...)
}

func (c *checker) envFrom(sources []corev1.EnvFromSource, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, from := range sources {
		at := path.Index(i)
		if from.Prefix != "" {
			errs = append(errs, invalid(at.Child("prefix"), from.Prefix, validation.IsRelaxedEnvVarName(from.Prefix))...)
		}
		count := 0
		if from.ConfigMapRef != nil {
			count++
			errs = append(errs, envObject(from.ConfigMapRef.Name, at.Child("configMapRef"))...)
		}
		if from.SecretRef != nil {
			count++
			errs = append(errs, envObject(from.SecretRef.Name, at.Child("secretRef"))...)
		}
		switch {
		case count == 0:
			errs = append(errs, field.Invalid(path, "", "must specify one of: `configMapRef` or `secretRef`"))
		case count > 1:
			errs = append(errs, field.Invalid(path, "", "may not have more than one field specified at a time"))
		}
	}
	return errs
}

func envObject(name string, path *field.Path) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(path.Child("name"), "")}
	}
	// A trailing dash is let through, as it always was.
	return invalid(path.Child("name"), name, apivalidation.NameIsDNSSubdomain(name, true))
}

// envFieldPaths are the fields of a pod that a variable can hold.
func envFieldPaths() sets.Set[string] {
	return sets.New("metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName",
		"status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs")
}

// volumeFieldPaths are the fields of a pod that a file can hold.
func volumeFieldPaths() sets.Set[string] {
	return sets.New("metadata.name", "metadata.namespace", "metadata.labels", "metadata.annotations", "metadata.uid")
}

var (
	subscripted = regexp.MustCompile(`^(.*)\['(.*)'\]$`)
	// pageResource is a resource of huge pages of some size.
	pageResource = regexp.MustCompile(`^(limits|requests)\.hugepages-`)
)

// fieldLabel follows a path of the downward API to the field that it means.
func fieldLabel(version, label string) (string, error) {
	if version != "v1" {
		return "", fmt.Errorf("unsupported pod version: %s", version)
	}
	if m := subscripted.FindStringSubmatch(label); m != nil {
		if m[1] == "metadata.annotations" || m[1] == "metadata.labels" {
			return label, nil
		}
		return "", fmt.Errorf("field label does not support subscript: %s", label)
	}
	switch label {
	case "metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid",
		"spec.nodeName", "spec.restartPolicy", "spec.serviceAccountName", "spec.schedulerName",
		"status.phase", "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs":
		return label, nil
	case "spec.host":
		return "spec.nodeName", nil
	}
	return "", fmt.Errorf("field label not supported: %s", label)
}

func fieldSelector(ref *corev1.ObjectFieldSelector, allowed sets.Set[string], path *field.Path) field.ErrorList {
	if ref.APIVersion == "" {
		return field.ErrorList{field.Required(path.Child("apiVersion"), "")}
	}
	if ref.FieldPath == "" {
		return field.ErrorList{field.Required(path.Child("fieldPath"), "")}
	}
	label, err := fieldLabel(ref.APIVersion, ref.FieldPath)
	if err != nil {
		return field.ErrorList{field.Invalid(path.Child("fieldPath"), ref.FieldPath, fmt.Sprintf("error converting fieldPath: %v", err))}
	}
	if m := subscripted.FindStringSubmatch(label); m != nil {
		key := m[2]
		if m[1] == "metadata.annotations" {
			key = strings.ToLower(key)
		}
		return qualifiedName(key, path)
	}
	if !allowed.Has(label) {
		return field.ErrorList{field.NotSupported(path.Child("fieldPath"), label, sets.List(allowed))}
	}
	return nil
}

// resourceFieldSelector checks a reference to an amount of the container (of the named one, for a volume).
func resourceFieldSelector(ref *corev1.ResourceFieldSelector, volume bool, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	resources := sets.New("limits.cpu", "limits.memory", "limits.ephemeral-storage", "requests.cpu", "requests.memory", "requests.ephemeral-storage")
	switch {
	case volume && ref.ContainerName == "":
		errs = append(errs, field.Required(path.Child("containerName"), ""))
	case ref.Resource == "":
		errs = append(errs, field.Required(path.Child("resource"), ""))
	case !resources.Has(ref.Resource) && !pageResource.MatchString(ref.Resource):
		errs = append(errs, field.NotSupported(path.Child("resource"), ref.Resource, sets.List(resources)))
	}
	return append(errs, divisor(ref, path)...)
}

func divisor(ref *corev1.ResourceFieldSelector, path *field.Path) field.ErrorList {
	var unset resource.Quantity
	if unset.Cmp(ref.Divisor) == 0 {
		return nil
	}
	kind := ""
	switch name := ref.Resource; {
	case name == "limits.cpu" || name == "requests.cpu":
		if s := ref.Divisor.String(); s != "1" && s != "1m" {
			return field.ErrorList{field.Invalid(path.Child("divisor"), name, "only divisor's values 1m and 1 are supported with the cpu resource")}
		}
		return nil
	case name == "limits.memory" || name == "requests.memory":
		kind = "memory"
	case name == "limits.ephemeral-storage" || name == "requests.ephemeral-storage":
		kind = "local ephemeral storage"
	case pageResource.MatchString(name):
		kind = "hugepages"
	default:
		return nil
	}
	const units = "1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei"
	if !sets.New(strings.Split(units, ", ")...).Has(ref.Divisor.String()) {
		return field.ErrorList{field.Invalid(path.Child("divisor"), ref.Resource, "only divisor's values "+units+" are supported with the "+kind+" resource")}
	}
	return nil
}
