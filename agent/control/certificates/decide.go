package certificates

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/util/certificate/csr"

	"github.com/podvine/podvine/agent/pki"
)

// How long requests are kept and certificates live, as in Kubernetes.
const (
	// answeredHours is how long a request is kept after its answer; whoever asked has fetched it by then.
	answeredHours = 1
	// pendingHours is how long a request waits for an answer.
	pendingHours = 24
	// maxLifetimeHours is how long a certificate lives unless it asks for less.
	maxLifetimeHours = 365 * 24
	// minLifetimeMinutes is the shortest life.
	minLifetimeMinutes = 10
)

// Plan is what is next for a request. At most one of the first four is set.
type Plan struct {
	// Remove is why the request goes.
	Remove string
	// Fail is why it is not signed.
	Fail string
	// Sign is the certificate to make.
	Sign *Order
	// Ask are the rights of which the requester needs one to have it approved, in this order.
	Ask []Approval
	// Again is when time alone changes the plan.
	Again time.Duration
}

// Order is a certificate to make.
type Order struct {
	Request  *x509.CertificateRequest
	Key      x509.KeyUsage
	Extended []x509.ExtKeyUsage
	Lifetime time.Duration
}

// Approval is a right, to create this sub-resource of certificatesigningrequests, and what its approval says.
type Approval struct{ Subresource, Message string }

// Decide plans the next step for a request. It is pure.
func Decide(r *certificatesv1.CertificateSigningRequest, now time.Time) Plan {
	ends, why := removal(r)
	if !ends.IsZero() && !now.Before(ends) {
		return Plan{Remove: why}
	}
	plan := Plan{}
	if !ends.IsZero() {
		plan.Again = ends.Sub(now)
	}
	approved, answered := holds(r, certificatesv1.CertificateApproved), holds(r, certificatesv1.CertificateDenied)
	switch {
	case len(r.Status.Certificate) > 0 || answered || holds(r, certificatesv1.CertificateFailed):
	case approved:
		plan.Sign, plan.Fail = order(r)
	default:
		plan.Ask = approvals(r)
	}
	return plan
}

// removal is when a request goes, and why; the zero time says that it stays as it is.
func removal(r *certificatesv1.CertificateSigningRequest) (at time.Time, why string) {
	sooner := func(t time.Time, reason string) {
		if at.IsZero() || t.Before(at) {
			at, why = t, reason
		}
	}
	for _, c := range r.Status.Conditions {
		if !c.LastUpdateTime.IsZero() {
			sooner(c.LastUpdateTime.Add(answeredHours*time.Hour), "it was answered long ago: "+string(c.Type))
		}
	}
	if len(r.Status.Conditions) == 0 && !r.CreationTimestamp.IsZero() {
		sooner(r.CreationTimestamp.Add(pendingHours*time.Hour), "nobody answered it")
	}
	if block, _ := pem.Decode(r.Status.Certificate); block != nil {
		if issued, err := x509.ParseCertificate(block.Bytes); err == nil {
			sooner(issued.NotAfter, "its certificate has expired")
		}
	}
	return at, why
}

func holds(r *certificatesv1.CertificateSigningRequest, condition certificatesv1.RequestConditionType) bool {
	return slices.ContainsFunc(r.Status.Conditions, func(c certificatesv1.CertificateSigningRequestCondition) bool {
		return c.Type == condition && c.Status != corev1.ConditionFalse
	})
}

// order is the certificate that an approved request gets from one of the signers here, or why it gets none.
func order(r *certificatesv1.CertificateSigningRequest) (*Order, string) {
	check := map[string]func(*x509.CertificateRequest, []certificatesv1.KeyUsage) error{
		certificatesv1.KubeAPIServerClientSignerName:        checkClient,
		certificatesv1.KubeAPIServerClientKubeletSignerName: checkNodeClient,
		certificatesv1.KubeletServingSignerName:             checkNodeServing,
	}[r.Spec.SignerName]
	if check == nil {
		return nil, "" // another's
	}
	parsed, err := parse(r.Spec.Request)
	if err != nil {
		return nil, err.Error()
	}
	if pki.NamesMember(parsed) {
		return nil, "the request names a member of the cluster, and members are certified when they join"
	}
	if err := check(parsed, r.Spec.Usages); err != nil {
		return nil, err.Error()
	}
	key, extended, err := usages(r.Spec.Usages)
	if err != nil {
		return nil, err.Error()
	}
	return &Order{Request: parsed, Key: key, Extended: extended, Lifetime: lifetime(r.Spec.ExpirationSeconds)}, ""
}

func parse(content []byte) (*x509.CertificateRequest, error) {
	block, _ := pem.Decode(content)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, errors.New("PEM block type must be CERTIFICATE REQUEST")
	}
	return x509.ParseCertificateRequest(block.Bytes)
}

// lifetime is what was asked for, within bounds.
func lifetime(seconds *int32) time.Duration {
	const longest, shortest = maxLifetimeHours * time.Hour, minLifetimeMinutes * time.Minute
	if seconds == nil {
		return longest
	}
	return min(max(csr.ExpirationSecondsToDuration(*seconds), shortest), longest)
}

// approvals are the rights with which a request is approved by itself: only nodes' agents' own certificates are.
func approvals(r *certificatesv1.CertificateSigningRequest) []Approval {
	if r.Spec.SignerName != certificatesv1.KubeAPIServerClientKubeletSignerName {
		return nil
	}
	parsed, err := parse(r.Spec.Request)
	if err != nil || checkNodeClient(parsed, r.Spec.Usages) != nil {
		return nil
	}
	var rights []Approval
	if r.Spec.Username == parsed.Subject.CommonName {
		rights = append(rights, Approval{"selfnodeclient", "Auto approving self kubelet client certificate after SubjectAccessReview."})
	}
	return append(rights, Approval{"nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview."})
}

// checkClient is what kubernetes.io/kube-apiserver-client asks of a request.
func checkClient(_ *x509.CertificateRequest, asked []certificatesv1.KeyUsage) error {
	for _, usage := range asked {
		if usage != certificatesv1.UsageDigitalSignature && usage != certificatesv1.UsageKeyEncipherment && usage != certificatesv1.UsageClientAuth {
			return fmt.Errorf("invalid usage for client certificate: %s", usage)
		}
	}
	if !slices.Contains(asked, certificatesv1.UsageClientAuth) {
		return fmt.Errorf("missing required usage for client certificate: %s", certificatesv1.UsageClientAuth)
	}
	return nil
}

// checkNodeClient is what kubernetes.io/kube-apiserver-client-kubelet asks of a request.
func checkNodeClient(r *x509.CertificateRequest, asked []certificatesv1.KeyUsage) error {
	if err := checkNodeSubject(r); err != nil {
		return err
	}
	switch {
	case len(r.DNSNames) > 0:
		return errors.New("DNS subjectAltNames are not allowed")
	case len(r.EmailAddresses) > 0:
		return errors.New("Email subjectAltNames are not allowed") //nolint:staticcheck // Kubernetes' words, on the condition
	case len(r.IPAddresses) > 0:
		return errors.New("IP subjectAltNames are not allowed")
	case len(r.URIs) > 0:
		return errors.New("URI subjectAltNames are not allowed")
	}
	return checkNodeUsages(asked, certificatesv1.UsageClientAuth)
}

// checkNodeServing is what kubernetes.io/kubelet-serving asks of a request.
func checkNodeServing(r *x509.CertificateRequest, asked []certificatesv1.KeyUsage) error {
	switch {
	case !slices.Equal(r.Subject.Organization, []string{pki.NodesGroup}):
		return errors.New("subject organization is not system:nodes")
	case len(r.DNSNames) == 0 && len(r.IPAddresses) == 0:
		return errors.New("DNS or IP subjectAltName is required")
	case len(r.EmailAddresses) > 0:
		return errors.New("Email subjectAltNames are not allowed") //nolint:staticcheck // Kubernetes' words, on the condition
	case len(r.URIs) > 0:
		return errors.New("URI subjectAltNames are not allowed")
	}
	if err := checkNodeUsages(asked, certificatesv1.UsageServerAuth); err != nil {
		return err
	}
	return checkNodeSubject(r)
}

func checkNodeSubject(r *x509.CertificateRequest) error {
	if !slices.Equal(r.Subject.Organization, []string{pki.NodesGroup}) {
		return errors.New("subject organization is not system:nodes")
	}
	if !strings.HasPrefix(r.Subject.CommonName, pki.NodeUserStart) {
		return errors.New("subject common name does not begin with system:node: prefix")
	}
	return nil
}

// checkNodeUsages wants digital signatures and the purpose; key encipherment, which is for RSA keys alone, may be added.
func checkNodeUsages(asked []certificatesv1.KeyUsage, purpose certificatesv1.KeyUsage) error {
	needed := []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageKeyEncipherment, purpose}
	beyond := slices.ContainsFunc(asked, func(u certificatesv1.KeyUsage) bool { return !slices.Contains(needed, u) })
	if beyond || !slices.Contains(asked, certificatesv1.UsageDigitalSignature) || !slices.Contains(asked, purpose) {
		return fmt.Errorf("usages did not match %v", needed)
	}
	return nil
}

// usages are those of a request in the certificate's terms.
func usages(asked []certificatesv1.KeyUsage) (key x509.KeyUsage, extended []x509.ExtKeyUsage, err error) {
	for _, usage := range asked {
		switch usage {
		case certificatesv1.UsageDigitalSignature:
			key |= x509.KeyUsageDigitalSignature
		case certificatesv1.UsageKeyEncipherment:
			key |= x509.KeyUsageKeyEncipherment
		case certificatesv1.UsageClientAuth:
			extended = append(extended, x509.ExtKeyUsageClientAuth)
		case certificatesv1.UsageServerAuth:
			extended = append(extended, x509.ExtKeyUsageServerAuth)
		default:
			return 0, nil, fmt.Errorf("unrecognized usage values: [%s]", usage)
		}
	}
	slices.Sort(extended)
	return key, slices.Compact(extended), nil
}
