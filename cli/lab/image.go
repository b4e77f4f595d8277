package lab

import (
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/podvine/podvine/agent/pods/images/archive"
)

// WriteImage writes a docker archive of an image with the given name that holds one program and starts it. The same
// program always gives the same image.
func WriteImage(to io.Writer, imageName string, program []byte, arguments ...string) error {
	const path = "app"
	return archive.Write(to, imageName, []archive.File{{Path: path, Mode: 0o755, Content: program}}, func(c *v1.Config) {
		c.Entrypoint, c.WorkingDir = append([]string{"/" + path}, arguments...), "/"
		c.ExposedPorts = map[string]struct{}{"8080/tcp": {}}
	})
}
