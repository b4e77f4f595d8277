// Package version holds the version of this build. The linker sets it; see the Makefile.
package version

// Version is the version of Podvine; "unknown" in a plain `go build`.
var Version = "unknown"
