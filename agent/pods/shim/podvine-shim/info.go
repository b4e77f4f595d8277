package main

import (
	"fmt"
	"io"
	"os"

	apitypes "github.com/containerd/containerd/api/types"
	"google.golang.org/protobuf/proto"
)

// infoArgument is how containerd asks what the shim is.
const infoArgument = "-info"

// maxInfoOptionBytes bounds the options that come with the question; the kernel holds as much in a pipe.
const maxInfoOptionBytes = 64 << 10

// answerInfo answers what the shim is when containerd asks without options, and says whether it did. Containerd asks so once, but
// before each container again where it gets no answer; the library would need runc in PATH to give one. With options, which
// name runc, it is the library's to tell what runc can do: they are put back for it.
func answerInfo() (answered bool, err error) {
	options, err := io.ReadAll(io.LimitReader(os.Stdin, maxInfoOptionBytes))
	if err != nil {
		return false, fmt.Errorf("read options: %w", err)
	}
	if len(options) == 0 {
		answer, err := proto.Marshal(&apitypes.RuntimeInfo{Name: runtimeName})
		if err == nil {
			_, err = os.Stdout.Write(answer)
		}
		return err == nil, err
	}
	again, w, err := os.Pipe()
	if err != nil {
		return false, fmt.Errorf("put options back: %w", err)
	}
	if _, err := w.Write(options); err != nil {
		return false, fmt.Errorf("put options back: %w", err)
	}
	os.Stdin = again
	return false, w.Close()
}
