package runtime

import (
	"bytes"
	"net"
	"path/filepath"
	"testing"

	"github.com/podvine/podvine/agent/pods/shim/stream"
)

// A process may end before the shim has read what was sent to it: its output is whole all the same, and no error.
func TestPumpEndsWellWithInputUnread(t *testing.T) {
	dir := t.TempDir()
	listener, err := net.Listen("unix", filepath.Join(dir, "stream.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	conn, err := stream.Dial(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	shim, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.SendResize(80, 24); err != nil {
		t.Fatal(err)
	}
	const said = "a terminal\n"
	// A frame: its kind, its length, its bytes.
	if _, err := shim.Write(append([]byte{byte(stream.Out), 0, 0, 0, byte(len(said))}, said...)); err != nil {
		t.Fatal(err)
	}
	if err := shim.Close(); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := Pump(conn, Streams{Stdout: &out}); err != nil || out.String() != said {
		t.Errorf("the output is %q, %v", out.String(), err)
	}
}
