package certificates

import (
	"context"
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/podvine/podvine/agent/api/kinds"
	"github.com/podvine/podvine/agent/api/kinds/podspec"
)

// Limits of the requests for pods, Kubernetes' own.
const (
	defaultLifeSeconds = 24 * 60 * 60
	minLifeSeconds     = 60 * 60
	maxLifeSeconds     = 91 * 24 * 60 * 60
	maxUIDBytes        = 128
	maxStubBytes       = 10 * 1024
	ownSigners         = "kubernetes.io/"
)

type podRequest = *certificatesv1.PodCertificateRequest

func podRequests() kinds.Resource {
	return &kinds.Kind[podRequest]{
		GroupVersion: certificatesv1.SchemeGroupVersion,
		Kind:         "PodCertificateRequest", Resource: "podcertificaterequests", Singular: "podcertificaterequest", Namespaced: true,
		New:     func() podRequest { return &certificatesv1.PodCertificateRequest{} },
		NewList: func() runtime.Object { return &certificatesv1.PodCertificateRequestList{} },

		Default: func(r podRequest) {
			if r.Spec.MaxExpirationSeconds == nil {
				r.Spec.MaxExpirationSeconds = ptr.To[int32](defaultLifeSeconds)
			}
		},
		PrepareForCreate: func(_ context.Context, r podRequest) { r.Status = certificatesv1.PodCertificateRequestStatus{} },
		Validate: func(_ context.Context, r podRequest) field.ErrorList {
			errs := kinds.ValidateObjectMeta(&r.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
			return append(errs, validatePodRequest(&r.Spec, field.NewPath("spec"))...)
		},
		ValidateUpdate: func(_ context.Context, r, old podRequest) field.ErrorList {
			errs := kinds.ValidateObjectMetaUpdate(&r.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
			return append(errs, apivalidation.ValidateImmutableField(r.Spec, old.Spec, field.NewPath("spec"))...)
		},
		FieldLabels: []string{signerField, "spec.podName", "spec.nodeName"},
		Fields: func(r podRequest) fields.Set {
			return fields.Set{signerField: r.Spec.SignerName, "spec.podName": r.Spec.PodName, "spec.nodeName": string(r.Spec.NodeName)}
		},
		Status: &kinds.Status[podRequest]{
			PrepareForUpdate: func(_ context.Context, r, old podRequest) {
				metav1.ResetObjectMetaForStatus(r, old)
				r.Spec = old.Spec
			},
			ValidateUpdate: func(_ context.Context, r, old podRequest) field.ErrorList {
				errs := kinds.ValidateObjectMetaUpdate(&r.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
				return append(errs, validatePodAnswer(&r.Status, &old.Status, field.NewPath("status"))...)
			},
			ResetFields: []string{"spec", "metadata"},
		},
		Columns: podRequestColumns(),
	}
}

func podRequestColumns() []kinds.Column[podRequest] {
	doc := certificatesv1.PodCertificateRequestSpec{}.SwaggerDoc()
	return []kinds.Column[podRequest]{
		kinds.NameColumn[podRequest](),
		{Name: "PodName", Description: doc["podName"], Cell: func(r podRequest) any { return r.Spec.PodName }},
		{Name: "ServiceAccountName", Description: doc["serviceAccountName"], Cell: func(r podRequest) any { return r.Spec.ServiceAccountName }},
		{Name: "NodeName", Description: doc["nodeName"], Cell: func(r podRequest) any { return string(r.Spec.NodeName) }},
		{Name: "SignerName", Description: doc["signerName"], Cell: func(r podRequest) any { return r.Spec.SignerName }},
		{Name: "State", Description: "What became of the request.", Cell: func(r podRequest) any { return podAnswer(r) }},
	}
}

// podAnswer is what became of a request: at most one of these conditions is there.
func podAnswer(r podRequest) string {
	for _, c := range r.Status.Conditions {
		switch c.Type {
		case certificatesv1.PodCertificateRequestConditionTypeIssued, certificatesv1.PodCertificateRequestConditionTypeDenied,
			certificatesv1.PodCertificateRequestConditionTypeFailed:
			return c.Type
		}
	}
	return "Pending"
}

func validatePodRequest(spec *certificatesv1.PodCertificateRequestSpec, at *field.Path) field.ErrorList {
	errs := podspec.ValidateSignerName(spec.SignerName, at.Child("signerName"))
	for _, part := range []struct{ name, value, uidName, uid string }{
		{"podName", spec.PodName, "podUID", string(spec.PodUID)},
		{"serviceAccountName", spec.ServiceAccountName, "serviceAccountUID", string(spec.ServiceAccountUID)},
		{"nodeName", string(spec.NodeName), "nodeUID", string(spec.NodeUID)},
	} {
		errs = append(errs, invalid(at.Child(part.name), part.value, apivalidation.NameIsDNSSubdomain(part.value, false))...)
		if part.uid == "" {
			errs = append(errs, field.Invalid(at.Child(part.uidName), part.uid, "must not be empty"))
		}
		if len(part.uid) > maxUIDBytes {
			errs = append(errs, field.TooLong(at.Child(part.uidName), part.uid, maxUIDBytes))
		}
	}
	errs = append(errs, validateLife(spec, at.Child("maxExpirationSeconds"))...)
	switch stub := at.Child("stubPKCS10Request"); {
	case len(spec.StubPKCS10Request) == 0:
		errs = append(errs, field.Invalid(at, field.OmitValueType{}, "exactly one of (stubPKCS10Request) or (pkixPublicKey, proofOfPossession) must be set"))
	case len(spec.StubPKCS10Request) > maxStubBytes:
		errs = append(errs, field.TooLong(stub, spec.StubPKCS10Request, maxStubBytes))
	default:
		errs = append(errs, validateStub(spec.StubPKCS10Request, stub)...)
	}
	for _, key := range slices.Sorted(maps.Keys(spec.UnverifiedUserAnnotations)) {
		errs = append(errs, validation.IsDomainPrefixedKey(at.Child("unverifiedUserAnnotations"), key)...)
	}
	return errs
}

func validateLife(spec *certificatesv1.PodCertificateRequestSpec, at *field.Path) field.ErrorList {
	if spec.MaxExpirationSeconds == nil {
		return field.ErrorList{field.Required(at, "must be set")}
	}
	longest := maxLifeSeconds
	if strings.HasPrefix(spec.SignerName, ownSigners) {
		longest = defaultLifeSeconds
	}
	if s := int(*spec.MaxExpirationSeconds); s < minLifeSeconds || s > longest {
		return field.ErrorList{field.Invalid(at, s, fmt.Sprintf("must be in the range [%d, %d]", minLifeSeconds, longest))}
	}
	return nil
}

// validateStub checks a request that carries nothing but a key, and proves that the asking node has it.
func validateStub(der []byte, at *field.Path) field.ErrorList {
	stub, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return field.ErrorList{field.Invalid(at, field.OmitValueType{}, "must be a valid PKCS10 certificate request")}
	}
	if err := stub.CheckSignature(); err != nil {
		return field.ErrorList{field.Invalid(at, field.OmitValueType{}, "signature must be valid: "+err.Error())}
	}
	return nil
}

// validatePodAnswer checks what a signer says: one answer, which stays, and a certificate only with the answer Issued.
func validatePodAnswer(status, old *certificatesv1.PodCertificateRequestStatus, at *field.Path) field.ErrorList {
	if len(old.Conditions) > 0 && !equality.Semantic.DeepEqual(status, old) {
		return field.ErrorList{field.Invalid(at, field.OmitValueType{}, "immutable after one of \"Issued\", \"Denied\", or \"Failed\" conditions is set")}
	}
	errs := metav1validation.ValidateConditions(status.Conditions, at.Child("conditions"))
	answers := []string{certificatesv1.PodCertificateRequestConditionTypeDenied, certificatesv1.PodCertificateRequestConditionTypeFailed,
		certificatesv1.PodCertificateRequestConditionTypeIssued}
	issued := false
	for i, c := range status.Conditions {
		own := at.Child("conditions").Index(i)
		if !slices.Contains(answers, c.Type) {
			errs = append(errs, field.NotSupported(own.Child("type"), c.Type, answers))
		}
		if c.Status != metav1.ConditionTrue {
			errs = append(errs, field.NotSupported(own.Child("status"), c.Status, []metav1.ConditionStatus{metav1.ConditionTrue}))
		}
		issued = issued || c.Type == certificatesv1.PodCertificateRequestConditionTypeIssued
	}
	if len(status.Conditions) > 1 {
		errs = append(errs, field.Invalid(at.Child("conditions"), field.OmitValueType{}, "there may be at most one condition with type \"Issued\", \"Denied\", or \"Failed\""))
	}
	return append(errs, validateIssued(status, issued, at)...)
}

func validateIssued(status *certificatesv1.PodCertificateRequestStatus, issued bool, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, part := range []struct {
		name string
		set  bool
	}{
		{"certificateChain", status.CertificateChain != ""}, {"notBefore", status.NotBefore != nil},
		{"beginRefreshAt", status.BeginRefreshAt != nil}, {"notAfter", status.NotAfter != nil},
	} {
		if part.set && !issued {
			errs = append(errs, field.Invalid(at.Child(part.name), field.OmitValueType{}, "must not be set without the condition \"Issued\""))
		}
		if !part.set && issued {
			errs = append(errs, field.Required(at.Child(part.name), "must be set with the condition \"Issued\""))
		}
	}
	if len(errs) > 0 || !issued {
		return errs
	}
	if err := checkChain([]byte(status.CertificateChain)); err != nil {
		errs = append(errs, field.Invalid(at.Child("certificateChain"), field.OmitValueType{}, err.Error()))
	}
	if !status.NotBefore.Before(status.NotAfter) {
		errs = append(errs, field.Invalid(at.Child("notAfter"), status.NotAfter, "must be after notBefore"))
	}
	if status.BeginRefreshAt.Before(status.NotBefore) || status.NotAfter.Before(status.BeginRefreshAt) {
		errs = append(errs, field.Invalid(at.Child("beginRefreshAt"), status.BeginRefreshAt, "must be between notBefore and notAfter"))
	}
	return errs
}
