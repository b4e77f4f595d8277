package service

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"
)

// responder fails the test when a proxy reports an error instead of an answer.
type responder struct{ t *testing.T }

func (r responder) Object(int, runtime.Object) {}
func (r responder) Error(err error)            { r.t.Errorf("proxy: %v", err) }

func slice(name, service, ip string, port int32, ready *bool) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: service}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{ip}, Conditions: discoveryv1.EndpointConditions{Ready: ready}}},
		Ports:       []discoveryv1.EndpointPort{{Name: ptr.To("http"), Port: &port, Protocol: ptr.To(corev1.ProtocolTCP)}},
	}
}

func (c *cluster) put(t *testing.T, s *discoveryv1.EndpointSlice) {
	t.Helper()
	key := c.proxy.slices.prefix + "/" + s.Namespace + "/" + s.Name
	must(t, c.proxy.slices.Create(c.ctx, key, s, &discoveryv1.EndpointSlice{}, 0))
}

func TestProxyChoosesAReadyEndpoint(t *testing.T) {
	c := newCluster(t, single())
	_, err := c.create(c.service("web", func(s *corev1.ServiceSpec) { s.Ports[0].Name = "http" }))
	must(t, err)
	_, err = c.create(c.service("empty"))
	must(t, err)
	_, err = c.create(c.service("inner", func(s *corev1.ServiceSpec) { s.Ports[0].Name = "http" }))
	must(t, err)
	c.put(t, slice("web-1", "web", "192.0.2.1", 8080, ptr.To(true)))
	c.put(t, slice("web-2", "web", "192.0.2.2", 8080, ptr.To(false)))
	c.put(t, slice("inner-1", "inner", "127.0.0.1", 8080, nil))
	cases := []struct{ id, want string }{
		{"web:http", "http://192.0.2.1:8080"},
		{"web:80", "http://192.0.2.1:8080"},
		{"https:web:http", "https://192.0.2.1:8080"},
		{"web:81", "ServiceUnavailable"},
		{"web:dns", "ServiceUnavailable"},
		{"empty", "ServiceUnavailable"},
		{"absent:http", "NotFound"},
		{"inner:http", "BadRequest"},
		{"ftp:web:http", "BadRequest"},
	}
	for _, tc := range cases {
		got, err := c.proxy.location(c.ctx, tc.id)
		text := string(apierrors.ReasonForError(err))
		if err == nil {
			text = got.String()
		}
		if text != tc.want {
			t.Errorf("%s: %s (%v), want %s", tc.id, text, err, tc.want)
		}
	}
}

func TestProxyPassesTheRequestOn(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		_, _ = io.WriteString(w, r.Method+" "+r.URL.Path+" "+r.URL.RawQuery+" "+string(body))
	}))
	defer backend.Close()
	address := netip.MustParseAddrPort(backend.Listener.Addr().String())
	c := newCluster(t, single())
	_, err := c.create(c.service("web", func(s *corev1.ServiceSpec) { s.Ports[0].Name = "http" }))
	must(t, err)
	c.put(t, slice("web-1", "web", "192.0.2.1", int32(address.Port()), nil))
	// The endpoint's address is nobody's: the connection goes to the test's server, whatever it is called.
	c.proxy.transport = &http.Transport{DialContext: func(ctx context.Context, network, target string) (net.Conn, error) {
		if target != "192.0.2.1:"+strconv.Itoa(int(address.Port())) {
			t.Errorf("dialled %s", target)
		}
		return (&net.Dialer{}).DialContext(ctx, network, backend.Listener.Addr().String())
	}}
	handler, err := c.proxy.Connect(c.ctx, "web:http", &corev1.ServiceProxyOptions{Path: "a/b/"}, responder{t})
	must(t, err)
	request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "http://api/x?q=1", strings.NewReader("hello"))
	answer := httptest.NewRecorder()
	handler.ServeHTTP(answer, request)
	if got, want := answer.Body.String(), "POST /a/b/ q=1 hello"; got != want {
		t.Errorf("%d %q, want %q", answer.Code, got, want)
	}
}
