package podspec

import (
	"fmt"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	maxCredentialSpecKiB      = 64
	maxRunAsUserDomainLetters = 256
	maxRunAsUserLetters       = 104
)

var (
	controlLetters  = regexp.MustCompile(`[[:cntrl:]]+`)
	netBIOSDomain   = regexp.MustCompile(`^[^\\/:\*\?"<>|\.][^\\/:\*\?"<>|]{0,14}$`)
	dnsDomain       = regexp.MustCompile(`^[a-zA-Z0-9]{1}[a-zA-Z0-9\-]{0,61}[a-zA-Z0-9]{0,1}(\.[a-zA-Z0-9]{1}[a-zA-Z0-9\-]{0,61}[a-zA-Z0-9]{0,1})*$`)
	userLetters     = regexp.MustCompile(`^[^"/\\:;|=,\+\*\?<>@\[\]]+$`)
	dotsAndSpaces   = regexp.MustCompile(`^[\. ]+$`)
	forbiddenInUser = `"/\:;|=,+*?<>@[]`
)

func windowsOptions(o *corev1.WindowsSecurityContextOptions, path *field.Path) field.ErrorList {
	if o == nil {
		return nil
	}
	var errs field.ErrorList
	if o.GMSACredentialSpecName != nil {
		errs = append(errs, dnsSubdomain(*o.GMSACredentialSpecName, path.Child("gmsaCredentialSpecName"))...)
	}
	if s := o.GMSACredentialSpec; s != nil {
		at := path.Child("gmsaCredentialSpec")
		if *s == "" {
			errs = append(errs, field.Invalid(at, *s, "gmsaCredentialSpec cannot be an empty string"))
		} else if len(*s) > maxCredentialSpecKiB*1024 {
			errs = append(errs, field.Invalid(at, *s, fmt.Sprintf("gmsaCredentialSpec size must be under %d KiB", maxCredentialSpecKiB)))
		}
	}
	if o.RunAsUserName != nil {
		errs = append(errs, invalid(path.Child("runAsUserName"), *o.RunAsUserName, windowsUser(*o.RunAsUserName))...)
	}
	return errs
}

// windowsUser says what is wrong with the name of a user, with or without a domain before it.
func windowsUser(name string) []string {
	if name == "" {
		return []string{"runAsUserName cannot be an empty string"}
	}
	if controlLetters.MatchString(name) {
		return []string{"runAsUserName cannot contain control characters"}
	}
	domain, user, qualified := strings.Cut(name, `\`)
	if !qualified {
		user = domain
	} else if strings.Contains(user, `\`) {
		return []string{"runAsUserName cannot contain more than one backslash"}
	}
	var out []string
	if qualified {
		if len(domain) > maxRunAsUserDomainLetters {
			out = append(out, fmt.Sprintf("runAsUserName's Domain length must be under %d characters", maxRunAsUserDomainLetters))
		}
		if !netBIOSDomain.MatchString(domain) && !dnsDomain.MatchString(domain) {
			out = append(out, "runAsUserName's Domain doesn't match the NetBIOS nor the DNS format")
		}
	}
	if user == "" {
		return append(out, "runAsUserName's User cannot be empty")
	}
	if len(user) > maxRunAsUserLetters {
		out = append(out, fmt.Sprintf("runAsUserName's User length must not be longer than %d characters", maxRunAsUserLetters))
	}
	if !userLetters.MatchString(user) {
		out = append(out, "runAsUserName's User cannot contain the following characters: "+forbiddenInUser)
	}
	if dotsAndSpaces.MatchString(user) {
		out = append(out, "runAsUserName's User cannot contain only periods or spaces")
	}
	return out
}

// hostProcess demands that either all containers or none are Windows host processes, and what these need.
func (c *checker) hostProcess(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	pod := hostProcessOf(c.spec.SecurityContext)
	with, without := 0, 0
	c.eachSecurity(path, func(sc *corev1.SecurityContext, at *field.Path) {
		var own *bool
		if sc != nil && sc.WindowsOptions != nil {
			own = sc.WindowsOptions.HostProcess
		}
		if pod != nil && own != nil && *pod != *own {
			errs = append(errs, field.Invalid(at.Child("windowsOptions", "hostProcess"), *own, fmt.Sprintf("pod hostProcess value must be identical if both are specified, was %v", *pod)))
		}
		switch {
		case own != nil && *own, own == nil && pod != nil && *pod:
			with++
		default:
			without++
		}
	})
	if with == 0 {
		return errs
	}
	if without > 0 {
		errs = append(errs, field.Invalid(path, "", "If pod contains any hostProcess containers then all containers must be HostProcess containers"))
	}
	if !c.spec.HostNetwork {
		errs = append(errs, field.Invalid(path.Child("hostNetwork"), false, "hostNetwork must be true if pod contains any hostProcess containers"))
	}
	return errs
}

func hostProcessOf(sc *corev1.PodSecurityContext) *bool {
	if sc == nil || sc.WindowsOptions == nil {
		return nil
	}
	return sc.WindowsOptions.HostProcess
}

// eachSecurity visits the security context of every container, nil where there is none.
func (c *checker) eachSecurity(path *field.Path, visit func(*corev1.SecurityContext, *field.Path)) {
	for i := range c.spec.Containers {
		visit(c.spec.Containers[i].SecurityContext, path.Child("containers").Index(i).Child("securityContext"))
	}
	for i := range c.spec.InitContainers {
		visit(c.spec.InitContainers[i].SecurityContext, path.Child("initContainers").Index(i).Child("securityContext"))
	}
	for i := range c.spec.EphemeralContainers {
		visit(c.spec.EphemeralContainers[i].SecurityContext, path.Child("ephemeralContainers").Index(i).Child("securityContext"))
	}
}

// operatingSystem checks the name of the system, and refuses fields that the other one alone has.
func (c *checker) operatingSystem(path *field.Path) field.ErrorList {
	if c.spec.OS == nil {
		return nil
	}
	at := path.Child("os")
	switch c.spec.OS.Name {
	case "":
		return field.ErrorList{field.Required(at.Child("name"), "")}
	case corev1.Linux:
		return c.linuxOnly(path)
	case corev1.Windows:
		return c.windowsOnly(path)
	}
	return OneOf(c.spec.OS.Name, at, corev1.Linux, corev1.Windows)
}

func (c *checker) linuxOnly(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	const refused = "windows options cannot be set for a linux pod"
	if sc := c.spec.SecurityContext; sc != nil && sc.WindowsOptions != nil {
		errs = append(errs, field.Forbidden(path.Child("securityContext", "windowsOptions"), refused))
	}
	c.eachSecurity(path, func(sc *corev1.SecurityContext, at *field.Path) {
		if sc != nil && sc.WindowsOptions != nil {
			errs = append(errs, field.Forbidden(at.Child("windowsOptions"), refused))
		}
	})
	return errs
}

func (c *checker) windowsOnly(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	refuse := func(set bool, at *field.Path, names ...string) {
		if set {
			errs = append(errs, field.Forbidden(at.Child(names[0], names[1:]...), "cannot be set for a windows pod"))
		}
	}
	if sc, at := c.spec.SecurityContext, path.Child("securityContext"); sc != nil {
		refuse(sc.AppArmorProfile != nil, at, "appArmorProfile")
		refuse(sc.SELinuxOptions != nil, at, "seLinuxOptions")
		refuse(c.spec.HostUsers != nil, path, "hostUsers")
		refuse(c.spec.HostPID, path, "hostPID")
		refuse(c.spec.HostIPC, path, "hostIPC")
		refuse(sc.SeccompProfile != nil, at, "seccompProfile")
		refuse(sc.FSGroup != nil, at, "fsGroup")
		refuse(sc.FSGroupChangePolicy != nil, at, "fsGroupChangePolicy")
		refuse(len(sc.Sysctls) > 0, at, "sysctls")
		refuse(c.spec.ShareProcessNamespace != nil, path, "shareProcessNamespace")
		refuse(sc.RunAsUser != nil, at, "runAsUser")
		refuse(sc.RunAsGroup != nil, at, "runAsGroup")
		refuse(sc.SupplementalGroups != nil, at, "supplementalGroups")
		refuse(sc.SupplementalGroupsPolicy != nil, at, "supplementalGroupsPolicy")
		refuse(sc.SELinuxChangePolicy != nil, at, "seLinuxChangePolicy")
	}
	refuse(c.spec.Resources != nil, path, "resources")
	c.eachSecurity(path, func(sc *corev1.SecurityContext, at *field.Path) {
		if sc == nil {
			return
		}
		refuse(sc.AppArmorProfile != nil, at, "appArmorProfile")
		refuse(sc.SELinuxOptions != nil, at, "seLinuxOptions")
		refuse(sc.SeccompProfile != nil, at, "seccompProfile")
		refuse(sc.Capabilities != nil, at, "capabilities")
		refuse(sc.ReadOnlyRootFilesystem != nil, at, "readOnlyRootFilesystem")
		refuse(sc.Privileged != nil, at, "privileged")
		refuse(sc.AllowPrivilegeEscalation != nil, at, "allowPrivilegeEscalation")
		refuse(sc.ProcMount != nil, at, "procMount")
		refuse(sc.RunAsUser != nil, at, "runAsUser")
		refuse(sc.RunAsGroup != nil, at, "runAsGroup")
	})
	return errs
}
