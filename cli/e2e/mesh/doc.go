// Package mesh tests several hosts as one cluster: a lab of three with the ordinary binary, and kubectl.
package mesh
