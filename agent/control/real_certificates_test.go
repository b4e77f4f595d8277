package control_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"

	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/keyutil"
)

// certifies has a user's request approved, as `kubectl certificate approve` does, and asks the API with the certificate.
func (r *real) certifies(ctx context.Context) {
	r.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	r.must(err)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "alice", Organization: []string{"dev"}}}, key)
	r.must(err)
	requests := r.CertificatesV1().CertificateSigningRequests()
	request, err := requests.Create(ctx, &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: "alice"},
		Spec: certificatesv1.CertificateSigningRequestSpec{SignerName: certificatesv1.KubeAPIServerClientSignerName, Usages: []certificatesv1.KeyUsage{certificatesv1.UsageClientAuth},
			Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})}}, metav1.CreateOptions{})
	r.must(err)
	request.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateApproved, Status: v1.ConditionTrue, Reason: "KubectlApprove"}}
	_, err = requests.UpdateApproval(ctx, "alice", request, metav1.UpdateOptions{})
	r.must(err)
	r.until("sign", func() (bool, string) {
		request, err = requests.Get(ctx, "alice", metav1.GetOptions{})
		return err == nil && len(request.Status.Certificate) > 0, fmt.Sprint(err, request)
	})
	config := rest.AnonymousClientConfig(r.cluster.Config)
	config.CertData = request.Status.Certificate
	config.KeyData, err = keyutil.MarshalPrivateKeyToPEM(key)
	r.must(err)
	alice, err := kubernetes.NewForConfig(config)
	r.must(err)
	review, err := alice.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	r.must(err)
	if who := review.Status.UserInfo; who.Username != "alice" || len(who.Groups) == 0 || who.Groups[0] != "dev" {
		r.Errorf("the certificate is that of %v", who)
	}
}
