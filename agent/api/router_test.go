package api

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	restful "github.com/emicklei/go-restful/v3"
	"pgregory.net/rapid"
)

// services are like those of the API: fixed segments, names, sub-resources, the rest of a path.
func services() []*restful.WebService {
	var all []*restful.WebService
	for _, root := range []string{"/api", "/api/v1", "/apis/apps/v1"} {
		service := new(restful.WebService)
		service.Path(root).Consumes("*/*").Produces("application/json", "application/yaml")
		add := func(method, path string) {
			service.Route(service.Method(method).Path(path).To(func(*restful.Request, *restful.Response) {}))
		}
		add("GET", "/")
		for _, resource := range []string{"pods", "nodes", "status"} {
			for _, path := range []string{"/" + resource, "/namespaces/{namespace}/" + resource, "/watch/" + resource} {
				add("GET", path)
				add("POST", path)
			}
			for _, method := range []string{"GET", "PUT", "DELETE", "PATCH"} {
				add(method, "/namespaces/{namespace}/"+resource+"/{name}")
				add(method, "/namespaces/{namespace}/"+resource+"/{name}/status")
				add(method, "/namespaces/{namespace}/"+resource+"/{name}/proxy/{path:*}")
			}
		}
		all = append(all, service)
	}
	return all
}

func TestRouterAnswersAsTheLibrarys(t *testing.T) {
	all := services()
	r := &router{}
	segment := rapid.SampledFrom([]string{"", "api", "apis", "apps", "v1", "namespaces", "pods", "nodes", "status", "watch", "proxy", "default", "a", "{name}", "*"})
	prefix := rapid.SampledFrom([]string{"", "/api", "/api/v1", "/api/v1/namespaces/x/pods", "/apis/apps/v1/namespaces/pods", "/api/v1/namespaces/a/pods/status"})
	rapid.Check(t, func(t *rapid.T) {
		known := all[:rapid.IntRange(1, len(all)).Draw(t, "services")] // services come while others are asked for
		request := httptest.NewRequestWithContext(t.Context(), rapid.SampledFrom([]string{"GET", "PUT", "POST", "PATCH", "OPTIONS"}).Draw(t, "method"), "/", nil)
		request.URL.Path = prefix.Draw(t, "prefix") + "/" + strings.Join(rapid.SliceOfN(segment, 0, 5).Draw(t, "path"), "/")
		for _, header := range []string{"Accept", "Content-Type"} {
			if value := rapid.SampledFrom([]string{"", "*/*", "application/json", "application/yaml;q=1", "text/html"}).Draw(t, header); value != "" {
				request.Header.Set(header, value)
			}
		}
		sameAsTheLibrary(t, r, known, request)
	})
}

// sameAsTheLibrary asks both routers.
func sameAsTheLibrary(t interface{ Fatalf(string, ...any) }, r *router, known []*restful.WebService, request *http.Request) {
	service, route, err := restful.CurlyRouter{}.SelectRoute(known, request)
	for range 2 { // asked, remembered
		gotService, gotRoute, gotErr := r.SelectRoute(known, request)
		if gotService != service || (gotErr == nil) != (err == nil) || (gotRoute == nil) != (route == nil) {
			t.Fatalf("%s: %v %v, %v wanted", request.URL.Path, gotRoute, gotErr, route)
		}
		if err != nil && gotErr.Error() != err.Error() {
			t.Fatalf("%s: %v, %v wanted", request.URL.Path, gotErr, err)
		}
		if route != nil && (gotRoute.Path != route.Path || gotRoute.Method != route.Method) {
			t.Fatalf("%s: %s %s, %s %s wanted", request.URL.Path, gotRoute.Method, gotRoute.Path, route.Method, route.Path)
		}
	}
}

// FuzzRouter: any path is routed as the library routes it.
func FuzzRouter(f *testing.F) {
	all := services()
	r := &router{}
	for _, path := range []string{"/", "", "/api/v1/pods", "/api/v1/namespaces/a/pods/b/proxy/c/d/../e", "/apis/apps/v1/namespaces//pods/", "//api/v1", "/api/v1/namespaces/a/pods/b%2fc", "/api/v1/{namespace}"} {
		f.Add(path, uint8(0), "application/json")
		f.Add(path, uint8(3), "")
	}
	f.Fuzz(func(t *testing.T, path string, method uint8, accept string) {
		request := httptest.NewRequestWithContext(t.Context(), []string{"GET", "PUT", "POST", "PATCH", "OPTIONS"}[method%5], "/", nil)
		request.URL.Path = path
		request.Header.Set("Accept", accept)
		sameAsTheLibrary(t, r, all, request)
	})
}

func TestRouterForgetsNothingItMustNotRemember(t *testing.T) {
	all := services()
	if wordsOf(all) == nil {
		t.Fatal("routes like those of the API are not remembered")
	}
	for name, build := range map[string]func(*restful.WebService) *restful.RouteBuilder{
		"pattern":     func(s *restful.WebService) *restful.RouteBuilder { return s.GET("/{name:[a-z]+}") },
		"custom verb": func(s *restful.WebService) *restful.RouteBuilder { return s.GET("/{name}:verb") },
		"condition": func(s *restful.WebService) *restful.RouteBuilder {
			return s.GET("/x").If(func(*http.Request) bool { return true })
		},
	} {
		odd := new(restful.WebService)
		odd.Path("/odd")
		odd.Route(build(odd).To(func(*restful.Request, *restful.Response) {}))
		if wordsOf(append(slices.Clone(all), odd)) != nil {
			t.Errorf("%s: what such a route answers cannot be told from the words of a path", name)
		}
	}
}

func BenchmarkRouter(b *testing.B) {
	all := services()
	request := httptest.NewRequestWithContext(b.Context(), "GET", "/api/v1/namespaces/default/pods/x", nil)
	for name, selector := range map[string]restful.RouteSelector{"library": restful.CurlyRouter{}, "remembering": &router{}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := selector.SelectRoute(all, request); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
