package chain

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	flowcontrol "k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/options"
	utilflowcontrol "k8s.io/apiserver/pkg/util/flowcontrol"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/podvine/podvine/agent/api/auth"
	roles "github.com/podvine/podvine/agent/api/auth/bootstrap"
	"github.com/podvine/podvine/agent/pki"
)

// ofServer is a chain's configuration with the authentication, authorization, priority and fairness of a server, and a request of a user
// with a client certificate. What is recorded by the audit goes to the file, when there is one.
func ofServer(b *testing.B, auditLog string) (*genericapiserver.Config, *http.Request) {
	b.Helper()
	must := func(err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	c := config()
	c.RequestTimeout = time.Hour // a benchmark is one request
	var objects []runtime.Object
	for _, level := range append(flowcontrol.MandatoryPriorityLevelConfigurations, flowcontrol.SuggestedPriorityLevelConfigurations...) {
		objects = append(objects, level)
	}
	for _, schema := range append(flowcontrol.MandatoryFlowSchemas, flowcontrol.SuggestedFlowSchemas...) {
		objects = append(objects, schema)
	}
	for _, role := range roles.Policy().ClusterRoles {
		objects = append(objects, role)
	}
	objects = append(objects, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "reader"},
		Rules: []rbacv1.PolicyRule{{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"configmaps"}}}},
		&rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "alice", Namespace: "default"},
			RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "reader"}, Subjects: []rbacv1.Subject{{Kind: "User", Name: "alice"}}})
	client := fake.NewClientset(objects...)
	factory := informers.NewSharedInformerFactory(client, 0)
	authorization, err := auth.NewAuthorizer(auth.AuthorizerConfig{Informers: factory})
	must(err)
	c.Authorization.Authorizer = authorization.Authorizer
	c.FlowControl = utilflowcontrol.New(factory, client.FlowcontrolV1(), c.MaxRequestsInFlight+c.MaxMutatingRequestsInFlight)

	keys, err := pki.Open(pki.Config{Dir: b.TempDir(), NodeName: "n1"})
	must(err)
	c.Authentication.Authenticator, err = auth.NewAuthenticator(auth.AuthenticatorConfig{ClientCA: keys.Cluster()})
	must(err)
	issued, err := keys.IssueClient(pki.Identity{User: "alice", Groups: []string{"dev"}}, time.Hour, time.Now())
	must(err)
	block, _ := pem.Decode(issued.CertPEM)
	certificate, err := x509.ParseCertificate(block.Bytes)
	must(err)

	audit := options.NewAuditOptions()
	if auditLog != "" {
		audit.PolicyFile = filepath.Join(filepath.Dir(auditLog), "policy.yaml")
		must(os.WriteFile(audit.PolicyFile, []byte("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]\n"), 0o600))
		audit.LogOptions.Path = auditLog
	}
	must(audit.ApplyTo(c))
	factory.Start(b.Context().Done())
	factory.WaitForCacheSync(b.Context().Done())
	stop := make(chan struct{})
	b.Cleanup(func() { close(stop) })
	go func() { _ = c.FlowControl.Run(stop) }()

	r := httptest.NewRequestWithContext(b.Context(), http.MethodGet, "https://localhost/api/v1/namespaces/default/configmaps/c", nil)
	r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{certificate}}
	return c, r
}

// BenchmarkFilters is what each filter costs a request that has come through those before it and is answered with nothing behind it,
// and what all of them do, without an audit log and with one.
func BenchmarkFilters(b *testing.B) {
	nothing := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	var workers Workers
	b.Cleanup(workers.Close)
	measure := func(c *genericapiserver.Config, r *http.Request, name string, first, behind int) {
		b.Run(name, func(b *testing.B) {
			filters := steps(c, &workers)
			reached := false
			measured := through(filters[first:behind], nothing)
			chain := through(filters[:first], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				reached = true
				b.ReportAllocs()
				for b.Loop() {
					measured.ServeHTTP(w, r)
				}
			}))
			w := httptest.NewRecorder()
			if chain.ServeHTTP(w, r); !reached || w.Code != http.StatusOK {
				b.Fatalf("the filter was reached: %v; status %d", reached, w.Code)
			}
		})
	}
	c, r := ofServer(b, "")
	filters := steps(c, &workers)
	for i, filter := range filters {
		measure(c, r, filter.name, i, i+1)
	}
	measure(c, r, "all", 0, len(filters))
	c, r = ofServer(b, filepath.Join(b.TempDir(), "audit.log"))
	measure(c, r, "all, with an audit log", 0, len(filters))
}
