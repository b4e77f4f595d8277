package api_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/podvine/podvine/agent/api/apitest"
	"github.com/podvine/podvine/agent/api/apitest/kubectl"
)

func testBadInput(t *testing.T, c *apitest.Cluster, k *kubectl.Kubectl) {
	ns := namespace(t, k, "bad")
	client := c.Client(t)
	configMaps := client.CoreV1().ConfigMaps("bad")

	t.Run("invalid object", func(t *testing.T) {
		k.Fail(t, "", []string{"create", ns, "configmap", "c", "--from-literal=bad key!=v"}, "not a valid key name")
		_, err := configMaps.Create(t.Context(), &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: "c"}, Data: map[string]string{"bad key!": "v"}}, metav1.CreateOptions{})
		if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), `ConfigMap "c" is invalid: data[bad key!]: Invalid value`) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("unknown field", func(t *testing.T) {
		file := k.File(t, "typo.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndatta: {a: b}\n")
		k.Fail(t, "", []string{"apply", ns, "-f", file}, `strict decoding error: unknown field "datta"`)
		k.Run(t, "", "apply", ns, "-f", file, "--validate=false")
	})
	t.Run("wrong version", func(t *testing.T) {
		file := k.File(t, "version.yaml", "apiVersion: v7\nkind: ConfigMap\nmetadata: {name: c}\n")
		k.Fail(t, "", []string{"apply", ns, "-f", file}, `no matches for kind "ConfigMap" in version "v7"`)
	})
	t.Run("oversized body", func(t *testing.T) {
		_, err := configMaps.Create(t.Context(), &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: "big"}, Data: map[string]string{"k": strings.Repeat("x", 4<<20)}}, metav1.CreateOptions{})
		if !apierrors.IsRequestEntityTooLargeError(err) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("stale resource version", func(t *testing.T) {
		made, err := configMaps.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "stale"}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		stale := made.DeepCopy()
		made.Data = map[string]string{"k": "1"}
		if _, err := configMaps.Update(t.Context(), made, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		stale.Data = map[string]string{"k": "2"}
		if _, err := configMaps.Update(t.Context(), stale, metav1.UpdateOptions{}); !apierrors.IsConflict(err) ||
			!strings.Contains(err.Error(), "the object has been modified; please apply your changes to the latest version and try again") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("immutable", func(t *testing.T) {
		yes := true
		made, err := configMaps.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "fixed"}, Immutable: &yes}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		made.Data = map[string]string{"k": "v"}
		if _, err := configMaps.Update(t.Context(), made, metav1.UpdateOptions{}); !apierrors.IsInvalid(err) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("no such namespace", func(t *testing.T) {
		k.Fail(t, "", []string{"create", "--namespace=absent", "configmap", "c"}, `namespaces "absent" not found`)
	})
	t.Run("secret data as strings", func(t *testing.T) {
		k.Run(t, "", "apply", ns, "-f", k.File(t, "s.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {a: b}\n"))
		if got := k.Run(t, "", "get", ns, "secret/s", "-o", "jsonpath={.type} {.data}"); got != `Opaque {"a":"Yg=="}` {
			t.Errorf("got %s", got)
		}
	})
}

func testBadCredentials(t *testing.T, c *apitest.Cluster, _ *kubectl.Kubectl) {
	get := func(t *testing.T, config *rest.Config) error {
		t.Helper()
		client, err := kubernetes.NewForConfig(config)
		if err != nil {
			t.Fatal(err)
		}
		_, err = client.CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{})
		return err
	}
	t.Run("none", func(t *testing.T) {
		err := get(t, rest.AnonymousClientConfig(c.Config))
		if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), `User "system:anonymous" cannot list resource "namespaces"`) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("token", func(t *testing.T) {
		config := rest.AnonymousClientConfig(c.Config)
		config.BearerToken = "no.such.token"
		if err := get(t, config); !apierrors.IsUnauthorized(err) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("certificate of another authority", func(t *testing.T) {
		foreign := selfSigned(t)
		transport := &http.Transport{TLSClientConfig: &tls.Config{
			RootCAs: c.PKI.Cluster().Pool(),
			// The server names the authority that it wants; show this one all the same.
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &foreign, nil }}}
		defer transport.CloseIdleConnections()
		response, err := (&http.Client{Transport: transport}).Get(c.Config.Host + "/api/v1/namespaces")
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusUnauthorized {
			t.Errorf("got %s", response.Status)
		}
	})
	t.Run("impersonation without the right to", func(t *testing.T) {
		config := rest.CopyConfig(c.Config)
		config.Impersonate = rest.ImpersonationConfig{UserName: "jane", Groups: []string{"system:authenticated"}}
		if err := get(t, config); !apierrors.IsForbidden(err) {
			t.Errorf("got %v", err)
		}
	})
}

func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "admin", Organization: []string{"system:masters"}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func testPages(t *testing.T, c *apitest.Cluster, k *kubectl.Kubectl) {
	namespace(t, k, "pages")
	const objects = 25
	configMaps := c.Client(t).CoreV1().ConfigMaps("pages")
	for i := range objects {
		if _, err := configMaps.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "c" + strconv.Itoa(i)}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	var names []string
	options := metav1.ListOptions{Limit: 10}
	first := ""
	for page := 0; ; page++ {
		list, err := configMaps.List(t.Context(), options)
		if err != nil {
			t.Fatal(err)
		}
		if first == "" {
			first = list.ResourceVersion
			if list.RemainingItemCount == nil || *list.RemainingItemCount != objects-10 {
				t.Errorf("remaining %v", list.RemainingItemCount)
			}
			// What happens meanwhile is not in later pages.
			if err := configMaps.Delete(t.Context(), "c9", metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		if list.ResourceVersion != first {
			t.Errorf("page %d is of version %s, the first of %s", page, list.ResourceVersion, first)
		}
		for _, item := range list.Items {
			names = append(names, item.Name)
		}
		if options.Continue = list.Continue; options.Continue == "" {
			break
		}
	}
	if len(names) != objects {
		t.Errorf("%d names: %q", len(names), names)
	}
	_, err := configMaps.List(t.Context(), metav1.ListOptions{Continue: "bogus"})
	if !apierrors.IsBadRequest(err) {
		t.Errorf("a bad continue token: %v", err)
	}
}

func testTokens(t *testing.T, c *apitest.Cluster, k *kubectl.Kubectl) {
	ns := namespace(t, k, "tokens")
	k.Run(t, "", "create", ns, "serviceaccount", "robot")
	token := strings.TrimSpace(k.Run(t, "", "create", ns, "token", "robot"))
	config := rest.AnonymousClientConfig(c.Config)
	config.BearerToken = token
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.CoreV1().Secrets("tokens").List(t.Context(), metav1.ListOptions{})
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "system:serviceaccount:tokens:robot") {
		t.Errorf("before the grant: %v", err)
	}
	k.Run(t, "", "create", ns, "role", "reader", "--verb=get,list", "--resource=secrets")
	k.Run(t, "", "create", ns, "rolebinding", "reader", "--role=reader", "--serviceaccount=tokens:robot")
	apitest.Eventually(t, "the grant counts", func() error {
		_, err := client.CoreV1().Secrets("tokens").List(t.Context(), metav1.ListOptions{})
		return err
	})
	short := int64(5)
	_, err = c.Client(t).CoreV1().ServiceAccounts("tokens").CreateToken(t.Context(), "robot",
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &short}}, metav1.CreateOptions{})
	if !apierrors.IsInvalid(err) {
		t.Errorf("a token of five seconds: %v", err)
	}
	k.Run(t, "", "delete", ns, "serviceaccount", "robot")
	apitest.Eventually(t, "the token ends with its account", func() error {
		_, err := client.CoreV1().Secrets("tokens").List(t.Context(), metav1.ListOptions{})
		if !apierrors.IsUnauthorized(err) {
			return fmt.Errorf("got %w, want unauthorized", err)
		}
		return nil
	})
}
