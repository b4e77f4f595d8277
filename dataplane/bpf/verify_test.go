package bpf

import (
	"testing"

	"github.com/cilium/ebpf"
)

// verifiedLimit bounds what the kernel looks at before it takes a program: it gives up at a million instructions, and half
// of those cost an agent's start seconds.
const verifiedLimit = 100_000

func TestProgramsAreVerifiedQuickly(t *testing.T) {
	for name, load := range map[string]func() (*ebpf.CollectionSpec, error){"sockets": loadSockets, "packets": loadPackets} {
		spec, err := load()
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range spec.Maps {
			m.Pinning = ebpf.PinNone
		}
		collection, err := ebpf.NewCollection(spec)
		if err != nil {
			t.Fatalf("load %s: %v", name, err)
		}
		defer collection.Close()
		for program, loaded := range collection.Programs {
			info, err := loaded.Info()
			if err != nil {
				t.Fatalf("describe %s: %v", program, err)
			}
			count, ok := info.VerifiedInstructions()
			if !ok {
				t.Fatalf("this kernel does not tell what it verified of %s (Linux 5.16 or newer does)", program)
			}
			if t.Logf("%s: %d instructions", program, count); count > verifiedLimit {
				t.Errorf("the kernel looks at %d instructions of %s; the limit is %d", count, program, verifiedLimit)
			}
		}
	}
}
