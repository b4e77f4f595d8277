package node

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/podvine/podvine/agent/api/kinds"
)

// known has one node, whose kubelet API is elsewhere.
type known struct{ location *url.URL }

func (k known) Get(_ context.Context, name string, _ *metav1.GetOptions) (runtime.Object, error) {
	if name != "h1" {
		return nil, apierrors.NewNotFound(corev1.Resource("nodes"), name)
	}
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, nil
}

func (k known) ConnectNode(context.Context, string) (kinds.NodeConnection, error) {
	return kinds.NodeConnection{URL: k.location, Transport: http.DefaultTransport}, nil
}

type responder struct{ t *testing.T }

func (r responder) Object(int, runtime.Object) {}
func (r responder) Error(err error)            { r.t.Errorf("proxy: %v", err) }

func TestProxyLocation(t *testing.T) {
	k := known{&url.URL{Scheme: "https", Host: "192.0.2.7:10250"}}
	loopback := known{&url.URL{Scheme: "https", Host: "127.0.0.1:10250"}}
	named := known{&url.URL{Scheme: "https", Host: "localhost:10250"}}
	cases := []struct {
		nodes    known
		id, want string
	}{
		{k, "h1", "https://192.0.2.7:10250"},
		{k, "h1:10250", "https://192.0.2.7:10250"},
		{k, "h1:9100", "http://192.0.2.7:9100"},
		{k, "https:h1:9100", "https://192.0.2.7:9100"},
		{k, "h2", "NotFound"},
		{k, "ftp:h1:21", "BadRequest"},
		{loopback, "h1", "https://127.0.0.1:10250"},
		{named, "h1:22", "BadRequest"},
		{loopback, "h1:22", "BadRequest"},
	}
	for _, c := range cases {
		r := &proxyREST{nodes: c.nodes, connect: c.nodes}
		got, _, err := r.location(t.Context(), c.id)
		text := string(apierrors.ReasonForError(err))
		if err == nil {
			text = got.String()
		}
		if text != c.want {
			t.Errorf("%s: %s (%v), want %s", c.id, text, err, c.want)
		}
	}
}

func TestProxyPassesTheRequestOn(t *testing.T) {
	kubelet := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Method+" "+r.URL.String())
	}))
	defer kubelet.Close()
	location, err := url.Parse(kubelet.URL)
	if err != nil {
		t.Fatal(err)
	}
	k := known{location}
	r := &proxyREST{nodes: k, connect: k}
	handler, err := r.Connect(t.Context(), "h1", &corev1.NodeProxyOptions{Path: "logs/"}, responder{t})
	if err != nil {
		t.Fatal(err)
	}
	answer := httptest.NewRecorder()
	handler.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://api/x?a=b", nil))
	if got, want := answer.Body.String(), "GET /logs/?a=b"; got != want {
		t.Errorf("%d %q, want %q", answer.Code, got, want)
	}
}
