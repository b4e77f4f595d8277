// Package archive makes images from files, as docker archives that `podvine image import` takes: the sample application's, and those of tests.
package archive

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// File is a file of an image that is made here: a folder when Mode says so, a symbolic link when Link is set.
type File struct {
	Path    string // without a leading slash
	Mode    fs.FileMode
	Content []byte
	Link    string
}

// Build makes an image of one layer for Linux on this machine's architecture; configure changes what it runs and how.
// The same files always give the same image.
func Build(files []File, configure func(*v1.Config)) (v1.Image, error) {
	content, err := pack(files)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil })
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
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	configure(&config.Config)
	return mutate.ConfigFile(image, config)
}

// Write writes the image that Build makes as a docker archive with the image's name.
func Write(to io.Writer, imageName string, files []File, configure func(*v1.Config)) error {
	tag, err := name.NewTag(imageName)
	if err != nil {
		return fmt.Errorf("name the image: %w", err)
	}
	image, err := Build(files, configure)
	if err != nil {
		return fmt.Errorf("build image %s: %w", imageName, err)
	}
	if err := tarball.Write(tag, image, to); err != nil {
		return fmt.Errorf("write image %s: %w", imageName, err)
	}
	return nil
}

func pack(files []File) ([]byte, error) {
	var content bytes.Buffer
	w := tar.NewWriter(&content)
	var failed error
	for _, file := range files {
		header := &tar.Header{Name: file.Path, Mode: int64(file.Mode.Perm()), Size: int64(len(file.Content)), Typeflag: tar.TypeReg, ModTime: time.Unix(0, 0)}
		switch {
		case file.Mode.IsDir():
			header.Typeflag, header.Name = tar.TypeDir, file.Path+"/"
		case file.Link != "":
			header.Typeflag, header.Linkname = tar.TypeSymlink, file.Link
		}
		failed = errors.Join(failed, w.WriteHeader(header))
		_, err := w.Write(file.Content)
		failed = errors.Join(failed, err)
	}
	return content.Bytes(), errors.Join(failed, w.Close())
}
