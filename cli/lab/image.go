package lab

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"runtime"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// WriteImage writes a docker archive of an image with the given name that holds one program and starts it. The same
// program always gives the same image.
func WriteImage(to io.Writer, imageName string, program []byte, arguments ...string) error {
	reference, err := name.NewTag(imageName)
	if err != nil {
		return fmt.Errorf("name the image: %w", err)
	}
	image, err := singleProgramImage(program, arguments)
	if err != nil {
		return fmt.Errorf("build image %s: %w", imageName, err)
	}
	if err := tarball.Write(reference, image, to); err != nil {
		return fmt.Errorf("write image %s: %w", imageName, err)
	}
	return nil
}

func singleProgramImage(program []byte, arguments []string) (v1.Image, error) {
	const path = "app"
	var files bytes.Buffer
	archive := tar.NewWriter(&files)
	if err := archive.WriteHeader(&tar.Header{Name: path, Mode: 0o755, Size: int64(len(program)), Typeflag: tar.TypeReg, ModTime: time.Unix(0, 0)}); err != nil {
		return nil, err
	}
	if _, err := archive.Write(program); err != nil {
		return nil, err
	}
	if err := archive.Close(); err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(files.Bytes())), nil })
	if err != nil {
		return nil, err
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.Config.Entrypoint, config.Config.WorkingDir = append([]string{"/" + path}, arguments...), "/"
	config.Config.ExposedPorts = map[string]struct{}{"8080/tcp": {}}
	return mutate.ConfigFile(image, config)
}
