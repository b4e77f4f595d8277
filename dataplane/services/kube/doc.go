// Package kube feeds the service proxy and DNS from Kubernetes' objects.
//
// Role: a [Source] watches Services, EndpointSlices and this node's Node through informers, converts what changed
// (convert.go, names.go: pure), and hands it on. Nothing is handed on before all informers have synced, for the first
// full state is what strays of an earlier agent are pruned by.
//
// Concurrency: [Source.Run] is one goroutine; events only note the keys of services.
package kube
