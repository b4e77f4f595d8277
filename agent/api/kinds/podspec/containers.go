package podspec

import (
	"fmt"
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func (c *checker) containers(path *field.Path) field.ErrorList {
	list := c.spec.Containers
	if len(list) == 0 {
		return field.ErrorList{field.Required(path, "")}
	}
	var errs field.ErrorList
	names := sets.New[string]()
	for i := range list {
		at := path.Index(i)
		errs = append(errs, c.container(&list[i], at)...)
		errs = append(errs, uniqueName(names, list[i].Name, at)...)
		errs = append(errs, c.lifecycle(list[i].Lifecycle, at.Child("lifecycle"))...)
		errs = append(errs, c.probes(&list[i], at)...)
		errs = append(errs, c.restartRules(&list[i], at)...)
	}
	return append(errs, hostPortConflicts(list, path)...)
}

func uniqueName(names sets.Set[string], name string, at *field.Path) field.ErrorList {
	if names.Has(name) {
		return field.ErrorList{field.Duplicate(at.Child("name"), name)}
	}
	if name != "" {
		names.Insert(name)
	}
	return nil
}

// sidecar says whether an init container runs beside the others.
func sidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

func (c *checker) initContainers(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	names := sets.New[string]()
	for _, ctr := range c.spec.Containers {
		names.Insert(ctr.Name)
	}
	for i := range c.spec.InitContainers {
		ctr, at := &c.spec.InitContainers[i], path.Index(i)
		errs = append(errs, c.container(ctr, at)...)
		errs = append(errs, c.restartRules(ctr, at)...)
		errs = append(errs, uniqueName(names, ctr.Name, at)...)
		// Init containers run one by one, so only ports of the same one can collide.
		errs = append(errs, hostPortConflicts([]corev1.Container{*ctr}, path)...)
		if sidecar(ctr) {
			errs = append(errs, c.lifecycle(ctr.Lifecycle, at.Child("lifecycle"))...)
			errs = append(errs, c.probes(ctr, at)...)
			continue
		}
		errs = append(errs, sidecarOnly(ctr, at)...)
	}
	return errs
}

// sidecarOnly refuses what makes no sense for a container that has to end before the next one starts.
func sidecarOnly(ctr *corev1.Container, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	refuse := func(set bool, name string) {
		if set {
			errs = append(errs, field.Forbidden(at.Child(name), "may not be set for init containers without restartPolicy=Always"))
		}
	}
	refuse(ctr.Lifecycle != nil, "lifecycle")
	refuse(ctr.LivenessProbe != nil, "livenessProbe")
	refuse(ctr.ReadinessProbe != nil, "readinessProbe")
	refuse(ctr.StartupProbe != nil, "startupProbe")
	return errs
}

// ephemeralFields are the only ones that an ephemeral container may use.
func ephemeralFields() sets.Set[string] {
	return sets.New("Name", "Image", "Command", "Args", "WorkingDir", "EnvFrom", "Env", "VolumeMounts", "VolumeDevices",
		"TerminationMessagePath", "TerminationMessagePolicy", "ImagePullPolicy", "SecurityContext", "Stdin", "StdinOnce", "TTY")
}

func (c *checker) ephemeralContainers(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	targets := sets.New[string]()
	for _, ctr := range c.spec.Containers {
		targets.Insert(ctr.Name)
	}
	for _, ctr := range c.spec.InitContainers {
		targets.Insert(ctr.Name)
	}
	names := targets.Clone()
	for i := range c.spec.EphemeralContainers {
		eph, at := &c.spec.EphemeralContainers[i], path.Index(i)
		ctr := corev1.Container(eph.EphemeralContainerCommon)
		errs = append(errs, c.container(&ctr, at)...)
		errs = append(errs, uniqueName(names, eph.Name, at)...)
		if eph.TargetContainerName != "" && !targets.Has(eph.TargetContainerName) {
			errs = append(errs, field.NotFound(at.Child("targetContainerName"), eph.TargetContainerName))
		}
		errs = append(errs, onlyEphemeralFields(&eph.EphemeralContainerCommon, at)...)
	}
	return errs
}

func onlyEphemeralFields(common *corev1.EphemeralContainerCommon, at *field.Path) field.ErrorList {
	const refused = "cannot be set for an Ephemeral Container"
	var errs field.ErrorList
	allowed := ephemeralFields()
	v := reflect.ValueOf(common).Elem()
	for i := range v.NumField() {
		name := v.Type().Field(i).Name
		if !allowed.Has(name) && !v.Field(i).IsZero() {
			errs = append(errs, field.Forbidden(at.Child(strings.ToLower(name[:1])+name[1:]), refused))
		}
	}
	for i, m := range common.VolumeMounts {
		mount := at.Child("volumeMounts").Index(i)
		if m.SubPath != "" {
			errs = append(errs, field.Forbidden(mount.Child("subPath"), refused))
		}
		if m.SubPathExpr != "" {
			errs = append(errs, field.Forbidden(mount.Child("subPathExpr"), refused))
		}
	}
	return errs
}

// container checks what is the same for containers of every sort.
func (c *checker) container(ctr *corev1.Container, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if ctr.Name == "" {
		errs = append(errs, field.Required(at.Child("name"), ""))
	} else {
		errs = append(errs, dnsLabel(ctr.Name, at.Child("name"))...)
	}
	if ctr.Image == "" {
		errs = append(errs, field.Required(at.Child("image"), ""))
	} else if strings.TrimSpace(ctr.Image) != ctr.Image && c.opts.Pod {
		errs = append(errs, field.Invalid(at.Child("image"), ctr.Image, "must not have leading or trailing whitespace"))
	}
	errs = append(errs, requiredOneOf(ctr.TerminationMessagePolicy, at.Child("terminationMessagePolicy"),
		corev1.TerminationMessageReadFile, corev1.TerminationMessageFallbackToLogsOnError)...)
	errs = append(errs, c.ports(ctr.Ports, at.Child("ports"))...)
	errs = append(errs, c.env(ctr.Env, at.Child("env"))...)
	errs = append(errs, c.envFrom(ctr.EnvFrom, at.Child("envFrom"))...)
	errs = append(errs, c.mounts(ctr, at.Child("volumeMounts"))...)
	errs = append(errs, c.devices(ctr, at.Child("volumeDevices"))...)
	errs = append(errs, requiredOneOf(ctr.ImagePullPolicy, at.Child("imagePullPolicy"), corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever)...)
	errs = append(errs, c.requirements(&ctr.Resources, at.Child("resources"), ValidateContainerResourceName)...)
	errs = append(errs, resizePolicies(ctr.ResizePolicy, c.spec.RestartPolicy, at.Child("resizePolicy"))...)
	errs = append(errs, c.containerSecurity(ctr.SecurityContext, at.Child("securityContext"))...)
	return errs
}

func resizePolicies(policies []corev1.ContainerResizePolicy, restart corev1.RestartPolicy, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	seen := sets.New[corev1.ResourceName]()
	for i, p := range policies {
		if seen.Has(p.ResourceName) {
			errs = append(errs, field.Duplicate(path.Index(i), p.ResourceName))
		}
		seen.Insert(p.ResourceName)
		errs = append(errs, requiredOneOf(p.ResourceName, path, corev1.ResourceCPU, corev1.ResourceMemory)...)
		errs = append(errs, requiredOneOf(p.RestartPolicy, path, corev1.NotRequired, corev1.RestartContainer)...)
		if restart == corev1.RestartPolicyNever && p.RestartPolicy != corev1.NotRequired {
			errs = append(errs, field.Invalid(path, p.RestartPolicy, "must be 'NotRequired' when `restartPolicy` is 'Never'"))
		}
	}
	return errs
}

// ports checks the ports of one container.
func (c *checker) ports(ports []corev1.ContainerPort, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	names := sets.New[string]()
	for i, p := range ports {
		at := path.Index(i)
		if p.Name != "" {
			if messages := validation.IsValidPortName(p.Name); len(messages) > 0 {
				errs = append(errs, invalid(at.Child("name"), p.Name, messages)...)
			} else {
				errs = append(errs, uniqueName(names, p.Name, at)...)
			}
		}
		if p.ContainerPort == 0 {
			errs = append(errs, field.Required(at.Child("containerPort"), ""))
		} else {
			errs = append(errs, invalid(at.Child("containerPort"), p.ContainerPort, validation.IsValidPortNum(int(p.ContainerPort)))...)
		}
		if p.HostPort != 0 {
			errs = append(errs, invalid(at.Child("hostPort"), p.HostPort, validation.IsValidPortNum(int(p.HostPort)))...)
		}
		errs = append(errs, requiredOneOf(p.Protocol, at.Child("protocol"), corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP)...)
	}
	return errs
}

// hostPortConflicts reports host ports that are asked for twice.
func hostPortConflicts(list []corev1.Container, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	seen := sets.New[string]()
	for i, ctr := range list {
		for j, p := range ctr.Ports {
			if p.HostPort == 0 {
				continue
			}
			key := fmt.Sprintf("%s/%s/%d", p.Protocol, p.HostIP, p.HostPort)
			if seen.Has(key) {
				errs = append(errs, field.Duplicate(path.Index(i).Child("ports").Index(j).Child("hostPort"), key))
			}
			seen.Insert(key)
		}
	}
	return errs
}

// hostNetwork demands that ports of the host network are the container's.
func (c *checker) hostNetwork(path *field.Path) field.ErrorList {
	if !c.spec.HostNetwork || c.opts.AllowHostPortMismatch {
		return nil
	}
	var errs field.ErrorList
	check := func(list []corev1.Container, at *field.Path) {
		for i, ctr := range list {
			for j, p := range ctr.Ports {
				mismatch := p.HostPort != p.ContainerPort
				if mismatch && (c.opts.Pod || p.HostPort != 0) {
					errs = append(errs, field.Invalid(at.Index(i).Child("ports").Index(j).Child("hostPort"), p.HostPort, "must match `containerPort` when `hostNetwork` is true"))
				}
			}
		}
	}
	check(c.spec.Containers, path.Child("containers"))
	return errs
}
