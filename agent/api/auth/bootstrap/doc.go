// Package bootstrap holds the roles and bindings that every cluster starts with, those of Kubernetes 1.37 and a few of
// Podvine's own, and reconciles them at start: what lacks is added, what a user added stays, and an object annotated
// rbac.authorization.kubernetes.io/autoupdate=false is left alone.
//
// The tables in roles.go and controllers.go are data; [Policy] turns them into objects. Nothing here keeps state.
package bootstrap
