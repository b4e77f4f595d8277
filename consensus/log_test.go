package consensus

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

func openTestLog(t *testing.T, dir string) diskLog {
	t.Helper()
	l, err := openLog(dir, 16<<10, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func appendEntries(t *testing.T, l diskLog, from, to uint64, mark string) {
	t.Helper()
	for i := from; i <= to; i++ {
		if err := l.StoreLogs([]*raft.Log{{Index: i, Term: 1, Data: fmt.Appendf(make([]byte, 0, 300), "%s-%0200d", mark, i)}}); err != nil {
			t.Fatalf("append %d: %v", i, err)
		}
	}
}

func checkEntries(t *testing.T, l diskLog, from, to uint64, mark string) {
	t.Helper()
	for i := from; i <= to; i++ {
		var got raft.Log
		if err := l.GetLog(i, &got); err != nil {
			t.Fatalf("read %d: %v", i, err)
		}
		if want := fmt.Sprintf("%s-%0200d", mark, i); string(got.Data) != want {
			t.Fatalf("entry %d is %.20q", i, got.Data)
		}
	}
}

// TestTruncatedLogIsReadable truncates the log's end within a file, as a follower does that disagrees with its leader.
func TestTruncatedLogIsReadable(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	l := openTestLog(t, dir)
	appendEntries(t, l, 1, 30, "old")
	for round := range uint64(3) {
		cut := 20 - 5*round
		if err := l.DeleteRange(cut+1, 30); err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		l = openTestLog(t, dir)
		if last, err := l.LastIndex(); err != nil || last != cut {
			t.Fatalf("the log ends at %d, %v; want %d", last, err, cut)
		}
		checkEntries(t, l, 1, 10, "old")
		appendEntries(t, l, cut+1, 30, "new")
		checkEntries(t, l, cut+1, 30, "new")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = openTestLog(t, dir)
	checkEntries(t, l, 1, 10, "old")
	checkEntries(t, l, 11, 30, "new")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestEveryLengthReopens closes the log after each number of entries, also right where a file is full.
func TestEveryLengthReopens(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	const entries = 200
	for i := uint64(1); i <= entries; i++ {
		l := openTestLog(t, dir)
		appendEntries(t, l, i, i, "v")
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	l := openTestLog(t, dir)
	checkEntries(t, l, 1, entries, "v")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestMetaSurvivesATornSlot(t *testing.T) {
	dir := t.TempDir()
	m := &metaStore{}
	if _, err := m.Load(dir); err != nil {
		t.Fatal(err)
	}
	for i := range byte(3) {
		if err := m.SetStable([]byte("term"), []byte{i}); err != nil {
			t.Fatal(err)
		}
	}
	newest := int64(m.generation%metaSlots) * metaSlotBytes
	if _, err := m.file.WriteAt([]byte{0xff}, newest+metaHeadBytes+3); err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Load(dir); err != nil {
		t.Fatal(err)
	}
	if v, err := m.GetStable([]byte("term")); err != nil || len(v) != 1 || v[0] != 1 {
		t.Fatalf("after a torn write the value is %v, %v; want the one before", v, err)
	}
	if _, err := m.file.WriteAt(make([]byte, 64), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := m.file.WriteAt(make([]byte, 64), metaSlotBytes); err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Load(dir); err == nil {
		t.Fatal("metadata damaged in both copies was accepted")
	}
}
