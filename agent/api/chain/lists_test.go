package chain

import (
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"k8s.io/apiserver/pkg/endpoints/request"
)

// countingWriter counts the writes that reach it.
type countingWriter struct {
	*httptest.ResponseRecorder
	writes int
}

func (w *countingWriter) Write(p []byte) (int, error) {
	w.writes++
	return w.ResponseRecorder.Write(p)
}

func TestListsAreWrittenInLargePieces(t *testing.T) {
	const items, itemBytes = 1000, 1000
	item := make([]byte, itemBytes)
	for _, tt := range []struct {
		verb, local, remote, encoding string
		writes                        int
	}{
		{"list", "192.0.2.1:6443", "192.0.2.1:999", "", items*itemBytes/listBufferBytes + 1},
		{"list", "[::1]:6443", "[::1]:999", "", items*itemBytes/listBufferBytes + 1},
		{"list", "192.0.2.1:6443", "192.0.2.2:999", "gzip", items*itemBytes/listBufferBytes + 1},
		{"watch", "192.0.2.1:6443", "192.0.2.1:999", "gzip", items},
	} {
		w := &countingWriter{ResponseRecorder: httptest.NewRecorder()}
		r := httptest.NewRequest(http.MethodGet, "/api/v1/pods", nil)
		r.RemoteAddr = tt.remote
		r.Header.Set("Accept-Encoding", "gzip")
		local, err := net.ResolveTCPAddr("tcp", tt.local)
		if err != nil {
			t.Fatal(err)
		}
		ctx := request.WithRequestInfo(r.Context(), &request.RequestInfo{IsResourceRequest: true, Verb: tt.verb})
		ctx = request.WithValue(ctx, http.LocalAddrContextKey, local)
		withLists(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if got := r.Header.Get("Accept-Encoding"); got != tt.encoding {
				t.Errorf("%+v: encoding %q", tt, got)
			}
			for range items {
				if _, err := w.Write(item); err != nil {
					t.Error(err)
				}
			}
		})).ServeHTTP(w, r.WithContext(ctx))
		if w.writes != tt.writes || w.Body.Len() != items*itemBytes {
			t.Errorf("%+v: %d bytes in %d writes", tt, w.Body.Len(), w.writes)
		}
	}
}
