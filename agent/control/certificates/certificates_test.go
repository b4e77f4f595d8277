package certificates

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"github.com/podvine/podvine/agent/control/loop"
	"github.com/podvine/podvine/agent/control/loop/looptest"
	"github.com/podvine/podvine/agent/pki"
)

func encode(t *testing.T, template x509.CertificateRequest) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &template, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

const (
	client        = certificatesv1.KubeAPIServerClientSignerName
	kubeletClient = certificatesv1.KubeAPIServerClientKubeletSignerName
	serving       = certificatesv1.KubeletServingSignerName
	signature     = certificatesv1.UsageDigitalSignature
	encipherment  = certificatesv1.UsageKeyEncipherment
	clientAuth    = certificatesv1.UsageClientAuth
	serverAuth    = certificatesv1.UsageServerAuth
)

func requestOf(signer string, content []byte, usages ...certificatesv1.KeyUsage) *certificatesv1.CertificateSigningRequest {
	return &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: "r", UID: "u", CreationTimestamp: metav1.Now()},
		Spec: certificatesv1.CertificateSigningRequestSpec{SignerName: signer, Request: content, Usages: usages}}
}

func answer(r *certificatesv1.CertificateSigningRequest, condition certificatesv1.RequestConditionType, at time.Time) {
	r.Status.Conditions = append(r.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
		Type: condition, Status: corev1.ConditionTrue, LastUpdateTime: metav1.NewTime(at)})
}

func nodeSubject() pkix.Name {
	return pkix.Name{CommonName: "system:node:n1", Organization: []string{"system:nodes"}}
}

func TestWhatIsSigned(t *testing.T) {
	user := x509.CertificateRequest{Subject: pkix.Name{CommonName: "alice", Organization: []string{"dev"}}}
	node := x509.CertificateRequest{Subject: nodeSubject()}
	named := x509.CertificateRequest{Subject: nodeSubject(), DNSNames: []string{"n1"}, IPAddresses: []net.IP{net.IPv4(192, 0, 2, 1)}}
	member := x509.CertificateRequest{Subject: pkix.Name{CommonName: "system:node:n1", Organization: []string{"system:nodes", pki.ReplicasGroup}}}
	byID := x509.CertificateRequest{Subject: nodeSubject(), URIs: []*url.URL{{Scheme: "URN", Opaque: "uuid:1"}}}
	for name, c := range map[string]struct {
		request *certificatesv1.CertificateSigningRequest
		want    string // "" is signed
	}{
		"a client":                    {requestOf(client, encode(t, user), clientAuth, signature, encipherment), ""},
		"a client that serves":        {requestOf(client, encode(t, user), clientAuth, serverAuth), "invalid usage for client certificate: server auth"},
		"a client without purpose":    {requestOf(client, encode(t, user), signature), "missing required usage for client certificate: client auth"},
		"a node's client":             {requestOf(kubeletClient, encode(t, node), clientAuth, signature), ""},
		"a node's client with a name": {requestOf(kubeletClient, encode(t, named), clientAuth, signature), "DNS subjectAltNames are not allowed"},
		"a node's client of a user":   {requestOf(kubeletClient, encode(t, user), clientAuth, signature), "subject organization is not system:nodes"},
		"a node's client too able":    {requestOf(kubeletClient, encode(t, node), clientAuth, signature, serverAuth), "usages did not match"},
		"a node's server":             {requestOf(serving, encode(t, named), serverAuth, signature, encipherment), ""},
		"a node's server, nameless":   {requestOf(serving, encode(t, node), serverAuth, signature), "DNS or IP subjectAltName is required"},
		"a node's server, unsigned":   {requestOf(serving, encode(t, named), serverAuth), "usages did not match"},
		"a replica":                   {requestOf(client, encode(t, member), clientAuth), "names a member of the cluster"},
		"a member":                    {requestOf(client, encode(t, byID), clientAuth), "names a member of the cluster"},
		"nonsense":                    {requestOf(client, []byte("x"), clientAuth), "PEM block type must be CERTIFICATE REQUEST"},
	} {
		answer(c.request, certificatesv1.CertificateApproved, time.Now())
		plan := Decide(c.request, time.Now())
		if signed := plan.Sign != nil; signed != (c.want == "") || signed == (plan.Fail != "") || !strings.Contains(plan.Fail, c.want) {
			t.Errorf("%s: %+v, want %q", name, plan, c.want)
		}
	}
}

func TestWhatIsLeftAlone(t *testing.T) {
	content := encode(t, x509.CertificateRequest{Subject: nodeSubject()})
	approved := func(signer string) *certificatesv1.CertificateSigningRequest {
		r := requestOf(signer, content, clientAuth, signature)
		answer(r, certificatesv1.CertificateApproved, time.Now())
		return r
	}
	denied, failed, issued := approved(client), approved(client), approved(client)
	answer(denied, certificatesv1.CertificateDenied, time.Now())
	answer(failed, certificatesv1.CertificateFailed, time.Now())
	issued.Status.Certificate = []byte("x")
	for name, r := range map[string]*certificatesv1.CertificateSigningRequest{
		"another's signer": approved("example.com/signer"), "the legacy signer": approved("kubernetes.io/legacy-unknown"),
		"denied": denied, "failed": failed, "issued": issued, "a user's that waits": requestOf(client, content, clientAuth, signature),
	} {
		if p := Decide(r, time.Now()); p.Sign != nil || p.Fail != "" || p.Remove != "" || len(p.Ask) > 0 || p.Again <= 0 {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

func TestLifetimes(t *testing.T) {
	seconds := func(s int32) *int32 { return &s }
	for _, c := range []struct {
		asked *int32
		want  time.Duration
	}{{nil, 8760 * time.Hour}, {seconds(60), 10 * time.Minute}, {seconds(3600), time.Hour}, {seconds(1 << 30), 8760 * time.Hour}} {
		if got := lifetime(c.asked); got != c.want {
			t.Errorf("%v: %s", c.asked, got)
		}
	}
}

func TestWhatIsRemoved(t *testing.T) {
	now := time.Now()
	content := encode(t, x509.CertificateRequest{Subject: nodeSubject()})
	for name, c := range map[string]struct {
		change func(*certificatesv1.CertificateSigningRequest)
		after  time.Duration
	}{
		"nobody answers": {func(*certificatesv1.CertificateSigningRequest) {}, 24 * time.Hour},
		"approved":       {func(r *certificatesv1.CertificateSigningRequest) { answer(r, certificatesv1.CertificateApproved, now) }, time.Hour},
		"denied":         {func(r *certificatesv1.CertificateSigningRequest) { answer(r, certificatesv1.CertificateDenied, now) }, time.Hour},
		"failed":         {func(r *certificatesv1.CertificateSigningRequest) { answer(r, certificatesv1.CertificateFailed, now) }, time.Hour},
	} {
		r := requestOf("example.com/signer", content)
		r.CreationTimestamp = metav1.NewTime(now)
		c.change(r)
		if p := Decide(r, now.Add(c.after-time.Second)); p.Remove != "" || p.Again != time.Second {
			t.Errorf("%s, a second before: %+v", name, p)
		}
		if p := Decide(r, now.Add(c.after)); p.Remove == "" {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

// TestNodesAreApprovedByThemselves: the whole loop, on a node's request that one right allows, to its removal.
func TestNodesAreApprovedByThemselves(t *testing.T) {
	content := encode(t, x509.CertificateRequest{Subject: nodeSubject()})
	keys, err := pki.Open(pki.Config{Dir: t.TempDir(), NodeName: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		r := requestOf(kubeletClient, content, clientAuth, signature)
		r.Spec.Username, r.Spec.ExpirationSeconds = "system:node:n1", new(int32)
		*r.Spec.ExpirationSeconds = 7200
		c := looptest.New(t, r)
		defer c.Stop()
		var asked []string
		c.Client.PrependReactor("create", "subjectaccessreviews", func(action clienttesting.Action) (bool, runtime.Object, error) {
			review := action.(clienttesting.CreateAction).GetObject().(*authorizationv1.SubjectAccessReview).DeepCopy()
			what := review.Spec.ResourceAttributes
			asked = append(asked, review.Spec.User+" "+what.Verb+" "+what.Group+"/"+what.Resource+"/"+what.Subresource)
			review.Status.Allowed = what.Subresource == "nodeclient"
			return true, review, nil
		})
		l, err := New(loop.Wiring{Client: c.Client, Informers: c.Informers, Logger: c.Logger()}, func(request *x509.CertificateRequest, key x509.KeyUsage, extended []x509.ExtKeyUsage, lifetime time.Duration, _ time.Time) ([]byte, error) {
			if lifetime != 2*time.Hour {
				t.Errorf("lifetime %s", lifetime)
			}
			return keys.SignRequest(request, key, extended, lifetime, keys.Cluster().Certificate().NotBefore.Add(time.Hour))
		})
		c.Must(err)
		c.Start(l)
		const right = "system:node:n1 create certificates.k8s.io/certificatesigningrequests/"
		if !slices.Equal(asked, []string{right + "selfnodeclient", right + "nodeclient"}) {
			t.Errorf("asked %v", asked)
		}
		requests := c.Client.CertificatesV1().CertificateSigningRequests()
		done, err := requests.Get(t.Context(), "r", metav1.GetOptions{})
		c.Must(err)
		// Virtual time began long before the certificate: it is not expired, and its request goes an hour after the answer.
		if len(done.Status.Conditions) != 1 || done.Status.Conditions[0].Reason != "AutoApproved" || len(done.Status.Certificate) == 0 {
			t.Fatalf("status %+v", done.Status)
		}
		c.Pass(time.Hour)
		if _, err := requests.Get(t.Context(), "r", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("an hour later: %v", err)
		}
	})
}

func TestOldRequestsOfPodsGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := looptest.New(t, &certificatesv1.PodCertificateRequest{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "r", UID: "u", CreationTimestamp: metav1.Now()}})
		defer c.Stop()
		l, err := NewPodCleaner(loop.Wiring{Client: c.Client, Informers: c.Informers, Logger: c.Logger()})
		c.Must(err)
		c.Start(l)
		left := func() int {
			list, err := c.Client.CertificatesV1().PodCertificateRequests("a").List(t.Context(), metav1.ListOptions{})
			c.Must(err)
			return len(list.Items)
		}
		c.Pass(14 * time.Minute)
		if left() != 1 {
			t.Error("a request went too early")
		}
		c.Pass(time.Minute)
		if left() != 0 {
			t.Error("an old request stays")
		}
	})
}
