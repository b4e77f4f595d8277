package api

import (
	"net/http"
	"slices"
	"strings"
	"sync"

	restful "github.com/emicklei/go-restful/v3"
)

// rememberedRoutes bounds what a router remembers. Clients choose headers and so the number of questions; at the limit it
// starts anew.
const rememberedRoutes = 8192

// router selects routes as the library's does, and remembers its answers: that one copies and sorts every route of a path for
// each request, a tenth of what a read allocates. The answer depends on the method, two headers and, of the path, on which
// segments are words that occur in routes; all other segments (names, namespaces) count as equal. Safe for concurrent use.
type router struct {
	asked restful.CurlyRouter

	mu sync.RWMutex
	// services are those for which the rest holds.
	services []*restful.WebService
	// words occur in paths of routes; nil when a route looks at more than that, so that nothing can be remembered.
	words    map[string]struct{}
	selected map[string]selection
}

type selection struct {
	service *restful.WebService
	route   *restful.Route
}

var _ restful.RouteSelector = (*router)(nil)

// SelectRoute implements restful.RouteSelector.
func (r *router) SelectRoute(services []*restful.WebService, request *http.Request) (*restful.WebService, *restful.Route, error) {
	var room [256]byte // most questions fit
	r.mu.RLock()
	current := slices.Equal(services, r.services)
	var key []byte
	if current && r.words != nil {
		key = r.key(room[:0], request)
		if found, ok := r.selected[string(key)]; ok {
			r.mu.RUnlock()
			return found.service, found.route, nil
		}
	}
	r.mu.RUnlock()
	service, route, err := r.asked.SelectRoute(services, request)
	if err == nil && route != nil {
		r.remember(services, request, selection{service, route})
	}
	return service, route, err
}

func (r *router) remember(services []*restful.WebService, request *http.Request, s selection) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Equal(services, r.services) {
		r.services, r.words, r.selected = slices.Clone(services), wordsOf(services), nil
	}
	if r.words == nil {
		return
	}
	if r.selected == nil || len(r.selected) == rememberedRoutes {
		r.selected = map[string]selection{}
	}
	r.selected[string(r.key(nil, request))] = s
}

// key appends what the answer depends on. Words are never empty and hold no zero byte, nor do methods and headers.
func (r *router) key(key []byte, request *http.Request) []byte {
	key = append(append(key, request.Method...), 0)
	key = append(append(key, request.Header.Get(restful.HEADER_ContentType)...), 0)
	key = append(append(key, request.Header.Get(restful.HEADER_Accept)...), 0)
	for segment := range strings.SplitSeq(request.URL.Path, "/") {
		key = append(key, '/')
		if segment == "" {
			continue
		}
		if _, ok := r.words[segment]; ok {
			key = append(key, segment...)
			continue
		}
		key = append(key, 0)
	}
	return key
}

// wordsOf collects the fixed segments of all paths; nil when a route has a condition or a pattern for a segment.
func wordsOf(services []*restful.WebService) map[string]struct{} {
	words := map[string]struct{}{}
	for _, service := range services {
		for _, route := range service.Routes() {
			if len(route.If) > 0 {
				return nil
			}
		}
		paths := []string{service.RootPath()}
		for _, route := range service.Routes() {
			paths = append(paths, route.Path)
		}
		for _, path := range paths {
			for segment := range strings.SplitSeq(path, "/") {
				name, variable := strings.CutPrefix(segment, "{")
				if variable {
					name = strings.TrimSuffix(strings.TrimSuffix(name, "}"), ":*")
				}
				if strings.ContainsAny(name, "{}:") {
					return nil
				}
				if !variable {
					words[segment] = struct{}{}
				}
			}
		}
	}
	return words
}
