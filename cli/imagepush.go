package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// engineVariable names the container engine of this machine, as Docker's own tools read it.
const engineVariable = "DOCKER_HOST"

// engineSockets are where Docker and Podman listen.
func engineSockets() []string {
	sockets := []string{"/var/run/docker.sock", "/run/podman/podman.sock"}
	if runtimeDir := os.Getenv("XDG_RUNTIME_DIR"); runtimeDir != "" {
		sockets = append(sockets, runtimeDir+"/docker.sock", runtimeDir+"/podman/podman.sock")
	}
	return sockets
}

func newImagePush(streams Streams) *cobra.Command {
	var to []string
	command := &cobra.Command{
		Use:   "push IMAGE",
		Short: "Make an image that this machine's Docker or Podman holds available on every node",
		Long: `Makes an image that this machine's Docker or Podman holds available on every node, as ` + "`podvine image import`" + ` does with an archive. No
registry is needed. The engine is that of ` + engineVariable + `, or whichever listens at its usual socket.`,
		Args: cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			archive, err := exportFromEngine(command.Context(), args[0])
			if err != nil {
				return err
			}
			file, err := archiveFile(archive, "-")
			if err := errors.Join(err, archive.Close()); err != nil {
				return err
			}
			return importFile(command.Context(), streams, file, to)
		},
	}
	addToFlag(command, &to)
	return command
}

// exportFromEngine has the engine write an image as an archive.
func exportFromEngine(ctx context.Context, image string) (io.ReadCloser, error) {
	socket, err := engineSocket()
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://engine/images/get?names="+url.QueryEscape(image), nil)
	if err != nil {
		return nil, fmt.Errorf("push %s: %w", image, err)
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return nil, fmt.Errorf("push %s: ask the engine at %s: %w", image, socket, err)
	}
	if response.StatusCode != http.StatusOK {
		const maxMessageBytes = 4 << 10
		message, err := io.ReadAll(io.LimitReader(response.Body, maxMessageBytes))
		return nil, errors.Join(fmt.Errorf("push %s: the engine at %s answers %s: %s", image, socket, response.Status, strings.TrimSpace(string(message))),
			err, response.Body.Close())
	}
	return response.Body, nil
}

func engineSocket() (string, error) {
	if named := os.Getenv(engineVariable); named != "" {
		socket, isUnix := strings.CutPrefix(named, "unix://")
		if !isUnix {
			return "", fmt.Errorf("push: %s is %q: only an engine of this machine (unix://…) can be asked; elsewhere, save the image and use `podvine image import`", engineVariable, named)
		}
		return socket, nil
	}
	for _, socket := range engineSockets() {
		if _, err := os.Stat(socket); err == nil {
			return socket, nil
		}
	}
	return "", fmt.Errorf("push: no Docker or Podman listens on this machine: set %s, or use `podvine image import`", engineVariable)
}
