// Package kubeletapi serves the node's own HTTP API, as the API server's proxy
// and monitoring tools expect it: logs, exec, attach, port-forward, statistics.
//
// Role: protocol only; what it serves comes from a Node. Every request is
// authenticated and authorized by what Security holds.
//
// Concurrency: a Server is safe for use by many goroutines.
package kubeletapi

import (
	"crypto/tls"
	"net/http"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// Security is how callers prove who they are and what they may do.
type Security struct {
	// TLS serves; it should ask for client certificates. Nil serves plain HTTP,
	// which only tests do.
	TLS *tls.Config
	// Authenticator and Authorizer judge each request but /healthz; nil denies all.
	Authenticator authenticator.Request
	Authorizer    authorizer.Authorizer
	// Routes are further handlers by their pattern ("GET /podvine/images"), judged like the rest.
	Routes map[string]http.Handler
}
