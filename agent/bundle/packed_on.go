//go:build bundle

package bundle

import "embed"

//go:embed packed
var packedFiles embed.FS
