package api_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/podvine/podvine/agent/api/apitest"
	"github.com/podvine/podvine/agent/api/apitest/kubectl"
)

// rawClient sends what clients of the library would not, as the administrator.
type rawClient struct {
	host      string
	transport http.RoundTripper
}

func newRawClient(t *testing.T, c *apitest.Cluster) *rawClient {
	t.Helper()
	config := rest.CopyConfig(c.Config)
	config.DisableCompression = true // what is compressed is to be seen
	transport, err := rest.TransportFor(config)
	if err != nil {
		t.Fatal(err)
	}
	return &rawClient{c.Config.Host, transport}
}

// answer is what came back.
type answer struct {
	code   int
	header http.Header
	body   []byte
}

// reason is that of a Status.
func (a answer) reason() string {
	var status metav1.Status
	if json.Unmarshal(a.body, &status) != nil {
		return ""
	}
	return string(status.Reason)
}

// send sends a request to a path, which goes out as it is written.
func (r *rawClient) send(t *testing.T, method, path string, body io.Reader, headers ...string) answer {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, r.host, body)
	if err != nil {
		t.Fatal(err)
	}
	address, query, _ := strings.Cut(path, "?")
	request.URL = &url.URL{Scheme: request.URL.Scheme, Host: request.URL.Host, Opaque: "//" + request.URL.Host + address, RawQuery: query}
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := r.transport.RoundTrip(request)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return answer{response.StatusCode, response.Header, content}
}

// testEncodings: every kind that can be listed is listed as metadata and as a table, in JSON and in protobuf.
func testEncodings(t *testing.T, c *apitest.Cluster, _ *kubectl.Kubectl) {
	r := newRawClient(t, c)
	_, lists, err := c.Client(t).Discovery().ServerGroupsAndResources()
	if err != nil {
		t.Fatal(err)
	}
	const partial, table = ";as=PartialObjectMetadataList;v=v1;g=meta.k8s.io", ";as=Table;v=v1;g=meta.k8s.io"
	seen := 0
	for _, list := range lists {
		root := "/apis/" + list.GroupVersion + "/"
		if list.GroupVersion == "v1" {
			root = "/api/v1/"
		}
		for _, resource := range list.APIResources {
			if strings.Contains(resource.Name, "/") || !slices.Contains(resource.Verbs, "list") {
				continue
			}
			seen++
			for accept, want := range map[string]string{"application/json" + partial: "PartialObjectMetadataList", "application/json" + table: "Table"} {
				var got metav1.TypeMeta
				a := r.send(t, http.MethodGet, root+resource.Name, nil, "Accept", accept)
				if err := json.Unmarshal(a.body, &got); a.code != http.StatusOK || err != nil || got.Kind != want || got.APIVersion != "meta.k8s.io/v1" {
					t.Errorf("%s%s as %s: %d %s", root, resource.Name, want, a.code, a.body)
				}
			}
			a := r.send(t, http.MethodGet, root+resource.Name, nil, "Accept", "application/vnd.kubernetes.protobuf"+partial)
			if a.code != http.StatusOK || !bytes.HasPrefix(a.body, []byte("k8s\x00")) || !bytes.Contains(a.body, []byte("PartialObjectMetadataList")) {
				t.Errorf("%s%s as metadata in protobuf: %d %q", root, resource.Name, a.code, a.body)
			}
		}
	}
	if seen < 50 {
		t.Errorf("only %d kinds can be listed", seen)
	}
	t.Run("what is large is compressed", func(t *testing.T) { compresses(t, r) })
	t.Run("CBOR", func(t *testing.T) {
		// As on Kubernetes, where its gate is off.
		if a := r.send(t, http.MethodPost, "/api/v1/namespaces", strings.NewReader("\xd9\xd9\xf7\xa0"), "Content-Type", "application/cbor"); a.code != http.StatusUnsupportedMediaType || a.reason() != "UnsupportedMediaType" {
			t.Errorf("a body: %d %s", a.code, a.body)
		}
		if a := r.send(t, http.MethodGet, "/api/v1/namespaces", nil, "Accept", "application/cbor"); a.code != http.StatusNotAcceptable {
			t.Errorf("an answer: %d %s", a.code, a.body)
		}
		if a := r.send(t, http.MethodGet, "/api/v1/namespaces", nil, "Accept", "application/cbor, application/json"); a.code != http.StatusOK || a.header.Get("Content-Type") != "application/json" {
			t.Errorf("an answer to whoever takes JSON too: %d %s", a.code, a.header)
		}
	})
}

func compresses(t *testing.T, r *rawClient) {
	const document = "/openapi/v2"
	plain, packed := r.send(t, http.MethodGet, document, nil), r.send(t, http.MethodGet, document, nil, "Accept-Encoding", "gzip")
	large := `{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "large"}, "data": {"k": "` + strings.Repeat("abcdefgh", 64<<10) + `"}}`
	if a := r.send(t, http.MethodPost, "/api/v1/namespaces/default/configmaps", strings.NewReader(large), "Content-Type", "application/json"); a.code != http.StatusCreated {
		t.Fatalf("%d %s", a.code, a.body)
	}
	object := r.send(t, http.MethodGet, "/api/v1/namespaces/default/configmaps/large", nil, "Accept-Encoding", "gzip")
	list := r.send(t, http.MethodGet, "/api/v1/namespaces/default/configmaps", nil, "Accept-Encoding", "gzip", "Accept", "application/vnd.kubernetes.protobuf")
	small := r.send(t, http.MethodGet, "/api/v1/namespaces/default", nil, "Accept-Encoding", "gzip")
	for name, a := range map[string]answer{"a document": packed, "an object": object} {
		unpacked, err := gzip.NewReader(bytes.NewReader(a.body))
		if err != nil || a.header.Get("Content-Encoding") != "gzip" {
			t.Errorf("%s of %d bytes is not compressed: %d %s", name, len(a.body), a.code, a.header)
			continue
		}
		content, err := io.ReadAll(unpacked)
		if err != nil || len(content) <= len(a.body) || name == "a document" && !bytes.Equal(content, plain.body) {
			t.Errorf("%s: %d bytes of %d: %v", name, len(content), len(a.body), err)
		}
	}
	for name, a := range map[string]answer{"what is small": small, "what is not asked for so": plain, "a list to the same machine": list} {
		if a.header.Get("Content-Encoding") != "" {
			t.Errorf("%s is compressed", name)
		}
	}
	r.send(t, http.MethodDelete, "/api/v1/namespaces/default/configmaps/large", nil)
}
