// Command generate writes docs/coverage.md.
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/podvine/podvine/agent/api"
)

func main() {
	out := flag.String("out", "", "the page")
	flag.Parse()
	if err := os.WriteFile(*out, []byte(api.CoveragePage()), 0o644); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
