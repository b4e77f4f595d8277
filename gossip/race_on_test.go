//go:build race

package gossip_test

// largest bounds the meshes under the race detector, which makes a hundred members take minutes and finds nothing more in
// them than in ten.
const largest = 10
