package api

import (
	"os"
	"testing"
)

func TestCoveragePageIsCurrent(t *testing.T) {
	page, err := os.ReadFile("../../docs/coverage.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(page) != CoveragePage() {
		t.Error("docs/coverage.md is not what the kinds and gaps make it: run make generate")
	}
}
