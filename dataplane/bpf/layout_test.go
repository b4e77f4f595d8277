package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/podvine/podvine/dataplane/internal/testhost"
)

func TestMain(m *testing.M) { os.Exit(testhost.Main(m)) }

// The types of layout.go must be as long as the C structs, and without padding, or keys would never match.
func TestLayoutsMatchThePrograms(t *testing.T) {
	sockets, err := loadSockets()
	if err != nil {
		t.Fatal(err)
	}
	packets, err := loadPackets()
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name       string
		key, value any
	}{
		{"pv_settings", uint32(0), Settings{}},
		{"pv_frontends", Endpoint{}, Frontend{}},
		{"pv_sets", uint32(0), Set{}},
		{"pv_slots", SlotKey{}, Slot{}},
		{"pv_tables", SlotKey{}, Slot{}},
		{"pv_sources", SourceKey{}, uint32(0)},
		{"pv_flow_load", Endpoint{}, uint32(0)},
		{"pv_members", MemberKey{}, uint32(0)},
		{"pv_locals", Addr{}, uint32(0)},
		{"pv_pods", Addr{}, Pod{}},
		{"pv_remotes", RemoteKey{}, Remote{}},
		{"pv_flows", Tuple{}, Flow{}},
	}
	for _, test := range tests {
		spec := sockets.Maps[test.name]
		if spec == nil {
			spec = packets.Maps[test.name]
		}
		if spec == nil {
			t.Errorf("no map %s", test.name)
			continue
		}
		for what, pair := range map[string]struct {
			have any
			want uint32
		}{"key": {test.key, spec.KeySize}, "value": {test.value, spec.ValueSize}} {
			if size := binary.Size(pair.have); size != int(pair.want) {
				t.Errorf("%s of %s has %d bytes here, %d there", what, test.name, size, pair.want)
			}
		}
	}
	for name, m := range sockets.Maps {
		if other := packets.Maps[name]; other != nil && (other.KeySize != m.KeySize || other.ValueSize != m.ValueSize || other.MaxEntries != m.MaxEntries) {
			t.Errorf("map %s differs between the two objects", name)
		}
	}
}

func TestMissingFeatureIsNamed(t *testing.T) {
	err := unsupported("TCX attachment", "6.6", fmt.Errorf("attach: %w", ebpf.ErrNotSupported))
	var missing *UnsupportedFeature
	if !errors.As(err, &missing) || missing.Since != "6.6" || !strings.Contains(err.Error(), "kernel lacks TCX attachment (Linux 6.6 or newer has it)") {
		t.Errorf("error %v", err)
	}
	if other := errors.New("something else"); !errors.Is(unsupported("x", "y", other), other) || errors.As(unsupported("x", "y", other), &missing) {
		t.Error("an ordinary error was taken for a missing feature")
	}
}

func TestMapOfAnotherLayoutIsReplaced(t *testing.T) {
	dir := testhost.New(t).BPFFSDir
	first, err := OpenSockets(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(first.Sets.Put(uint32(7), Set{Count: 3}), first.Sets.Unpin(), first.Close()); err != nil {
		t.Fatal(err)
	}
	old, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Hash, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(old.Pin(dir+"/maps/pv_sets"), old.Close()); err != nil {
		t.Fatal(err)
	}
	second, err := OpenSockets(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	var set Set
	if err := second.Sets.Lookup(uint32(7), &set); !errors.Is(err, ebpf.ErrKeyNotExist) {
		t.Errorf("lookup in the new map: %v, %v", set, err)
	}
}
