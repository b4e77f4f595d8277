//go:build !bundle

package bundle

import "embed"

// packedFiles is empty: this build carries no programs.
var packedFiles embed.FS
