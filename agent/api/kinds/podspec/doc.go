// Package podspec knows what a pod specification means: its defaults, every rule that it must keep, with
// Kubernetes' error types, field paths and texts, and the warnings that it deserves. Pod and every kind with a pod
// template share it.
//
// All functions are pure and safe for concurrent use; those named Default… change their argument in place and
// are idempotent. Paths are made by the caller, because a template lies deeper than a pod.
//
// Files go by subject: containers.go, probes.go, env.go, mounts.go, resources.go, security.go, windows.go,
// affinity.go, scheduling.go, network.go, volumes*.go, … and defaults*.go, warnings*.go. Where Kubernetes puts a
// field behind a feature gate that is off by default in 1.37, drop.go removes it.
package podspec
