package backup_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/podvine/podvine/agent/backup"
)

var header = backup.Header{
	Cluster: "a", Node: "n1", Time: time.Unix(1, 0).UTC(), Version: "v1", Kubernetes: "v1.37.2",
	DataKeys: []backup.KeyPrint{backup.PrintOf(1, []byte("one")), backup.PrintOf(2, []byte("two"))},
}

func written(t *testing.T) []byte {
	t.Helper()
	var file bytes.Buffer
	if err := backup.Write(&file, header); err != nil {
		t.Fatal(err)
	}
	file.WriteString("the snapshot")
	return file.Bytes()
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	file := written(t)
	read, rest, err := backup.Read(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	if read.Cluster != "a" || !read.Time.Equal(header.Time) || len(read.DataKeys) != 2 || read.DataKeys[1] != header.DataKeys[1] {
		t.Errorf("read %+v", read)
	}
	if snapshot, err := io.ReadAll(rest); err != nil || string(snapshot) != "the snapshot" {
		t.Errorf("after the header comes %q, %v", snapshot, err)
	}
	if strings.Contains(string(file), "two") {
		t.Error("a key stands in the file")
	}
}

// Every byte of the header is under its checksum.
func TestADamagedHeaderIsFound(t *testing.T) {
	file := written(t)
	end := bytes.Index(file, []byte("the snapshot"))
	for i := range end {
		damaged := bytes.Clone(file)
		damaged[i] ^= 0x01
		if read, _, err := backup.Read(bytes.NewReader(damaged)); err == nil {
			t.Errorf("byte %d (%q) was changed, and %+v was read", i, file[i], read)
		}
	}
	for _, other := range []string{"", "PODVINE\x01", strings.Repeat("x", 1<<20)} {
		if _, _, err := backup.Read(strings.NewReader(other)); !errors.Is(err, backup.ErrNotABackup) {
			t.Errorf("another file: %v", err)
		}
	}
}

func TestDecide(t *testing.T) {
	view := backup.View{Cluster: "a", Kubernetes: "v1.37.2", DataKeys: header.DataKeys}
	for name, c := range map[string]struct {
		change func(*backup.Header, *backup.View)
		want   string
	}{
		"the same cluster":         {func(*backup.Header, *backup.View) {}, ""},
		"another cluster":          {func(_ *backup.Header, v *backup.View) { v.Cluster = "b" }, "is of cluster a, this is b"},
		"another cluster, meant":   {func(_ *backup.Header, v *backup.View) { v.Cluster, v.AnyCluster = "b", true }, ""},
		"an older API":             {func(h *backup.Header, _ *backup.View) { h.Kubernetes = "v1.36.9" }, ""},
		"a newer patch of the API": {func(h *backup.Header, _ *backup.View) { h.Kubernetes = "v1.37.9" }, ""},
		"a newer API":              {func(h *backup.Header, _ *backup.View) { h.Kubernetes = "v1.38.0" }, "upgrade it first"},
		"no version":               {func(h *backup.Header, _ *backup.View) { h.Kubernetes = "" }, "names no version"},
		"more keys than needed":    {func(h *backup.Header, _ *backup.View) { h.DataKeys = h.DataKeys[:1] }, ""},
		"a key that is not here":   {func(_ *backup.Header, v *backup.View) { v.DataKeys = v.DataKeys[:1] }, "(number 2)"},
		"another key of that number": {func(_ *backup.Header, v *backup.View) {
			v.DataKeys = []backup.KeyPrint{v.DataKeys[0], backup.PrintOf(2, []byte("other"))}
		}, "(number 2)"},
	} {
		h, v := header, view
		c.change(&h, &v)
		err := backup.Decide(h, v)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}
