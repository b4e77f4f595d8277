package certificates

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/podvine/podvine/agent/api/kinds"
	"github.com/podvine/podvine/agent/api/kinds/podspec"
)

const (
	maxBundleBytes = 1 << 20
	omitted        = "<value omitted>"
)

func trustBundles() kinds.Resource {
	type T = *certificatesv1.ClusterTrustBundle
	return &kinds.Kind[T]{
		GroupVersion: certificatesv1.SchemeGroupVersion,
		Kind:         "ClusterTrustBundle", Resource: "clustertrustbundles", Singular: "clustertrustbundle",
		New:     func() T { return &certificatesv1.ClusterTrustBundle{} },
		NewList: func() runtime.Object { return &certificatesv1.ClusterTrustBundleList{} },

		Validate: func(_ context.Context, b T) field.ErrorList { return validateBundle(b, true) },
		ValidateUpdate: func(_ context.Context, b, old T) field.ErrorList {
			errs := kinds.ValidateObjectMetaUpdate(&b.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
			errs = append(errs, validateBundle(b, b.Spec.TrustBundle != old.Spec.TrustBundle)...)
			return append(errs, apivalidation.ValidateImmutableField(b.Spec.SignerName, old.Spec.SignerName, field.NewPath("spec", "signerName"))...)
		},
		FieldLabels: []string{signerField},
		Fields:      func(b T) fields.Set { return fields.Set{signerField: b.Spec.SignerName} },
		Columns: []kinds.Column[T]{
			kinds.NameColumn[T](),
			{Name: "SignerName", Description: certificatesv1.ClusterTrustBundleSpec{}.SwaggerDoc()["signerName"], Cell: func(b T) any { return orNone(b.Spec.SignerName) }},
		},
	}
}

// orNone is the cell of a text that may be missing.
func orNone(text string) string {
	if text == "" {
		return "<none>"
	}
	return text
}

func validateBundle(b *certificatesv1.ClusterTrustBundle, anchors bool) field.ErrorList {
	errs := kinds.ValidateObjectMeta(&b.ObjectMeta, false, bundleName(b.Spec.SignerName), field.NewPath("metadata"))
	at := field.NewPath("spec")
	if b.Spec.SignerName != "" {
		errs = append(errs, podspec.ValidateSignerName(b.Spec.SignerName, at.Child("signerName"))...)
	}
	if anchors {
		errs = append(errs, validateAnchors(b.Spec.TrustBundle, at.Child("trustBundle"))...)
	}
	return errs
}

// bundleName is the rule for names of bundles, which begin with that of their signer.
func bundleName(signer string) apivalidation.ValidateNameFunc {
	return func(name string, prefix bool) []string {
		if signer == "" {
			if strings.Contains(name, ":") {
				return []string{`ClusterTrustBundle without signer name must not have ":" in its name`}
			}
			return apivalidation.NameIsDNSSubdomain(name, prefix)
		}
		start := strings.ReplaceAll(signer, "/", ":") + ":"
		rest, ok := strings.CutPrefix(name, start)
		if !ok {
			return []string{fmt.Sprintf("ClusterTrustBundle for signerName %s must be named with prefix %s", signer, start)}
		}
		return apivalidation.NameIsDNSSubdomain(rest, prefix)
	}
}

func validateAnchors(text string, at *field.Path) field.ErrorList {
	if len(text) > maxBundleBytes {
		return field.ErrorList{field.TooLong(at, omitted, maxBundleBytes)}
	}
	var errs field.ErrorList
	refuse := func(format string, args ...any) {
		errs = append(errs, field.Invalid(at, omitted, fmt.Sprintf(format, args...)))
	}
	seen := map[string][]int{}
	rest, count := []byte(text), 0
	for ; ; count++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != certificateBlock {
			refuse("entry %d has bad block type: %v", count, block.Type)
			continue
		}
		if len(block.Headers) != 0 {
			refuse("entry %d has PEM block headers", count)
			continue
		}
		anchor, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			refuse("entry %d does not parse as X.509: %v", count, err)
			continue
		}
		if !anchor.IsCA {
			refuse("entry %d does not have the CA bit set", count)
		}
		seen[string(block.Bytes)] = append(seen[string(block.Bytes)], count)
		if places := seen[string(block.Bytes)]; len(places) == 2 {
			refuse("duplicate trust anchor (indices %v)", places)
		}
	}
	if count == 0 {
		refuse("at least one trust anchor must be provided")
	}
	return errs
}
