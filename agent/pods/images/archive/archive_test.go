package archive

import (
	"archive/tar"
	"errors"
	"io"
	"io/fs"
	"reflect"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

func TestBuild(t *testing.T) {
	files := []File{{Path: "bin", Mode: fs.ModeDir | 0o755}, {Path: "bin/a", Mode: 0o700, Content: []byte("text")}, {Path: "bin/b", Link: "a"}}
	configure := func(c *v1.Config) { c.Entrypoint = []string{"/bin/a"} }
	image, err := Build(files, configure)
	if err != nil {
		t.Fatal(err)
	}
	var found []File
	content := mutate.Extract(image)
	defer content.Close()
	for reader := tar.NewReader(content); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		file := File{Path: header.Name, Mode: header.FileInfo().Mode(), Link: header.Linkname}
		if header.Size > 0 {
			if file.Content, err = io.ReadAll(reader); err != nil {
				t.Fatal(err)
			}
		}
		found = append(found, file)
	}
	files[2].Mode = fs.ModeSymlink
	if !reflect.DeepEqual(found, files) {
		t.Errorf("the image holds %+v; want %+v", found, files)
	}
	config, err := image.ConfigFile()
	if err != nil || config.OS != "linux" || !reflect.DeepEqual(config.Config.Entrypoint, []string{"/bin/a"}) {
		t.Errorf("its configuration is %+v, %v", config, err)
	}
	again, err := Build(files, configure)
	if err != nil {
		t.Fatal(err)
	}
	first, _ := image.Digest()
	if second, err := again.Digest(); err != nil || second != first {
		t.Errorf("the same files give %s and %s, %v", first, second, err)
	}
}
