package podspec

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	maxNameservers        = 3
	maxSearches           = 32
	maxSearchLetters      = 2048
	maxOverrideNameLetter = 64
)

func dnsConfig(spec *corev1.PodSpec, path *field.Path) field.ErrorList {
	config := spec.DNSConfig
	var errs field.ErrorList
	if spec.DNSPolicy == corev1.DNSNone {
		if config == nil {
			return field.ErrorList{field.Required(path, fmt.Sprintf("must provide `dnsConfig` when `dnsPolicy` is %s", corev1.DNSNone))}
		}
		if len(config.Nameservers) == 0 {
			errs = append(errs, field.Required(path.Child("nameservers"), fmt.Sprintf("must provide at least one DNS nameserver when `dnsPolicy` is %s", corev1.DNSNone)))
		}
	}
	if config == nil {
		return errs
	}
	if len(config.Nameservers) > maxNameservers {
		errs = append(errs, field.Invalid(path.Child("nameservers"), config.Nameservers, fmt.Sprintf("must not have more than %v nameservers", maxNameservers)))
	}
	for i, ns := range config.Nameservers {
		errs = append(errs, validation.IsValidIPForLegacyField(path.Child("nameservers").Index(i), ns, true, nil)...)
	}
	errs = append(errs, searches(config.Searches, path.Child("searches"))...)
	for i, o := range config.Options {
		if o.Name == "" {
			errs = append(errs, field.Required(path.Child("options").Index(i), "must not be empty"))
		}
	}
	return errs
}

func searches(list []string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(list) > maxSearches {
		errs = append(errs, field.Invalid(path, list, fmt.Sprintf("must not have more than %v search paths", maxSearches)))
	}
	if len(strings.Join(list, " ")) > maxSearchLetters {
		errs = append(errs, field.Invalid(path, list, fmt.Sprintf("must not have more than %v characters (including spaces) in the search list", maxSearchLetters)))
	}
	for i, s := range list {
		if s == "." {
			continue
		}
		errs = append(errs, invalid(path.Index(i), s, validation.IsDNS1123SubdomainWithUnderscore(strings.TrimSuffix(s, ".")))...)
	}
	return errs
}

func hostAliases(list []corev1.HostAlias, path *field.Path, opts Options) field.ErrorList {
	var errs field.ErrorList
	for i, alias := range list {
		errs = append(errs, validation.IsValidIPForLegacyField(path.Index(i).Child("ip"), alias.IP, !opts.AllowLegacyIPs, nil)...)
		for j, name := range alias.Hostnames {
			errs = append(errs, dnsSubdomain(name, path.Index(i).Child("hostnames").Index(j))...)
		}
	}
	return errs
}

func hostnameOverride(spec *corev1.PodSpec, path *field.Path) field.ErrorList {
	if spec.HostnameOverride == nil {
		return nil
	}
	at, name := path.Child("hostnameOverride"), *spec.HostnameOverride
	var errs field.ErrorList
	if spec.HostNetwork {
		errs = append(errs, field.Forbidden(at, "may not be specified when hostNetwork is true"))
	}
	if spec.SetHostnameAsFQDN != nil && *spec.SetHostnameAsFQDN {
		errs = append(errs, field.Forbidden(at, "may not be specified when setHostnameAsFQDN is true"))
	}
	errs = append(errs, dnsSubdomain(name, at)...)
	if len(name) > maxOverrideNameLetter {
		errs = append(errs, field.TooLong(at, name, maxOverrideNameLetter))
	}
	return errs
}
