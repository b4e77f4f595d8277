package admission

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

func signingRequests() schema.GroupResource {
	return schema.GroupResource{Group: certificatesv1.GroupName, Resource: "certificatesigningrequests"}
}

// signers asks who may approve for a signer, or sign as one.
type signers struct {
	*admission.Handler
	authorizer authorizer.Authorizer
}

// permits says that the user of a request may do that for the signer, or for all signers of its domain.
func (s signers) permits(ctx context.Context, a admission.Attributes, verb, signer string) bool {
	domain, _, _ := strings.Cut(signer, "/")
	for _, name := range []string{signer, domain + "/*"} {
		decision, _, err := s.authorizer.Authorize(ctx, authorizer.AttributesRecord{User: a.GetUserInfo(), Verb: verb, ResourceRequest: true,
			APIGroup: certificatesv1.GroupName, APIVersion: "*", Resource: "signers", Name: name})
		if err == nil && decision == authorizer.DecisionAllow {
			return true
		}
	}
	return false
}

// approvals is the plug-in CertificateApproval.
type approvals struct{ signers }

var _ admission.ValidationInterface = (*approvals)(nil)

// Validate refuses an approval, or a denial, by somebody who may not approve for the signer.
func (p *approvals) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if !concerns(a, signingRequests(), "approval") {
		return nil
	}
	request, err := oldObject[*certificatesv1.CertificateSigningRequest](a)
	if err != nil {
		return err
	}
	if signer := request.Spec.SignerName; !p.permits(ctx, a, "approve", signer) {
		return forbidden(a, "user not permitted to approve requests with signerName %q", signer)
	}
	return nil
}

// signatures is the plug-in CertificateSigning.
type signatures struct{ signers }

var _ admission.ValidationInterface = (*signatures)(nil)

// Validate refuses a certificate, or a condition, by somebody who may not sign as the signer.
func (p *signatures) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if !concerns(a, signingRequests(), "status") {
		return nil
	}
	old, err := oldObject[*certificatesv1.CertificateSigningRequest](a)
	if err != nil {
		return err
	}
	request, err := object[*certificatesv1.CertificateSigningRequest](a)
	if err != nil {
		return err
	}
	if equality.Semantic.DeepEqual(old.Status.Certificate, request.Status.Certificate) &&
		equality.Semantic.DeepEqual(old.Status.Conditions, request.Status.Conditions) {
		return nil
	}
	if signer := old.Spec.SignerName; !p.permits(ctx, a, "sign", signer) {
		return forbidden(a, "user not permitted to sign requests with signerName %q", signer)
	}
	return nil
}

// attestations is the plug-in ClusterTrustBundleAttest.
type attestations struct{ signers }

var _ admission.ValidationInterface = (*attestations)(nil)

// Validate refuses trust anchors of a signer by somebody who may not attest for it.
func (p *attestations) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if !concerns(a, schema.GroupResource{Group: certificatesv1.GroupName, Resource: "clustertrustbundles"}, "") {
		return nil
	}
	bundle, err := object[*certificatesv1.ClusterTrustBundle](a)
	if err != nil {
		return err
	}
	if signer := bundle.Spec.SignerName; signer != "" && !p.permits(ctx, a, "attest", signer) {
		return forbidden(a, "user not permitted to attest for signerName %q", signer)
	}
	return nil
}

// subjects is the plug-in CertificateSubjectRestriction.
type subjects struct{ *admission.Handler }

var _ admission.ValidationInterface = (*subjects)(nil)

// Validate refuses to ask the signer of API clients for a certificate that is above all rights.
func (p *subjects) Validate(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if !concerns(a, signingRequests(), "") {
		return nil
	}
	request, err := object[*certificatesv1.CertificateSigningRequest](a)
	if err != nil || request.Spec.SignerName != certificatesv1.KubeAPIServerClientSignerName {
		return err
	}
	block, _ := pem.Decode(request.Spec.Request)
	if block == nil {
		return forbidden(a, "failed to parse CSR: PEM block type must be CERTIFICATE REQUEST")
	}
	parsed, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return forbidden(a, "failed to parse CSR: %w", err)
	}
	if slices.Contains(parsed.Subject.Organization, user.SystemPrivilegedGroup) {
		return forbidden(a, "use of %s signer with %s group is not allowed", certificatesv1.KubeAPIServerClientSignerName, user.SystemPrivilegedGroup)
	}
	return nil
}
