package certificates

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apimachinery/pkg/util/validation/field"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"

	"github.com/podvine/podvine/agent/api/kinds"
	"github.com/podvine/podvine/agent/api/kinds/podspec"
)

const (
	// minExpirationSeconds is the shortest life that can be asked for.
	minExpirationSeconds = 600
	// legacySigner served requests of versions that are gone.
	legacySigner = "kubernetes.io/legacy-unknown"
	signerField  = "spec.signerName"
	bothAnswers  = `{conditions[{"type": "Approved"}], conditions[{"type": "Denied"}]}`
)

type request = *certificatesv1.CertificateSigningRequest

func signingRequests() kinds.Resource {
	return &kinds.Kind[request]{
		GroupVersion: certificatesv1.SchemeGroupVersion,
		Kind:         "CertificateSigningRequest", Resource: "certificatesigningrequests", Singular: "certificatesigningrequest", ShortNames: []string{"csr"},
		New:     func() request { return &certificatesv1.CertificateSigningRequest{} },
		NewList: func() runtime.Object { return &certificatesv1.CertificateSigningRequestList{} },

		PrepareForCreate: prepareRequest,
		PrepareForUpdate: func(_ context.Context, r, old request) { r.Spec = old.Spec },
		Validate:         func(_ context.Context, r request) field.ErrorList { return validateRequest(r, nil) },
		ValidateUpdate: func(_ context.Context, r, old request) field.ErrorList {
			return validateRequestUpdate(r, old, false, false)
		},
		ResetFields: []string{"spec", "status"},
		FieldLabels: []string{signerField},
		Fields:      func(r request) fields.Set { return fields.Set{signerField: r.Spec.SignerName} },
		Columns:     requestColumns(),
		Status: &kinds.Status[request]{
			PrepareForUpdate: func(_ context.Context, r, old request) {
				r.Spec = old.Spec
				noteTimes(r, old, metav1.Now())
			},
			ValidateUpdate: func(_ context.Context, r, old request) field.ErrorList {
				return validateRequestUpdate(r, old, true, false)
			},
			ResetFields: []string{"spec"},
		},
		Extend: func(_ kinds.Env, _, status *genericregistry.Store, storage map[string]rest.Storage) error {
			approval := *status
			approval.UpdateStrategy = approvalStrategy{status.UpdateStrategy}
			storage["certificatesigningrequests/approval"] = kinds.NewStatusREST(&approval)
			return nil
		},
	}
}

// prepareRequest notes who asks: a client cannot ask in another's name, or approve what it asks for.
func prepareRequest(ctx context.Context, r request) {
	r.Spec.Username, r.Spec.UID, r.Spec.Groups, r.Spec.Extra = "", "", nil, nil
	if user, ok := apirequest.UserFrom(ctx); ok {
		r.Spec.Username, r.Spec.UID, r.Spec.Groups = user.GetName(), user.GetUID(), user.GetGroups()
		if extra := user.GetExtra(); len(extra) > 0 {
			r.Spec.Extra = map[string]certificatesv1.ExtraValue{}
			for key, values := range extra {
				r.Spec.Extra[key] = values
			}
		}
	}
	r.Status = certificatesv1.CertificateSigningRequestStatus{}
}

// approvalStrategy serves /approval: conditions are all that it changes.
type approvalStrategy struct{ rest.RESTUpdateStrategy }

// PrepareForUpdate implements rest.RESTUpdateStrategy.
func (approvalStrategy) PrepareForUpdate(_ context.Context, obj, old runtime.Object) {
	r, was := obj.(request), old.(request)
	r.Spec, r.Status.Certificate = was.Spec, was.Status.Certificate
	noteTimes(r, was, metav1.Now())
}

// ValidateUpdate implements rest.RESTUpdateStrategy.
func (approvalStrategy) ValidateUpdate(_ context.Context, obj, old runtime.Object) field.ErrorList {
	return podspec.Unique(validateRequestUpdate(obj.(request), old.(request), false, true))
}

// noteTimes fills the times that the conditions of a request lack.
func noteTimes(r, old request, now metav1.Time) {
	for i := range r.Status.Conditions {
		c := &r.Status.Conditions[i]
		if c.LastUpdateTime.IsZero() {
			c.LastUpdateTime = now
		}
		if !c.LastTransitionTime.IsZero() {
			continue
		}
		c.LastTransitionTime = now
		for _, was := range old.Status.Conditions {
			if was.Type == c.Type && was.Status == c.Status && !was.LastTransitionTime.IsZero() {
				c.LastTransitionTime = was.LastTransitionTime
				break
			}
		}
	}
}

// validateRequest reports the errors of a request. What the stored one, old, has already is not held against a new state.
func validateRequest(r, old request) field.ErrorList {
	errs := kinds.ValidateObjectMeta(&r.ObjectMeta, false, func(string, bool) []string { return nil }, field.NewPath("metadata"))
	if old == nil {
		errs = append(errs, validateRequestSpec(&r.Spec, field.NewPath("spec"))...)
	}
	if old == nil || !equality.Semantic.DeepEqual(r.Status.Conditions, old.Status.Conditions) {
		errs = append(errs, validateConditions(r.Status.Conditions, field.NewPath("status", "conditions"))...)
	}
	if c := r.Status.Certificate; len(c) > 0 && (old == nil || !bytes.Equal(c, old.Status.Certificate)) {
		if err := checkChain(c); err != nil {
			errs = append(errs, field.Invalid(field.NewPath("status", "certificate"), "<certificate data>", err.Error()))
		}
	}
	return errs
}

func validateRequestSpec(spec *certificatesv1.CertificateSigningRequestSpec, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if err := checkRequest(spec.Request); err != nil {
		errs = append(errs, field.Invalid(at.Child("request"), spec.Request, err.Error()))
	}
	if len(spec.Usages) == 0 {
		errs = append(errs, field.Required(at.Child("usages"), ""))
	}
	for i, usage := range spec.Usages {
		own := at.Child("usages").Index(i)
		if !slices.Contains(usages(), usage) {
			errs = append(errs, field.NotSupported(own, usage, usages()))
		}
		if slices.Contains(spec.Usages[:i], usage) {
			errs = append(errs, field.Duplicate(own, usage))
		}
	}
	if spec.SignerName == legacySigner {
		errs = append(errs, field.Invalid(at.Child("signerName"), spec.SignerName, "the legacy signerName is not allowed via this API version"))
	} else {
		errs = append(errs, podspec.ValidateSignerName(spec.SignerName, at.Child("signerName"))...)
	}
	if s := spec.ExpirationSeconds; s != nil && *s < minExpirationSeconds {
		errs = append(errs, field.Invalid(at.Child("expirationSeconds"), *s, "may not specify a duration less than 600 seconds (10 minutes)"))
	}
	return errs
}

// usages are all that a certificate can be used for.
func usages() []certificatesv1.KeyUsage {
	all := []certificatesv1.KeyUsage{
		certificatesv1.UsageSigning, certificatesv1.UsageDigitalSignature, certificatesv1.UsageContentCommitment, certificatesv1.UsageKeyEncipherment,
		certificatesv1.UsageKeyAgreement, certificatesv1.UsageDataEncipherment, certificatesv1.UsageCertSign, certificatesv1.UsageCRLSign,
		certificatesv1.UsageEncipherOnly, certificatesv1.UsageDecipherOnly, certificatesv1.UsageAny, certificatesv1.UsageServerAuth,
		certificatesv1.UsageClientAuth, certificatesv1.UsageCodeSigning, certificatesv1.UsageEmailProtection, certificatesv1.UsageSMIME,
		certificatesv1.UsageIPsecEndSystem, certificatesv1.UsageIPsecTunnel, certificatesv1.UsageIPsecUser, certificatesv1.UsageTimestamping,
		certificatesv1.UsageOCSPSigning, certificatesv1.UsageMicrosoftSGC, certificatesv1.UsageNetscapeSGC,
	}
	slices.Sort(all)
	return all
}

func validateConditions(conditions []certificatesv1.CertificateSigningRequestCondition, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	count := map[certificatesv1.RequestConditionType]int{}
	for i, c := range conditions {
		own := at.Index(i)
		if c.Type == "" {
			errs = append(errs, field.Required(own.Child("type"), ""))
		}
		allowed := []corev1.ConditionStatus{corev1.ConditionFalse, corev1.ConditionTrue, corev1.ConditionUnknown}
		switch c.Type {
		case certificatesv1.CertificateApproved, certificatesv1.CertificateDenied, certificatesv1.CertificateFailed:
			allowed = []corev1.ConditionStatus{corev1.ConditionTrue}
		}
		if c.Status == "" {
			errs = append(errs, field.Required(own.Child("status"), ""))
		} else if !slices.Contains(allowed, c.Status) {
			errs = append(errs, field.NotSupported(own.Child("status"), c.Status, allowed))
		}
		if count[c.Type]++; count[c.Type] > 1 {
			errs = append(errs, field.Duplicate(own.Child("type"), c.Type))
		}
	}
	if count[certificatesv1.CertificateApproved] > 0 && count[certificatesv1.CertificateDenied] > 0 {
		errs = append(errs, field.Invalid(at, bothAnswers, "must specify at most one of: `conditions[{\"type\": \"Approved\"}]`, `conditions[{\"type\": \"Denied\"}]`"))
	}
	return errs
}

func conditionsOf(r request, t certificatesv1.RequestConditionType) []certificatesv1.CertificateSigningRequestCondition {
	var found []certificatesv1.CertificateSigningRequestCondition
	for _, c := range r.Status.Conditions {
		if c.Type == t {
			found = append(found, c)
		}
	}
	return found
}

// validateRequestUpdate keeps what was answered from being taken back. Only signing may set the certificate, only
// approving may add an answer.
func validateRequestUpdate(r, old request, signing, approving bool) field.ErrorList {
	errs := kinds.ValidateObjectMetaUpdate(&r.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
	errs = append(errs, validateRequest(r, old)...)
	at := field.NewPath("status", "conditions")
	for _, t := range []certificatesv1.RequestConditionType{certificatesv1.CertificateApproved, certificatesv1.CertificateDenied, certificatesv1.CertificateFailed} {
		now, was := conditionsOf(r, t), conditionsOf(old, t)
		answer := t != certificatesv1.CertificateFailed
		switch {
		case len(now) < len(was):
			errs = append(errs, field.Forbidden(at, fmt.Sprintf("updates may not remove a condition of type %q", t)))
		case approving || !answer:
		case len(now) > len(was):
			errs = append(errs, field.Forbidden(at, fmt.Sprintf("updates may not add a condition of type %q", t)))
		case !equality.Semantic.DeepEqual(now, was):
			errs = append(errs, field.Forbidden(at, fmt.Sprintf("updates may not modify a condition of type %q", t)))
		}
	}
	if certificate := field.NewPath("status", "certificate"); !bytes.Equal(r.Status.Certificate, old.Status.Certificate) {
		switch {
		case !signing:
			errs = append(errs, field.Forbidden(certificate, "updates may not set certificate content"))
		case len(old.Status.Certificate) > 0:
			errs = append(errs, field.Forbidden(certificate, "updates may not modify existing certificate content"))
		}
	}
	return errs
}

func requestColumns() []kinds.Column[request] {
	doc := certificatesv1.CertificateSigningRequestSpec{}.SwaggerDoc()
	return []kinds.Column[request]{
		kinds.NameColumn[request](),
		kinds.AgeColumn[request](),
		{Name: "SignerName", Description: doc["signerName"], Cell: func(r request) any { return r.Spec.SignerName }},
		{Name: "Requestor", Description: doc["request"], Cell: func(r request) any { return r.Spec.Username }},
		{Name: "RequestedDuration", Description: doc["expirationSeconds"], Cell: func(r request) any {
			if r.Spec.ExpirationSeconds == nil {
				return "<none>"
			}
			return duration.HumanDuration(time.Duration(*r.Spec.ExpirationSeconds) * time.Second)
		}},
		{Name: "Condition", Description: certificatesv1.CertificateSigningRequestStatus{}.SwaggerDoc()["conditions"], Cell: func(r request) any { return answer(r) }},
	}
}

// answer is what became of a request.
func answer(r request) string {
	text := "Pending"
	switch {
	case len(conditionsOf(r, certificatesv1.CertificateDenied)) > 0:
		text = "Denied"
	case len(conditionsOf(r, certificatesv1.CertificateApproved)) > 0:
		text = "Approved"
	}
	if len(conditionsOf(r, certificatesv1.CertificateFailed)) > 0 {
		text += ",Failed"
	}
	if len(r.Status.Certificate) > 0 {
		text += ",Issued"
	}
	return text
}
