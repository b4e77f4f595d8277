package main

import (
	"fmt"
	"os"

	apitypes "github.com/containerd/containerd/api/types"
	"google.golang.org/protobuf/proto"
)

// infoArgument is how containerd asks what the shim is. It asks once, but before each container again where it gets no answer,
// and the library's own needs runc in PATH to give one.
const infoArgument = "-info"

func info() int {
	answer, err := proto.Marshal(&apitypes.RuntimeInfo{Name: runtimeName})
	if err == nil {
		_, err = os.Stdout.Write(answer)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "tell what the shim is:", err)
		return 1
	}
	return 0
}
