package api

import (
	"net/http"

	genericapiserver "k8s.io/apiserver/pkg/server"
)

// maxPublicRequests bounds the requests to public paths that are served at a time; more get 429.
const maxPublicRequests = 32

// servePublic puts the public paths in front of the chain: who asks them has no credentials yet, and must not take the
// place of those who have.
func servePublic(c *genericapiserver.Config, public map[string]http.Handler) {
	if len(public) == 0 {
		return
	}
	build, slots := c.BuildHandlerChainFunc, make(chan struct{}, maxPublicRequests)
	c.BuildHandlerChainFunc = func(handler http.Handler, c *genericapiserver.Config) http.Handler {
		chain := build(handler, c)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			served, found := public[r.URL.Path]
			if !found {
				chain.ServeHTTP(w, r)
				return
			}
			select {
			case slots <- struct{}{}:
				defer func() { <-slots }()
				served.ServeHTTP(w, r)
			default:
				w.Header().Set("Retry-After", "1")
				http.Error(w, "too many requests at a time, ask again", http.StatusTooManyRequests)
			}
		})
	}
}
