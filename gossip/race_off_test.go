//go:build !race

package gossip_test

// largest bounds the meshes of the tests.
const largest = 100
