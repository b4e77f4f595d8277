package api

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/authentication/user"
)

// call sends a request in process to a handler of the test's own.
func call(ctx context.Context, t *testing.T, path string, handler http.HandlerFunc) (*http.Response, error) {
	t.Helper()
	l := newLoopback()
	l.serve(handler)
	transport := &inProcessTransport{loopback: l, user: &user.DefaultInfo{Name: "caller"}}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://in-process"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	return transport.RoundTrip(r)
}

// TestPanicEndsTheRequestOnly lets handlers of a plain request and of a watch panic: the caller gets an error.
func TestPanicEndsTheRequestOnly(t *testing.T) {
	broken := func(http.ResponseWriter, *http.Request) { panic("broken handler") }
	//nolint:bodyclose // there is none
	if _, err := call(t.Context(), t, "/api/v1/pods", broken); err == nil || !strings.Contains(err.Error(), "broken handler") {
		t.Errorf("plain request: %v", err)
	}
	response, err := call(t.Context(), t, "/api/v1/pods?watch=true", broken)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if _, err := response.Body.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "broken handler") {
		t.Errorf("watch: %v", err)
	}
}

// TestNestedRequestIsApart asks while another request is answered: only its end passes on, not what hangs on its context.
func TestNestedRequestIsApart(t *testing.T) {
	type outer struct{}
	ctx, cancel := context.WithCancel(audit.WithAuditContext(context.WithValue(t.Context(), outer{}, "outer")))
	defer cancel()
	//nolint:bodyclose // it is in memory, and not looked at
	_, err := call(ctx, t, "/api/v1/pods", func(_ http.ResponseWriter, r *http.Request) {
		if r.Context().Value(outer{}) != nil || audit.AuditContextFrom(r.Context()) != nil {
			t.Error("the nested request has values of the outer one")
		}
		if as, ok := r.Context().Value(inProcessUser{}).(user.Info); !ok || as.GetName() != "caller" {
			t.Errorf("the nested request is made as %v", as)
		}
		cancel()
		<-r.Context().Done()
	})
	if err != nil {
		t.Error(err)
	}
}
