// Package e2e tests a whole Podvine from outside, as its users meet it: a lab with the ordinary binary, and the real
// kubectl. It holds tests only. One lab serves the package; each test works in a namespace of its own.
package e2e
