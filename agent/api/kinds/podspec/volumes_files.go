package podspec

import (
	"path"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	maxFileMode           = 0o777
	minTokenSeconds       = 10 * 60
	maxTokenSeconds       = 1 << 32
	minCertificateSeconds = 60 * 60
	maxCertificateSeconds = 91 * 24 * 60 * 60
)

func fileMode(mode *int32, at *field.Path) field.ErrorList {
	if mode == nil || (*mode >= 0 && *mode <= maxFileMode) {
		return nil
	}
	return field.ErrorList{field.Invalid(at, *mode, "must be a number between 0 and 0777 (octal), both inclusive")}
}

func keysToPaths(items []corev1.KeyToPath, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, item := range items {
		errs = append(errs, required(item.Key, at.Index(i).Child("key"))...)
		errs = append(errs, required(item.Path, at.Index(i).Child("path"))...)
		errs = append(errs, volumeFilePath(item.Path, at.Index(i).Child("path"))...)
		errs = append(errs, fileMode(item.Mode, at.Index(i).Child("mode"))...)
	}
	return errs
}

func secretVolume(s *corev1.SecretVolumeSource, at *field.Path) field.ErrorList {
	errs := required(s.SecretName, at.Child("secretName"))
	errs = append(errs, fileMode(s.DefaultMode, at.Child("defaultMode"))...)
	return append(errs, keysToPaths(s.Items, at.Child("items"))...)
}

func configMapVolume(s *corev1.ConfigMapVolumeSource, at *field.Path) field.ErrorList {
	errs := required(s.Name, at.Child("name"))
	errs = append(errs, fileMode(s.DefaultMode, at.Child("defaultMode"))...)
	return append(errs, keysToPaths(s.Items, at.Child("items"))...)
}

func downwardVolume(s *corev1.DownwardAPIVolumeSource, at *field.Path) field.ErrorList {
	errs := fileMode(s.DefaultMode, at.Child("defaultMode"))
	for i := range s.Items {
		errs = append(errs, downwardFile(&s.Items[i], at)...)
	}
	return errs
}

func downwardFile(f *corev1.DownwardAPIVolumeFile, at *field.Path) field.ErrorList {
	errs := required(f.Path, at.Child("path"))
	errs = append(errs, volumeFilePath(f.Path, at.Child("path"))...)
	switch {
	case f.FieldRef != nil:
		errs = append(errs, fieldSelector(f.FieldRef, volumeFieldPaths(), at.Child("fieldRef"))...)
		if f.ResourceFieldRef != nil {
			errs = append(errs, field.Invalid(at, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously"))
		}
	case f.ResourceFieldRef != nil:
		errs = append(errs, resourceFieldSelector(f.ResourceFieldRef, true, at.Child("resourceFieldRef"))...)
	default:
		errs = append(errs, field.Required(at, "one of fieldRef and resourceFieldRef is required"))
	}
	return append(errs, fileMode(f.Mode, at.Child("mode"))...)
}

// projection checks the sources of one projected volume, which must not write the same file twice.
type projection struct {
	volume *field.Path
	paths  sets.Set[string]
	opts   Options
}

func (c *checker) projected(s *corev1.ProjectedVolumeSource, at *field.Path) field.ErrorList {
	errs := fileMode(s.DefaultMode, at.Child("defaultMode"))
	p := &projection{volume: at, paths: sets.New[string](), opts: c.opts}
	for i := range s.Sources {
		errs = append(errs, p.source(&s.Sources[i], at.Child("sources").Index(i))...)
	}
	return errs
}

func (p *projection) source(s *corev1.VolumeProjection, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	count := 0
	visit := func(set bool, name string, check func(*field.Path) field.ErrorList) {
		if !set {
			return
		}
		if count++; count > 1 {
			errs = append(errs, field.Forbidden(at, "may not specify more than 1 volume type per source"))
			return
		}
		errs = append(errs, check(at.Child(name))...)
	}
	visit(s.Secret != nil, "secret", func(at *field.Path) field.ErrorList { return p.keys(s.Secret.Name, s.Secret.Items, at) })
	visit(s.ConfigMap != nil, "configMap", func(at *field.Path) field.ErrorList { return p.keys(s.ConfigMap.Name, s.ConfigMap.Items, at) })
	visit(s.DownwardAPI != nil, "downwardAPI", func(at *field.Path) field.ErrorList {
		var errs field.ErrorList
		for i := range s.DownwardAPI.Items {
			errs = append(errs, downwardFile(&s.DownwardAPI.Items[i], at)...)
			errs = append(errs, p.unique(s.DownwardAPI.Items[i].Path)...)
		}
		return errs
	})
	visit(s.ServiceAccountToken != nil, "serviceAccountToken", func(at *field.Path) field.ErrorList { return p.token(s.ServiceAccountToken, at) })
	visit(s.ClusterTrustBundle != nil, "clusterTrustBundle", func(at *field.Path) field.ErrorList { return p.trustBundle(s.ClusterTrustBundle, at) })
	visit(s.PodCertificate != nil, "podCertificate", func(at *field.Path) field.ErrorList { return p.certificate(s.PodCertificate, at) })
	return errs
}

func (p *projection) keys(name string, items []corev1.KeyToPath, at *field.Path) field.ErrorList {
	errs := required(name, at.Child("name"))
	errs = append(errs, keysToPaths(items, at.Child("items"))...)
	for _, item := range items {
		errs = append(errs, p.unique(item.Path)...)
	}
	return errs
}

// unique reports a file that another source writes already.
func (p *projection) unique(file string) field.ErrorList {
	if file == "" {
		return nil
	}
	clean := path.Clean(file)
	if p.paths.Has(clean) {
		return field.ErrorList{field.Invalid(p.volume, file, "conflicting duplicate paths")}
	}
	p.paths.Insert(clean)
	return nil
}

func (p *projection) token(t *corev1.ServiceAccountTokenProjection, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if t.ExpirationSeconds != nil {
		if s := *t.ExpirationSeconds; s < minTokenSeconds {
			errs = append(errs, field.Invalid(at.Child("expirationSeconds"), s, "may not specify a duration less than 10 minutes"))
		} else if s > maxTokenSeconds {
			errs = append(errs, field.Invalid(at.Child("expirationSeconds"), s, "may not specify a duration larger than 2^32 seconds"))
		}
	}
	if t.Path == "" {
		return append(errs, field.Required(p.volume.Child("path"), ""))
	}
	if !p.opts.AllowOddTokenPath {
		errs = append(errs, volumeFilePath(t.Path, p.volume.Child("path"))...)
	}
	return errs
}

func (p *projection) trustBundle(b *corev1.ClusterTrustBundleProjection, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch {
	case b.Name != nil && b.SignerName != nil:
		errs = append(errs, field.Invalid(at, InternalView(b), "only one of name and signerName may be used"))
	case b.Name == nil && b.SignerName == nil:
		errs = append(errs, field.Required(at, "either name or signerName must be specified"))
	case b.Name != nil:
		if *b.Name == "" {
			errs = append(errs, field.Required(at.Child("name"), "must be a valid object name"))
		}
		for _, m := range bundleName(*b.Name) {
			errs = append(errs, field.Invalid(at.Child("name"), *b.Name, "not a valid clustertrustbundlename: "+m))
		}
		if b.LabelSelector != nil {
			errs = append(errs, field.Invalid(at.Child("labelSelector"), b.LabelSelector, "labelSelector must be unset if name is specified"))
		}
	default:
		if *b.SignerName == "" {
			errs = append(errs, field.Required(at.Child("signerName"), "must be a valid signer name"))
		} else {
			errs = append(errs, ValidateSignerName(*b.SignerName, at.Child("signerName"))...)
		}
		errs = append(errs, metav1validation.ValidateLabelSelector(b.LabelSelector, metav1validation.LabelSelectorValidationOptions{}, at.Child("labelSelector"))...)
	}
	errs = append(errs, required(b.Path, at.Child("path"))...)
	if bad := volumeFilePath(b.Path, at.Child("path")); len(bad) > 0 {
		return append(errs, bad...)
	}
	return append(errs, p.unique(b.Path)...)
}

// bundleName checks the name of a trust bundle: with a signer it is signer:name, slashes of the signer as colons.
func bundleName(name string) []string {
	if i := strings.LastIndex(name, ":"); i >= 0 {
		return apivalidation.NameIsDNSSubdomain(name[i+1:], false)
	}
	return apivalidation.NameIsDNSSubdomain(name, false)
}

func (p *projection) certificate(s *corev1.PodCertificateProjection, at *field.Path) field.ErrorList {
	errs := ValidateSignerName(s.SignerName, at.Child("signerName"))
	keyTypes := []string{"RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"}
	if !sets.New(keyTypes...).Has(s.KeyType) {
		errs = append(errs, field.NotSupported(at.Child("keyType"), s.KeyType, keyTypes))
	}
	if s.MaxExpirationSeconds != nil {
		switch n := *s.MaxExpirationSeconds; {
		case n < minCertificateSeconds:
			errs = append(errs, field.Invalid(at.Child("maxExpirationSeconds"), n, "if provided, maxExpirationSeconds must be >= 3600"))
		case n > maxCertificateSeconds:
			errs = append(errs, field.Invalid(at.Child("maxExpirationSeconds"), n, "if provided, maxExpirationSeconds must be <= 7862400"))
		}
	}
	files := 0
	for _, f := range []struct{ name, path string }{
		{"credentialBundlePath", s.CredentialBundlePath}, {"keyPath", s.KeyPath}, {"certificateChainPath", s.CertificateChainPath},
	} {
		if f.path == "" {
			continue
		}
		files++
		errs = append(errs, volumeFilePath(f.path, at.Child(f.name))...)
		errs = append(errs, p.unique(f.path)...)
	}
	if files == 0 {
		errs = append(errs, field.Required(at, "specify at least one of credentialBundlePath, keyPath, and certificateChainPath"))
	}
	return errs
}

const (
	maxSignerBytes = 571 // domain and path together
)

// ValidateSignerName reports what is wrong with the name of a certificate signer: a domain of at least two parts, a
// slash and a path.
func ValidateSignerName(name string, at *field.Path) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(at, "")}
	}
	segments := strings.Split(name, "/")
	if len(segments) != 2 {
		return field.ErrorList{field.Invalid(at, name, "must be a fully qualified domain and path of the form 'example.com/signer-name'")}
	}
	var errs field.ErrorList
	errs = append(errs, invalid(at, segments[0], validation.IsDNS1123Subdomain(segments[0]))...)
	errs = append(errs, invalid(at, segments[1], validation.IsDNS1123Subdomain(segments[1]))...)
	if !strings.Contains(segments[0], ".") {
		errs = append(errs, field.Invalid(at, segments[0], "should be a domain with at least two segments separated by dots"))
	}
	if len(name) > maxSignerBytes {
		errs = append(errs, field.TooLong(at, name, maxSignerBytes))
	}
	return errs
}
