package certificates_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/podvine/podvine/agent/api/kinds"
	"github.com/podvine/podvine/agent/api/kinds/certificates"
	. "github.com/podvine/podvine/agent/api/kinds/kindtest"
)

// made are a request and certificates, made for this run.
type made struct{ stub, request, authority, leaf []byte }

func makeAll(t *testing.T) made {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	stub, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	certificate := func(authority bool) []byte {
		template := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: authority, BasicConstraintsValid: true}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	return made{stub, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: stub}), certificate(true), certificate(false)}
}

func text(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

func quoted(b []byte) string {
	out, err := json.Marshal(string(b))
	if err != nil {
		panic(err)
	}
	return string(out)
}

func resource(t *testing.T, kind string) kinds.Resource {
	t.Helper()
	for _, r := range certificates.Resources() {
		if r.GVK().Kind == kind {
			return r
		}
	}
	t.Fatalf("no kind %s", kind)
	return nil
}

func TestFieldsOfSigningRequests(t *testing.T) {
	m := makeAll(t)
	conditions := func(list string) string { return `{status: {conditions: [` + list + `]}}` }
	const failed = `{type: Failed, status: "True", reason: R, message: m, lastUpdateTime: "2030-01-02T03:04:05Z", lastTransitionTime: "2030-01-02T03:04:05Z"}`
	rows := []Row{
		{Field: "spec.request", Class: Invalid, Patch: `{spec: {request: YQ==}}`, Error: "Invalid spec.request"},
		{Field: "spec.request", Class: Kept, Patch: `{spec: {request: YQ==}}`, Want: `{spec: {request: "` + text(m.request) + `"}}`},
		{Field: "spec.signerName", Class: Invalid, Patch: `{spec: {signerName: plain}}`, Error: "Invalid spec.signerName"},
		{Field: "spec.signerName", Class: Invalid, Patch: `{spec: {signerName: kubernetes.io/legacy-unknown}}`, Error: "Invalid spec.signerName"},
		{Field: "spec.expirationSeconds", Class: Valid, Patch: `{spec: {expirationSeconds: 600}}`},
		{Field: "spec.expirationSeconds", Class: Invalid, Patch: `{spec: {expirationSeconds: 599}}`, Error: "Invalid spec.expirationSeconds"},
		{Field: "spec.usages", Class: Invalid, Patch: `{spec: {usages: null}}`, Error: "Required spec.usages"},
		{Field: "spec.usages", Class: Invalid, Patch: `{spec: {usages: [odd, client auth, client auth]}}`, Error: "NotSupported spec.usages[0]; Duplicate spec.usages[2]"},
		{Field: "spec.username", Class: Defaulted, Patch: `{spec: {username: spoof}}`, Want: `{spec: {username: kindtest}}`},
		{Field: "spec.groups", Class: Defaulted, Patch: `{spec: {groups: [spoof]}}`, Want: `{spec: {groups: ["system:masters"]}}`},
		{Field: "spec.uid", Class: Dropped, Patch: `{spec: {uid: spoof}}`},
		{Field: "spec.extra", Class: Dropped, Patch: `{spec: {extra: {a: [b]}}}`},
		{Field: "status.conditions", Class: Dropped, Patch: conditions(`{type: Approved, status: "True"}`)},
		{Field: "status.conditions[].type", Class: Immutable, Status: true, Patch: conditions(`{type: Approved, status: "True"}`), Error: "Forbidden status.conditions"},
		{Field: "status.conditions[].type", Class: Immutable, Status: true, Patch: conditions(`{status: "True"}`), Error: "Required status.conditions[0].type"},
		{Field: "status.conditions[].type", Class: Immutable, Status: true, Patch: conditions(failed + "," + failed), Error: "Duplicate status.conditions[1].type"},
		{Field: "status.conditions[].status", Class: Immutable, Status: true, Patch: conditions(`{type: Failed, status: "False"}`), Error: "NotSupported status.conditions[0].status"},
		{Field: "status.conditions[].status", Class: Immutable, Status: true, Patch: conditions(`{type: Odd}`), Error: "Required status.conditions[0].status"},
		{Field: "status.certificate", Class: Mutable, Status: true, Patch: `{status: {certificate: "` + text(m.leaf) + `"}}`},
		{Field: "status.certificate", Class: Immutable, Status: true, Patch: `{status: {certificate: YQ==}}`, Error: "Invalid status.certificate"},
		{Field: "status.certificate", Class: Dropped, Patch: `{status: {certificate: "` + text(m.leaf) + `"}}`},
	}
	for _, name := range []string{"reason", "message", "lastUpdateTime", "lastTransitionTime"} {
		rows = append(rows, Row{Field: "status.conditions[]." + name, Class: Mutable, Status: true, Patch: conditions(failed)})
	}
	Run(t, Table{
		Resource: resource(t, "CertificateSigningRequest"),
		Base:     `{metadata: {name: "Any_Name"}, spec: {signerName: example.com/s, usages: [client auth], request: "` + text(m.request) + `"}}`,
		Rows:     rows,
	})
}

// An answer is given once, and a certificate set once.
func TestAnswersStay(t *testing.T) {
	r := resource(t, "CertificateSigningRequest")
	scheme, err := kinds.NewScheme([]kinds.Resource{r})
	if err != nil {
		t.Fatal(err)
	}
	status := r.Strategies(scheme).Status
	old := &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: "r", ResourceVersion: "1"}}
	old.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateApproved, Status: "True"}}
	old.Status.Certificate = makeAll(t).leaf
	for name, change := range map[string]func(*certificatesv1.CertificateSigningRequest){
		"removed":     func(r *certificatesv1.CertificateSigningRequest) { r.Status.Conditions = nil },
		"changed":     func(r *certificatesv1.CertificateSigningRequest) { r.Status.Conditions[0].Reason = "other" },
		"certificate": func(r *certificatesv1.CertificateSigningRequest) { r.Status.Certificate = nil },
	} {
		next := old.DeepCopy()
		change(next)
		if errs := status.ValidateUpdate(t.Context(), next, runtime.Object(old)); len(errs) != 1 || errs[0].Type != "FieldValueForbidden" {
			t.Errorf("%s: %v", name, errs)
		}
	}
}

func TestFieldsOfTrustBundles(t *testing.T) {
	m := makeAll(t)
	bundle := func(b []byte) string { return `{spec: {trustBundle: ` + quoted(b) + `}}` }
	Run(t, Table{
		Resource: resource(t, "ClusterTrustBundle"),
		Base:     `{metadata: {name: "example.com:s:b"}, spec: {signerName: example.com/s, trustBundle: ` + quoted(m.authority) + `}}`,
		Rows: []Row{
			{Field: "metadata.name", Class: Invalid, Patch: `{metadata: {name: b}}`, Error: "Invalid metadata.name"},
			{Field: "metadata.name", Class: Invalid, Patch: `{metadata: {name: "example.com:s:A"}}`, Error: "Invalid metadata.name"},
			{Field: "spec.signerName", Class: Invalid, Patch: `{spec: {signerName: null}}`, Error: "Invalid metadata.name"},
			{Field: "spec.signerName", Class: Valid, Patch: `{metadata: {name: plain}, spec: {signerName: null}}`},
			{Field: "spec.signerName", Class: Immutable, Patch: `{spec: {signerName: example.com/o}}`, Error: "Invalid metadata.name; Invalid spec.signerName"},
			{Field: "spec.trustBundle", Class: Invalid, Patch: bundle(nil), Error: "Invalid spec.trustBundle"},
			{Field: "spec.trustBundle", Class: Invalid, Patch: bundle(m.leaf), Error: "Invalid spec.trustBundle"},
			{Field: "spec.trustBundle", Class: Invalid, Patch: bundle(m.request), Error: "Invalid spec.trustBundle"},
			{Field: "spec.trustBundle", Class: Immutable, Patch: bundle(append(m.authority, m.authority...)), Error: "Invalid spec.trustBundle"},
		},
	})
}

func TestFieldsOfPodRequests(t *testing.T) {
	m := makeAll(t)
	spec := func(text string) string { return `{spec: {` + text + `}}` }
	issued := `{status: {conditions: [{type: Issued, status: "True", reason: R, lastTransitionTime: "2030-01-02T03:04:05Z"}], certificateChain: ` + quoted(m.leaf) + `,
		notBefore: "2030-01-02T03:04:05Z", beginRefreshAt: "2030-01-03T03:04:05Z", notAfter: "2030-01-04T03:04:05Z"}}`
	rows := []Row{
		{Field: "spec.signerName", Class: Invalid, Patch: spec("signerName: plain"), Error: "Invalid spec.signerName"},
		{Field: "spec.maxExpirationSeconds", Class: Defaulted, Want: spec("maxExpirationSeconds: 86400")},
		{Field: "spec.maxExpirationSeconds", Class: Invalid, Patch: spec("maxExpirationSeconds: 1"), Error: "Invalid spec.maxExpirationSeconds"},
		{Field: "spec.maxExpirationSeconds", Class: Invalid, Patch: spec("maxExpirationSeconds: 90000, signerName: kubernetes.io/x"), Error: "Invalid spec.maxExpirationSeconds"},
		{Field: "spec.stubPKCS10Request", Class: Invalid, Patch: spec("stubPKCS10Request: null"), Error: "Invalid spec"},
		{Field: "spec.stubPKCS10Request", Class: Invalid, Patch: spec("stubPKCS10Request: YQ=="), Error: "Invalid spec.stubPKCS10Request"},
		{Field: "spec.unverifiedUserAnnotations", Class: Valid, Patch: spec("unverifiedUserAnnotations: {example.com/a: b}")},
		{Field: "spec.unverifiedUserAnnotations", Class: Invalid, Patch: spec("unverifiedUserAnnotations: {a: b}"), Error: "Invalid spec.unverifiedUserAnnotations"},
		{Field: "spec", Class: Immutable, Patch: spec("podName: q"), Error: "Invalid spec"},
		{Field: "status.conditions", Class: Dropped, Patch: issued},
		{Field: "status.conditions", Class: Immutable, Status: true, Patch: `{status: {conditions: [{type: Odd, status: "True", reason: R, lastTransitionTime: "2030-01-02T03:04:05Z"}]}}`,
			Error: "NotSupported status.conditions[0].type"},
		{Field: "status.certificateChain", Class: Immutable, Status: true, Patch: `{status: {certificateChain: x}}`, Error: "Invalid status.certificateChain"},
		{Field: "status.notAfter", Class: Immutable, Status: true, Patch: `{status: {conditions: [{type: Issued, status: "True", reason: R, lastTransitionTime: "2030-01-02T03:04:05Z"}],
			certificateChain: ` + quoted(m.leaf) + `, notBefore: "2030-01-02T03:04:05Z", beginRefreshAt: "2030-01-03T03:04:05Z", notAfter: "2030-01-01T03:04:05Z"}}`,
			Error: "Invalid status.beginRefreshAt; Invalid status.notAfter"},
	}
	for _, name := range []string{"podName", "serviceAccountName", "nodeName"} {
		rows = append(rows, Row{Field: "spec." + name, Class: Invalid, Patch: spec(name + ": A_B"), Error: "Invalid spec." + name})
	}
	for _, name := range []string{"podUID", "serviceAccountUID", "nodeUID"} {
		rows = append(rows, Row{Field: "spec." + name, Class: Invalid, Patch: spec(name + `: ""`), Error: "Invalid spec." + name})
	}
	for _, name := range []string{"certificateChain", "notBefore", "beginRefreshAt", "notAfter"} {
		rows = append(rows, Row{Field: "status." + name, Class: Mutable, Status: true, Patch: issued})
	}
	Run(t, Table{
		Resource: resource(t, "PodCertificateRequest"),
		Base: `{metadata: {name: r, namespace: ns}, spec: {signerName: example.com/s, podName: p, podUID: u, serviceAccountName: a, serviceAccountUID: u,
			nodeName: m1, nodeUID: u, stubPKCS10Request: "` + text(m.stub) + `"}}`,
		Rows:      rows,
		Elsewhere: map[string]string{"status.conditions": "conditions are the library's"},
	})
}
