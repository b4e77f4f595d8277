package api_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	registrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"

	"github.com/podvine/podvine/agent/api/apitest"
	"github.com/podvine/podvine/agent/api/apitest/kubectl"
)

const hooksNamespace = "webhooks"

// hookServer is a real webhook server. Each path is a webhook of its own.
type hookServer struct {
	port int32
	ca   []byte
	// loop makes another object that the webhook is asked about, while it is asked about one.
	loop func(ctx context.Context, name string)

	mu    sync.Mutex
	calls map[string][]*admissionv1.AdmissionRequest
}

// answers are what the webhooks do, by path.
func answers() map[string]func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	patch := func(text string) *admissionv1.AdmissionResponse {
		return &admissionv1.AdmissionResponse{Allowed: true, Patch: []byte(text), PatchType: ptr.To(admissionv1.PatchTypeJSONPatch)}
	}
	return map[string]func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse{
		"/first": func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
			return patch(`[{"op": "add", "path": "/data/first", "value": "yes"}]`)
		},
		"/second": func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
			return patch(`[{"op": "add", "path": "/data/second", "value": "yes"}]`)
		},
		"/deny": func(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
			if r.Operation == admissionv1.Create && strings.HasPrefix(r.Name, "denied") {
				return &admissionv1.AdmissionResponse{Result: &metav1.Status{Code: http.StatusTeapot, Message: "not in my house"}, Warnings: []string{"you were told"}}
			}
			return &admissionv1.AdmissionResponse{Allowed: true}
		},
		"/bad-patch": func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
			return patch(`[{"op": "remove", "path": "/nowhere"}]`)
		},
		"/another": func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
			return &admissionv1.AdmissionResponse{UID: "another", Allowed: true}
		},
	}
}

func newHookServer(t *testing.T) *hookServer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "hooks"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"hooks.webhooks.svc"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	h := &hookServer{ca: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), calls: map[string][]*admissionv1.AdmissionRequest{}}
	listener, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	h.port = int32(listener.Addr().(*net.TCPAddr).Port)
	server := httptest.NewUnstartedServer(h)
	server.Listener = listener
	server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	server.StartTLS()
	t.Cleanup(server.Close)
	return h
}

func (h *hookServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var review admissionv1.AdmissionReview
	if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	h.mu.Lock()
	h.calls[r.URL.Path] = append(h.calls[r.URL.Path], review.Request)
	h.mu.Unlock()
	switch r.URL.Path {
	case "/hang":
		<-r.Context().Done()
	case "/loop":
		h.loop(r.Context(), review.Request.Name)
		fallthrough
	case "/lie":
		fmt.Fprint(w, "everything is fine")
	default:
		review.Response = answers()[r.URL.Path](review.Request)
		if review.Response.UID == "" {
			review.Response.UID = review.Request.UID
		}
		_ = json.NewEncoder(w).Encode(review)
	}
}

// asked returns the requests about an object that a webhook was sent.
func (h *hookServer) asked(path, name string) (found []*admissionv1.AdmissionRequest) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range h.calls[path] {
		if r.Name == name {
			found = append(found, r)
		}
	}
	return found
}

// hookService is a service of the cluster that leads to the webhooks, at an address of this machine.
func hookService(t *testing.T, client kubernetes.Interface, port int32) {
	t.Helper()
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	own := ""
	for _, a := range addresses {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && n.IP.IsGlobalUnicast() {
			own = n.IP.String()
		}
	}
	if own == "" {
		t.Fatal("this machine has no address beside loopback")
	}
	ports := []corev1.ServicePort{{Name: "https", Port: 443}}
	_, err = client.CoreV1().Services(hooksNamespace).Create(t.Context(), &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "hooks"}, Spec: corev1.ServiceSpec{Ports: ports}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.DiscoveryV1().EndpointSlices(hooksNamespace).Create(t.Context(), &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: "hooks", Labels: map[string]string{discoveryv1.LabelServiceName: "hooks"}},
		AddressType: discoveryv1.AddressTypeIPv4, Endpoints: []discoveryv1.Endpoint{{Addresses: []string{own}}},
		Ports: []discoveryv1.EndpointPort{{Name: ptr.To("https"), Port: &port}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// byURL reaches a webhook without a service.
func (h *hookServer) byURL(path string) registrationv1.WebhookClientConfig {
	return registrationv1.WebhookClientConfig{URL: ptr.To(fmt.Sprintf("https://127.0.0.1:%d%s", h.port, path)), CABundle: h.ca}
}

// byService reaches a webhook through the service.
func (h *hookServer) byService(path string) registrationv1.WebhookClientConfig {
	return registrationv1.WebhookClientConfig{Service: &registrationv1.ServiceReference{Namespace: hooksNamespace, Name: "hooks", Path: &path}, CABundle: h.ca}
}

func configMapRules() []registrationv1.RuleWithOperations {
	return []registrationv1.RuleWithOperations{{
		Operations: []registrationv1.OperationType{registrationv1.Create},
		Rule:       registrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"configmaps"}}}}
}

func mutating(name string, client registrationv1.WebhookClientConfig) registrationv1.MutatingWebhook {
	return registrationv1.MutatingWebhook{Name: name + ".webhooks.example.com", ClientConfig: client, Rules: configMapRules(),
		SideEffects: ptr.To(registrationv1.SideEffectClassNone), AdmissionReviewVersions: []string{"v1"},
		NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: hooksNamespace}}}
}

func validating(name string, client registrationv1.WebhookClientConfig) registrationv1.ValidatingWebhook {
	m := mutating(name, client)
	return registrationv1.ValidatingWebhook{Name: m.Name, ClientConfig: client, Rules: m.Rules, SideEffects: m.SideEffects,
		AdmissionReviewVersions: m.AdmissionReviewVersions, NamespaceSelector: m.NamespaceSelector}
}

// onlyFor makes a webhook one for objects whose names begin so.
func onlyFor(prefix string) []registrationv1.MatchCondition {
	return []registrationv1.MatchCondition{{Name: "name", Expression: "object.metadata.name.startsWith('" + prefix + "')"}}
}

func testWebhooks(t *testing.T, c *apitest.Cluster, k *kubectl.Kubectl) {
	namespace(t, k, hooksNamespace)
	client := c.Client(t)
	h := newHookServer(t)
	hookService(t, client, h.port)
	makeHooks(t, client, h)
	create := func(ctx context.Context, name string, dryRun ...string) (*corev1.ConfigMap, error) {
		return client.CoreV1().ConfigMaps(hooksNamespace).Create(ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"k": "v"}}, metav1.CreateOptions{DryRun: dryRun})
	}
	apitest.Eventually(t, "the webhooks are asked", func() error {
		made, err := create(t.Context(), "seen", metav1.DryRunAll)
		if err == nil && (made.Data["first"] != "yes" || made.Data["second"] != "yes") {
			err = fmt.Errorf("the data are %v", made.Data)
		}
		return err
	})
	t.Run("dry run is told to webhooks and stores nothing", func(t *testing.T) {
		if asked := h.asked("/second", "seen"); len(asked) == 0 || asked[0].DryRun == nil || !*asked[0].DryRun {
			t.Errorf("asked %+v", asked)
		}
		if _, err := client.CoreV1().ConfigMaps(hooksNamespace).Get(t.Context(), "seen", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("stored: %v", err)
		}
	})
	t.Run("what a later webhook changes, an earlier one sees", func(t *testing.T) {
		if _, err := create(t.Context(), "twice"); err != nil {
			t.Fatal(err)
		}
		if first, second := h.asked("/first", "twice"), h.asked("/second", "twice"); len(first) != 2 || len(second) != 1 ||
			!strings.Contains(string(first[1].Object.Raw), `"second":"yes"`) {
			t.Errorf("asked %d and %d times", len(first), len(second))
		}
		if deny := h.asked("/deny", "twice"); len(deny) != 1 || !strings.Contains(string(deny[0].Object.Raw), `"first":"yes"`) {
			t.Errorf("the validating webhook was asked %+v", deny)
		}
	})
	t.Run("match conditions exclude", func(t *testing.T) {
		made, err := create(t.Context(), "excluded")
		if err != nil || made.Data["second"] != "" || len(h.asked("/second", "excluded")) != 0 {
			t.Errorf("%v %v", made, err)
		}
	})
	t.Run("refusal", func(t *testing.T) {
		_, err := create(t.Context(), "denied")
		var status apierrors.APIStatus
		if !errors.As(err, &status) || status.Status().Code != http.StatusTeapot ||
			!strings.Contains(err.Error(), `admission webhook "deny.webhooks.example.com" denied the request: not in my house`) {
			t.Errorf("%v", err)
		}
		k.Fail(t, "", []string{"create", "configmap", "denied-too", "-n", hooksNamespace, "--from-literal=k=v"}, "Warning: you were told")
	})
	h.loop = func(ctx context.Context, name string) {
		if _, err := create(ctx, name+"x"); err == nil {
			t.Errorf("%sx was made, although its webhook never agreed", name)
		}
	}
	t.Run("webhooks that ask for themselves", func(t *testing.T) { testLoopingHook(t, h, create) })
	t.Run("bad webhooks", func(t *testing.T) { testBadHooks(t, h, create) })
}

// makeHooks configures everything that the stories need.
func makeHooks(t *testing.T, client kubernetes.Interface, h *hookServer) {
	t.Helper()
	first, second := mutating("first", h.byService("/first")), mutating("second", h.byURL("/second"))
	first.ReinvocationPolicy = ptr.To(registrationv1.IfNeededReinvocationPolicy)
	second.MatchConditions = []registrationv1.MatchCondition{{Name: "name", Expression: "object.metadata.name != 'excluded'"}}
	badPatch := mutating("bad-patch", h.byURL("/bad-patch"))
	badPatch.MatchConditions = onlyFor("bad-patch")
	deny := validating("deny", h.byService("/deny"))
	others := []registrationv1.ValidatingWebhook{deny}
	for _, name := range []string{"hang", "lie", "another", "loop"} {
		for _, policy := range []registrationv1.FailurePolicyType{registrationv1.Fail, registrationv1.Ignore} {
			lower := strings.ToLower(string(policy))
			w := validating(name+"-"+lower, h.byURL("/"+name))
			w.FailurePolicy, w.TimeoutSeconds, w.MatchConditions = &policy, ptr.To[int32](1), onlyFor(name+"-"+lower)
			others = append(others, w)
		}
	}
	gone := validating("gone", registrationv1.WebhookClientConfig{Service: &registrationv1.ServiceReference{Namespace: hooksNamespace, Name: "nobody"}})
	gone.MatchConditions = onlyFor("gone")
	others = append(others, gone)
	registrations := client.AdmissionregistrationV1()
	_, err := registrations.MutatingWebhookConfigurations().Create(t.Context(), &registrationv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "stories"}, Webhooks: []registrationv1.MutatingWebhook{first, second, badPatch}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = registrations.ValidatingWebhookConfigurations().Create(t.Context(), &registrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "stories"}, Webhooks: others}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.Background()
		err := errors.Join(registrations.MutatingWebhookConfigurations().Delete(ctx, "stories", metav1.DeleteOptions{}),
			registrations.ValidatingWebhookConfigurations().Delete(ctx, "stories", metav1.DeleteOptions{}))
		if err != nil {
			t.Error(err)
		}
	})
}

// testBadHooks shows what webhooks that hang, lie or are not there do to a request.
func testBadHooks(t *testing.T, h *hookServer, create func(context.Context, string, ...string) (*corev1.ConfigMap, error)) {
	for name, want := range map[string]string{
		"hang-fail":    `failed calling webhook "hang-fail.webhooks.example.com"`,
		"lie-fail":     `failed calling webhook "lie-fail.webhooks.example.com"`,
		"another-fail": `failed calling webhook "another-fail.webhooks.example.com"`,
		"bad-patch":    "error in remove for path: '/nowhere'",
		"gone":         `service "nobody" not found`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := create(t.Context(), name)
			if !apierrors.IsInternalError(err) || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %s", err, want)
			}
		})
	}
	for _, name := range []string{"hang-ignore", "lie-ignore", "another-ignore"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := create(t.Context(), name); err != nil {
				t.Error(err)
			}
			if path, _, _ := strings.Cut(name, "-"); len(h.asked("/"+path, name)) != 1 {
				t.Error("the webhook was not asked")
			}
		})
	}
}

// testLoopingHook: a webhook that makes what it is asked about ends with the request that began it, and takes nobody along.
func testLoopingHook(t *testing.T, h *hookServer, create func(context.Context, string, ...string) (*corev1.ConfigMap, error)) {
	began := time.Now()
	if _, err := create(t.Context(), "loop-fail"); err == nil || !strings.Contains(err.Error(), `failed calling webhook "loop-fail.webhooks.example.com"`) {
		t.Errorf("got %v", err)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %s", took)
	}
	last, since := -1, time.Now()
	apitest.Eventually(t, "nobody asks any more", func() error {
		h.mu.Lock()
		now := len(h.calls["/loop"])
		h.mu.Unlock()
		if now != last {
			last, since = now, time.Now()
		}
		if still := time.Since(since); still < 500*time.Millisecond {
			return fmt.Errorf("asked %d times, the last %s ago", now, still)
		}
		return nil
	})
	if last < 2 {
		t.Errorf("asked %d times: it did not loop", last)
	}
}
