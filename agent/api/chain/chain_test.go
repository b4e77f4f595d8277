package chain

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	genericapifilters "k8s.io/apiserver/pkg/endpoints/filters"
	"k8s.io/apiserver/pkg/endpoints/metrics"
	"k8s.io/apiserver/pkg/endpoints/request"
	genericapiserver "k8s.io/apiserver/pkg/server"
	genericfilters "k8s.io/apiserver/pkg/server/filters"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/apiserver/pkg/warning"
	"k8s.io/component-base/metrics/legacyregistry"
)

// traceParent is the example of the W3C recommendation.
const traceParent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

// config is what a chain is made of, with a user for each request but those that say "nobody".
func config() *genericapiserver.Config {
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	c := genericapiserver.NewConfig(serializer.NewCodecFactory(scheme))
	c.FeatureGate = utilfeature.DefaultFeatureGate
	c.RequestInfoResolver = genericapiserver.NewRequestInfoResolver(c)
	c.LongRunningFunc = genericfilters.BasicLongRunningRequestCheck(sets.NewString("watch", "proxy"), sets.NewString("log"))
	c.Authentication.Authenticator = authenticator.RequestFunc(func(r *http.Request) (*authenticator.Response, bool, error) {
		if r.Header.Get("Authorization") == "nobody" {
			return nil, false, errors.New("nobody")
		}
		return &authenticator.Response{User: &user.DefaultInfo{Name: "jane", Groups: []string{user.AllAuthenticated}}}, true, nil
	})
	c.Authorization.Authorizer = authorizerfactory.NewAlwaysAllowAuthorizer()
	c.RequestTimeout = 10 * time.Second
	return c
}

// chains serves a handler through the library's chain and through this package's.
func chains(t *testing.T, handler http.HandlerFunc, c *genericapiserver.Config) map[string]*httptest.Server {
	t.Helper()
	var workers Workers
	t.Cleanup(workers.Close)
	servers := map[string]*httptest.Server{}
	for name, chain := range map[string]http.Handler{
		"library": genericapiserver.DefaultBuildHandlerChain(handler, c), "running": running(handler, c, &workers),
	} {
		s := httptest.NewUnstartedServer(chain)
		s.EnableHTTP2 = true
		s.StartTLS()
		t.Cleanup(s.Close)
		servers[name] = s
	}
	return servers
}

// answer is what a client sees.
type answer struct {
	status int
	header http.Header
	body   string
	failed bool
}

func ask(t *testing.T, s *httptest.Server, path string, header http.Header) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(r.Header, header)
	response, err := s.Client().Do(r)
	if err != nil {
		return answer{failed: true}
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	response.Header.Del("Date")
	if header.Get("Audit-Id") == "" && response.Header.Get("Audit-Id") != "" {
		response.Header.Set("Audit-Id", "some")
	}
	return answer{response.StatusCode, response.Header, string(body), err != nil}
}

// describe writes what the filters have told the handler.
func describe(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	info, _ := request.RequestInfoFrom(ctx)
	u, _ := request.UserFrom(ctx)
	_, timed := request.ReceivedTimestampFrom(ctx)
	_, tracked := request.LatencyTrackersFrom(ctx)
	deadline, limited := ctx.Deadline()
	warning.AddWarning(ctx, "", "mind the gap")
	var b strings.Builder
	for _, part := range []any{info.Verb, info.Resource, info.Namespace, info.Name, u.GetName(), timed, tracked, limited,
		limited && time.Until(deadline) < 5*time.Second, trace.SpanContextFromContext(ctx).TraceID(), r.Header.Get("Authorization"),
		audit.AuditContextFrom(ctx) != nil} {
		fmt.Fprintln(&b, part)
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		panic(err)
	}
}

func TestAnswersAsTheLibrarysChain(t *testing.T) {
	forbids := config()
	forbids.Authorization.Authorizer = authorizerfactory.NewAlwaysDenyAuthorizer()
	strict := config()
	strict.HSTSDirectives, strict.CorsAllowedOriginList = []string{"max-age=31536000"}, []string{"example.org"}
	aborts := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	slow := func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	cutOff := func(w http.ResponseWriter, r *http.Request) {
		describe(w, r)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}
	const pods = "/api/v1/namespaces/default/pods"
	for name, test := range map[string]struct {
		handler http.HandlerFunc
		config  *genericapiserver.Config
		path    string
		header  http.Header
		// status is what both must answer; 0 is none at all.
		status int
	}{
		"get":              {handler: describe, path: pods + "/a", status: 200},
		"watch":            {handler: describe, path: pods + "?watch=true", status: 200},
		"deadline":         {handler: describe, path: pods + "?timeout=2s", status: 200},
		"bad deadline":     {handler: describe, path: pods + "?timeout=x", status: 400},
		"audit ID":         {handler: describe, path: pods, header: http.Header{"Audit-Id": {"mine"}}, status: 200},
		"trace":            {handler: describe, path: pods, header: http.Header{"Traceparent": {traceParent}}, status: 200},
		"unauthenticated":  {handler: describe, path: pods, header: http.Header{"Authorization": {"nobody"}}, status: 401},
		"secret withheld":  {handler: describe, path: pods, header: http.Header{"Authorization": {"Bearer x"}, "X-Remote-User": {"root"}}, status: 200},
		"impersonated":     {handler: describe, path: pods, header: http.Header{"Impersonate-User": {"joe"}}, status: 200},
		"forbidden":        {handler: describe, config: forbids, path: pods, status: 403},
		"browser":          {handler: describe, config: strict, path: pods, header: http.Header{"Origin": {"https://example.org"}}, status: 200},
		"not a resource":   {handler: describe, path: "/healthz", status: 200},
		"panic":            {handler: func(http.ResponseWriter, *http.Request) { panic("at the disco") }, path: pods, status: 0},
		"abort":            {handler: aborts, path: pods, status: 0},
		"too slow":         {handler: slow, path: pods + "?timeout=20ms", status: 504},
		"cut off":          {handler: cutOff, path: pods + "?timeout=200ms", status: 200},
		"status only":      {handler: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }, path: pods, status: 204},
		"nothing answered": {handler: func(http.ResponseWriter, *http.Request) {}, path: pods, status: 200},
	} {
		t.Run(name, func(t *testing.T) {
			c := test.config
			if c == nil {
				c = config()
			}
			servers := chains(t, test.handler, c)
			library, ours := ask(t, servers["library"], test.path, test.header), ask(t, servers["running"], test.path, test.header)
			if ours.status != test.status || !reflect.DeepEqual(ours, library) {
				t.Errorf("status %d wanted; the library's chain and this one answer:\n%+v\n%+v", test.status, library, ours)
			}
		})
	}
}

func TestLateHandlerIsRefused(t *testing.T) {
	refused := make(chan error, 1)
	servers := chains(t, func(w http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		for {
			if _, err := w.Write([]byte("late")); err != nil { // the deadline may not have reached the writer yet
				refused <- err
				return
			}
			w.Header().Set("Too", "late")
		}
	}, config())
	ask(t, servers["running"], "/api/v1/pods?timeout=20ms", nil)
	if err := <-refused; !errors.Is(err, http.ErrHandlerTimeout) {
		t.Errorf("a late write got %v", err)
	}
}

func TestFiltersAreTimed(t *testing.T) {
	metrics.Register()
	servers := chains(t, describe, config())
	count := func() map[string]uint64 {
		families, err := legacyregistry.DefaultGatherer.Gather()
		if err != nil {
			t.Fatal(err)
		}
		counts := map[string]uint64{}
		for _, f := range families {
			if f.GetName() != "apiserver_request_filter_duration_seconds" {
				continue
			}
			for _, m := range f.GetMetric() {
				counts[m.GetLabel()[0].GetValue()] = m.GetHistogram().GetSampleCount()
			}
		}
		return counts
	}
	measured := map[string]map[string]uint64{}
	for name, s := range servers {
		before := count()
		ask(t, s, "/api/v1/pods", nil)
		after := count()
		for filter := range after {
			after[filter] -= before[filter]
		}
		measured[name] = after
	}
	if !maps.Equal(measured["library"], measured["running"]) || len(measured["running"]) == 0 {
		t.Errorf("filters timed: %v", measured)
	}
}

func TestLibraryServesUntilPathsAreInstalled(t *testing.T) {
	var workers Workers
	t.Cleanup(workers.Close)
	incomplete := false
	built := Build(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		incomplete = !genericapifilters.NoMuxAndDiscoveryIncompleteKey(r.Context())
	}), config(), &workers).(*starting)
	for _, complete := range []bool{false, true} {
		built.complete.Store(complete)
		built.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/version", nil))
		if incomplete == complete || built.complete.Load() != complete {
			t.Errorf("paths complete: %v; the handler was told that they are not: %v", complete, incomplete)
		}
	}
}

func TestWorkersEnd(t *testing.T) {
	var workers Workers
	const jobs = 2 * idleWorkers
	done, hold := make(chan struct{}, jobs), make(chan struct{})
	for range jobs {
		workers.Run(func() { <-hold; done <- struct{}{} })
	}
	close(hold)
	for range jobs {
		<-done
	}
	workers.Close()
	workers.Run(func() { done <- struct{}{} }) // still works, and leaves nobody behind
	<-done
	workers.mu.Lock()
	defer workers.mu.Unlock()
	if n := len(workers.idle); n != 0 {
		t.Errorf("%d workers wait after the end", n)
	}
}
