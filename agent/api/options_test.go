package api_test

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/podvine/podvine/agent/api"
	"github.com/podvine/podvine/agent/api/apitest"
	"github.com/podvine/podvine/agent/api/apitest/kubectl"
	"github.com/podvine/podvine/agent/api/auth/external"
	"github.com/podvine/podvine/agent/api/auth/standard"
)

// A server with everything configured that the other has not.
func TestServerOptions(t *testing.T) {
	dir := t.TempDir()
	audit := api.Audit{PolicyFile: filepath.Join(dir, "policy.yaml"), LogFile: filepath.Join(dir, "audit.log")}
	policy := "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- {level: Metadata, resources: [{group: '', resources: [configmaps]}]}\n- {level: None}\n"
	if err := os.WriteFile(audit.PolicyFile, []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	changed := make(chan struct{})
	endpoint := make(chan netip.Addr, 2)
	endpoint <- netip.MustParseAddr("192.0.2.10")
	current := netip.Addr{}
	static := filepath.Join(dir, "tokens")
	if err := os.WriteFile(static, []byte(`st4tic,carol,1,"dev"`), 0o600); err != nil {
		t.Fatal(err)
	}
	proxy := newProxy(t, dir)
	c := apitest.Start(t, func(o *apitest.Options) {
		o.RequestHeader = standard.RequestHeader{ClientCAFile: proxy.file, AllowedNames: []string{"edge"}, UsernameHeaders: []string{"X-Who"},
			GroupHeaders: []string{"X-Teams"}, UIDHeaders: []string{"X-Number"}, ExtraHeadersPrefix: []string{"X-More-"}}
		o.External = external.Files{Tokens: static}
		o.Adjust = func(config *api.Config) {
			config.Audit, config.ClusterServices = audit, true
			config.Settings.PodSecurityPolicies = true
			config.KubernetesService = &api.KubernetesService{
				ClusterIP: netip.MustParseAddr("10.96.0.1"), Changed: changed,
				Endpoints: func() ([]netip.Addr, int32) {
					select {
					case current = <-endpoint:
					default: // as before
					}
					return []netip.Addr{current}, 6443
				},
			}
		}
	})
	k := kubectl.New(t, c.Kubeconfig)
	t.Run("bearers of tokens", func(t *testing.T) { testBearers(t, c) })
	t.Run("a front proxy of the administrator's", func(t *testing.T) { testFrontProxy(t, c, k, proxy) })
	t.Run("audit log", func(t *testing.T) { testAudit(t, k, audit.LogFile) })
	t.Run("API service of another server", func(t *testing.T) { testRemoteService(t, k) })
	t.Run("security policies", func(t *testing.T) { testSecurityPolicies(t, c, k) })
	t.Run("kubernetes service", func(t *testing.T) {
		testKubernetesService(t, c, k, func() {
			endpoint <- netip.MustParseAddr("192.0.2.11")
			changed <- struct{}{}
		})
	})
	t.Run("an idle server writes nothing", func(t *testing.T) { testIdle(t, c) })
}

func testAudit(t *testing.T, k *kubectl.Kubectl, file string) {
	// The API asks itself for the account while it answers: two requests, two audit events.
	k.Run(t, "", "create", "serviceaccount", "audited")
	k.Run(t, "", "create", "token", "audited")
	k.Run(t, "", "create", "configmap", "audited")
	apitest.Eventually(t, "the request is in the log", func() error {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			var e auditv1.Event
			if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
				return err
			}
			if e.ObjectRef == nil || e.ObjectRef.Resource != "configmaps" {
				t.Fatalf("the policy asks for config maps only: %s", lines.Bytes())
			}
			if e.Verb == "create" && e.ObjectRef.Name == "audited" && e.Stage == auditv1.StageResponseComplete &&
				e.User.Username != "" && e.ResponseStatus.Code == http.StatusCreated {
				return nil
			}
		}
		return fmt.Errorf("no such event")
	})
}

// testRemoteService serves a group by another process, as metrics servers do.
func testRemoteService(t *testing.T, k *kubectl.Kubectl) {
	users := make(chan string, 64)
	backend := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch r.URL.Path {
		case "/apis/remote.example.com/v1":
			fmt.Fprint(w, `{"kind":"APIResourceList","apiVersion":"v1","groupVersion":"remote.example.com/v1","resources":[
				{"name":"things","singularName":"thing","namespaced":false,"kind":"Thing","verbs":["get","list"]}]}`)
		case "/apis/remote.example.com/v1/things":
			if len(r.TLS.PeerCertificates) > 0 {
				users <- r.TLS.PeerCertificates[0].Subject.CommonName + " for " + r.Header.Get("X-Remote-User")
			}
			fmt.Fprint(w, `{"kind":"ThingList","apiVersion":"remote.example.com/v1","metadata":{},"items":[
				{"kind":"Thing","apiVersion":"remote.example.com/v1","metadata":{"name":"one"}}]}`)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	backend.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	backend.StartTLS()
	defer backend.Close()
	address, err := url.Parse(backend.URL)
	if err != nil {
		t.Fatal(err)
	}
	k.Run(t, "", "create", "service", "externalname", "remote", "--external-name=localhost")
	k.Run(t, fmt.Sprintf(`{"apiVersion":"apiregistration.k8s.io/v1","kind":"APIService","metadata":{"name":"v1.remote.example.com"},
		"spec":{"group":"remote.example.com","version":"v1","groupPriorityMinimum":100,"versionPriority":10,"insecureSkipTLSVerify":true,
		"service":{"namespace":"default","name":"remote","port":%s}}}`, address.Port()), "create", "-f", "-")
	k.Run(t, "", "wait", "--for=condition=Available", "apiservice/v1.remote.example.com", "--timeout=30s")
	apitest.Eventually(t, "the other server answers", func() error {
		out, err := k.Try(t, "", "get", "things", "-o", "name")
		if err == nil && out != "thing.remote.example.com/one\n" {
			return fmt.Errorf("got %q", out)
		}
		return err
	})
	select {
	case got := <-users:
		if want := "podvine-front-proxy for podvine-admin"; got == "" || got[len(got)-6:] == " for " {
			t.Errorf("the other server saw %q, want something like %q", got, want)
		}
	case <-time.After(30 * time.Second):
		t.Error("the other server saw no certificate of the front proxy")
	}
	k.Run(t, "", "delete", "apiservice", "v1.remote.example.com")
	k.Run(t, "", "delete", "service", "remote")
}

func testKubernetesService(t *testing.T, c *apitest.Cluster, k *kubectl.Kubectl, change func()) {
	has(t, k.Run(t, "", "get", "service", "kubernetes"), "10.96.0.1", "443/TCP")
	endpoints := func(want string) {
		t.Helper()
		apitest.Eventually(t, "endpoints are "+want, func() error {
			slice, err := c.Client(t).DiscoveryV1().EndpointSlices("default").Get(t.Context(), "kubernetes", metav1.GetOptions{})
			if err != nil {
				return err
			}
			old, err := k.Try(t, "", "get", "endpoints", "kubernetes", "-o", "jsonpath={.subsets[0].addresses[*].ip}:{.subsets[0].ports[0].port}")
			if err != nil {
				return err
			}
			if len(slice.Endpoints) != 1 || slice.Endpoints[0].Addresses[0] != want || old != want+":6443" {
				return fmt.Errorf("slice %v, endpoints %s", slice.Endpoints, old)
			}
			return nil
		})
	}
	endpoints("192.0.2.10")
	change()
	endpoints("192.0.2.11")
}

// testIdle waits for a while without any entry in the log.
func testIdle(t *testing.T, c *apitest.Cluster) {
	const quiet = 3 * time.Second
	last, since := c.LastIndex(), time.Now()
	apitest.Eventually(t, "the log stands still", func() error {
		if now := c.LastIndex(); now != last {
			last, since = now, time.Now()
		}
		if still := time.Since(since); still < quiet {
			return fmt.Errorf("only for %s", still)
		}
		return nil
	})
}

// testBearers: a bootstrap token counts for as long as its Secret says so, and a file's token counts.
func testBearers(t *testing.T, c *apitest.Cluster) {
	secrets := c.Client(t).CoreV1().Secrets("kube-system")
	_, err := secrets.Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "bootstrap-token-abcdef"}, Type: corev1.SecretTypeBootstrapToken,
		StringData: map[string]string{"token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	who := func(token string) (string, error) {
		config := rest.AnonymousClientConfig(c.Config)
		config.BearerToken = token
		client, err := kubernetes.NewForConfig(config)
		if err != nil {
			return "", err
		}
		review, err := client.AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
		return fmt.Sprint(review.Status.UserInfo.Username, review.Status.UserInfo.Groups), err
	}
	const bootstrap = "abcdef.0123456789abcdef"
	for token, want := range map[string]string{bootstrap: "system:bootstrap:abcdef[system:bootstrappers system:authenticated]", "st4tic": "carol[dev system:authenticated]"} {
		if got, err := who(token); got != want || err != nil {
			t.Errorf("%s, want %s: %v", got, want, err)
		}
	}
	if err := secrets.Delete(t.Context(), "bootstrap-token-abcdef", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, token := range []string{bootstrap, "0ther"} {
		if got, err := who(token); !apierrors.IsUnauthorized(err) {
			t.Errorf("%s: %v", got, err)
		}
	}
}
