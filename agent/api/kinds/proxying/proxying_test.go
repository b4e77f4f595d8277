package proxying

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
)

func TestAddresses(t *testing.T) {
	for host, allowed := range map[string]bool{
		"10.0.0.1": true, "192.0.2.1": true, "fd00::1": true, "2001:db8::1": true, "0.0.0.0": false, "::": false, "127.0.0.1": false, "127.9.9.9": false,
		"::1": false, "::ffff:127.0.0.1": false, "169.254.169.254": false, "fe80::1": false, "255.255.255.255": false, "224.0.0.1": false, "239.1.2.3": false, "ff01::1": false,
		"ff02::1": false, "ff0e::1": false, "localhost": false,
	} {
		if err := CheckHost(t.Context(), host); (err == nil) != allowed || err != nil && !apierrors.IsBadRequest(err) {
			t.Errorf("%s: %v", host, err)
		}
	}
	if err := Check(net.ParseIP("no address")); !apierrors.IsBadRequest(err) {
		t.Errorf("no address: %v", err)
	}
}

// responder fails the test when a proxy reports an error instead of an answer.
type responder struct{ t *testing.T }

func (r responder) Object(int, runtime.Object) {}
func (r responder) Error(err error)            { r.t.Errorf("proxy: %v", err) }

func TestPaths(t *testing.T) {
	backend := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Method+" "+r.URL.String())
	}))
	defer backend.Close()
	for below, want := range map[string]string{"": "GET /?q=1", "/": "GET /?q=1", "a": "GET /a?q=1", "a/b/": "GET /a/b/?q=1", "/a//b": "GET /a/b?q=1", "../x/": "GET /x/?q=1"} {
		location, err := url.Parse(backend.URL)
		if err != nil {
			t.Fatal(err)
		}
		answer := httptest.NewRecorder()
		Handler(location, below, Transport, responder{t}).ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://api/x?q=1", nil))
		if got := answer.Body.String(); got != want {
			t.Errorf("%q: %d %q, want %q", below, answer.Code, got, want)
		}
	}
}
