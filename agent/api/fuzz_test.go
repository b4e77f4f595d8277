package api_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/client-go/rest"

	"github.com/podvine/podvine/agent/api"
	"github.com/podvine/podvine/agent/api/apitest"
	"github.com/podvine/podvine/agent/api/kinds"
	"github.com/podvine/podvine/agent/api/kinds/podsecuritypolicy"
	"github.com/podvine/podvine/agent/api/kinds/reviews"
)

// Each target's seeds run as an ordinary test; `go test -fuzz NAME ./agent/api` looks for more.

// everyKind are all kinds, also those that a setting turns on, and what decodes them.
func everyKind(f *testing.F) (map[schema.GroupVersionKind]kinds.Resource, *runtime.Scheme, serializer.CodecFactory) {
	f.Helper()
	all := append(api.Resources(func() reviews.Access { return reviews.Access{} }), podsecuritypolicy.Resource())
	scheme, err := kinds.NewScheme(all)
	if err != nil {
		f.Fatal(err)
	}
	byKind := map[schema.GroupVersionKind]kinds.Resource{}
	for _, r := range all {
		byKind[r.GVK()] = r
	}
	return byKind, scheme, serializer.NewCodecFactory(scheme)
}

// FuzzDecode: whatever comes as a body, decoding, defaulting, preparing and validating it ends no server.
func FuzzDecode(f *testing.F) {
	byKind, scheme, codecs := everyKind(f)
	encoder := protobuf.NewSerializer(scheme, scheme)
	for kind, r := range byKind {
		version, name := kind.ToAPIVersionAndKind()
		head := `{"apiVersion": "` + version + `", "kind": "` + name + `", `
		for _, rest := range []string{`"metadata": null}`, `"metadata": {"name": "x"}, "spec": {}, "status": {}}`, `"metadata": {"name": "x"}, "spec": null}`,
			`"metadata": {"name": "x", "labels": {"a": null}}, "spec": {"template": {"spec": {"containers": [null, {}]}}, "containers": [null], "volumes": [{}], "ports": [null]}}`} {
			f.Add([]byte(head + rest))
		}
		object := r.NewObject()
		object.GetObjectKind().SetGroupVersionKind(kind)
		var binary bytes.Buffer
		if err := encoder.Encode(object, &binary); err != nil {
			f.Fatalf("%s: %v", kind, err)
		}
		f.Add(binary.Bytes())
		f.Add(binary.Bytes()[:binary.Len()/2])
	}
	f.Add([]byte("apiVersion: v1\nkind: Pod\nmetadata: &a {name: x}\nspec: {containers: [{<<: *a}]}\n"))
	f.Fuzz(func(t *testing.T, body []byte) {
		object, kind, err := codecs.UniversalDeserializer().Decode(body, nil, nil)
		if err != nil {
			return
		}
		r, ok := byKind[*kind]
		if !ok || reflect.TypeOf(object) != reflect.TypeOf(r.NewObject()) { // one that is converted to another version before
			return
		}
		strategies := r.Strategies(scheme)
		if strategies.Create == nil {
			return
		}
		namespace := ""
		if m, err := meta.Accessor(object); err == nil && r.IsNamespaced() {
			m.SetNamespace("ns")
			namespace = "ns"
		}
		ctx := request.WithUser(request.WithNamespace(t.Context(), namespace), &user.DefaultInfo{Name: "fuzz"})
		old := object.DeepCopyObject()
		strategies.Create.PrepareForCreate(ctx, object)
		strategies.Create.Validate(ctx, object)
		strategies.Create.WarningsOnCreate(ctx, object)
		strategies.Create.Canonicalize(object)
		if strategies.Update != nil {
			strategies.Update.PrepareForUpdate(ctx, object, old)
			strategies.Update.ValidateUpdate(ctx, object, old)
			strategies.Update.WarningsOnUpdate(ctx, object, old)
		}
		if strategies.Status != nil {
			strategies.Status.PrepareForUpdate(ctx, object, old)
			strategies.Status.ValidateUpdate(ctx, object, old)
		}
	})
}

// FuzzSelectors: a selector of labels or fields is understood or refused, and one that is understood is the same when it is read
// back.
func FuzzSelectors(f *testing.F) {
	byKind, scheme, _ := everyKind(f)
	for _, seed := range []string{"", "a=b", "a==b,c!=d", "a in (b,c),d notin (e), f, !g", "a>1,b<2", "metadata.name=x", "spec.nodeName=,status.phase!=Running",
		`a=b\,c\=d\\`, "a in (", "=", ",,", "!", "a in ()", "metadata.name=x,metadata.name=y", "involvedObject.uid=1", "\x00=\xff", strings.Repeat("a,", 1000)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if parsed, err := labels.Parse(text); err == nil {
			again, err := labels.Parse(parsed.String())
			if err != nil || again.String() != parsed.String() {
				t.Errorf("%q is read back as %v: %v", parsed, again, err)
			}
		}
		parsed, err := fields.ParseSelector(text)
		if err != nil {
			return
		}
		for kind := range byKind {
			converted, err := parsed.Transform(func(field, value string) (string, string, error) { return scheme.ConvertFieldLabel(kind, field, value) })
			if err == nil {
				converted.Matches(fields.Set{"metadata.name": "x"})
			}
		}
	})
}

// FuzzRequests: no path, patch or query that a client sends is answered by a failure of the server.
func FuzzRequests(f *testing.F) {
	c := apitest.Start(f)
	config := rest.CopyConfig(c.Config)
	transport, err := rest.TransportFor(config)
	if err != nil {
		f.Fatal(err)
	}
	patches := []string{"application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json", "application/apply-patch+yaml", "application/json", ""}
	const maps = "/api/v1/namespaces/default/configmaps/fuzzed"
	for i := range patches {
		for _, body := range []string{`[{"op": "add", "path": "/data", "value": {"a": "b"}}]`, `[{"op": "move", "from": "/metadata", "path": "/metadata/name"}]`,
			`[{"op": "copy", "from": "", "path": "/data/a"}]`, `{"data": {"a": null, "$patch": "delete"}}`, `{"metadata": {"managedFields": [{"fieldsV1": {"f:a": {}}}]}}`,
			`{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "fuzzed"}, "data": {"a": "b"}}`, `{"$retainKeys": ["a"], "$setElementOrder/x": 1}`, "null", "[", ""} {
			f.Add(uint8(2), maps, "fieldManager=x", uint8(i), body)
		}
	}
	for _, path := range []string{"/", "/api", "/apis/", "/api/v1/namespaces//configmaps", "/apis/apps/v1/deployments/x/scale", "//", "/api/v1/proxy/x",
		"/api/v1/namespaces/default/pods/x/log", "/openapi/v3/apis/apps/v1", "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers"} {
		for _, query := range []string{"", "limit=-1&continue=x", "labelSelector=%21%21", "fieldSelector=a%3Db", "resourceVersion=x", "resourceVersionMatch=Exact", "timeoutSeconds=-5", "dryRun=Some", "fieldValidation=Odd", "pretty=1"} {
			f.Add(uint8(0), path, query, uint8(4), "")
		}
		f.Add(uint8(1), path, "", uint8(4), `{"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Odd"}`)
		f.Add(uint8(3), path, "", uint8(4), `{"kind": "List", "apiVersion": "v1", "items": [{}]}`)
	}
	f.Add(uint8(0), "/api/v1/watch/namespaces/default/configmaps", "resourceVersion=x", uint8(4), "")
	f.Fuzz(func(t *testing.T, method uint8, path, query string, form uint8, body string) {
		verb := []string{http.MethodGet, http.MethodDelete, http.MethodPatch, http.MethodPost, http.MethodPut}[method%5]
		if strings.Contains(query, "watch") || strings.Contains(query, "follow") || strings.Contains(path, "watch") {
			query += "&timeoutSeconds=1" // or it would go on
		}
		request, err := http.NewRequestWithContext(t.Context(), verb, c.Config.Host, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if request.URL.Path, request.URL.RawQuery = path, query; !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "/debug") {
			return
		}
		if contentType := patches[int(form)%len(patches)]; contentType != "" {
			request.Header.Set("Content-Type", contentType)
		}
		response, err := transport.RoundTrip(request)
		if err != nil {
			return // no request that HTTP knows
		}
		defer response.Body.Close()
		answer, err := io.ReadAll(response.Body)
		if err != nil {
			t.Errorf("%s %s?%s: %v", verb, path, query, err)
		}
		// What no node or service answers is no failure of the server.
		known := bytes.Contains(answer, []byte("invalid key")) || bytes.Contains(answer, []byte("resourceVersion: Invalid value")) // as Kubernetes answers
		if response.StatusCode == http.StatusInternalServerError && !known {
			t.Errorf("%s %s?%s with %s: %d %s", verb, path, query, body, response.StatusCode, answer)
		}
		if response.StatusCode >= 400 && strings.HasPrefix(response.Header.Get("Content-Type"), "application/json") && !json.Valid(answer) {
			t.Errorf("%s %s?%s: no JSON: %s", verb, path, query, answer)
		}
	})
}
