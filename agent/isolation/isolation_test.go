package isolation

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestOver(t *testing.T) {
	file := filepath.Join(t.TempDir(), "lease")
	if !Over(file) {
		t.Error("a lease that nobody wrote lasts")
	}
	now, err := Now()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		end  time.Duration
		over bool
	}{{"to come", now + time.Hour, false}, {"past", now - 1, true}, {"of another boot", 0, true}} {
		if err := WriteEnd(file, test.end); err != nil {
			t.Fatal(err)
		}
		if Over(file) != test.over {
			t.Errorf("%s: over is %t", test.name, !test.over)
		}
	}
	if err := os.WriteFile(file, []byte("soon"), 0o600); err != nil {
		t.Fatal(err)
	}
	if !Over(file) {
		t.Error("a lease that cannot be read lasts")
	}
}
