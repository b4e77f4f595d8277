// Command podvine-netd answers DNS on a node. The agent starts it, feeds it over a socket and may go away; see package
// dataplane/netd.
package main

import (
	"fmt"
	"os"

	"github.com/podvine/podvine/dataplane/netd/daemon"
)

func main() {
	if err := daemon.Main(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "podvine-netd:", err)
		os.Exit(1)
	}
}
