package runtime

import (
	"os"
	"path/filepath"
	"testing"
)

// The users of a container with a user namespace get through to its files, whatever was there before.
func TestFoldersCanBePassed(t *testing.T) {
	root := t.TempDir()
	cfg := Config{Root: filepath.Join(root, "root"), State: filepath.Join(root, "state"), SocketDir: filepath.Join(root, "s")}
	if err := os.MkdirAll(filepath.Join(cfg.State, "io"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := makeFolders(cfg); err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]os.FileMode{cfg.Root: 0o711, cfg.State: 0o711, cfg.SocketDir: 0o700, filepath.Join(cfg.State, "io"): 0o700} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v; want %v", path, info.Mode(), err, mode)
		}
	}
}
