package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDataFolderBelongsToOneNodeAndOneAgent(t *testing.T) {
	path := t.TempDir()
	first, err := openDataDir(path, "a")
	if err != nil {
		t.Fatal(err)
	}
	if first.identity != (identity{}) {
		t.Errorf("an empty folder belongs to %+v", first.identity)
	}
	if err := first.become(identity{NodeID: "id", ClusterID: "cluster", NodeName: "a", Edge: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := openDataDir(path, "a"); err == nil || !strings.Contains(err.Error(), "another agent uses it") {
		t.Errorf("a second agent got %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := openDataDir(path, "b"); err == nil || !strings.Contains(err.Error(), `belongs to node "a", and this is "b"`) {
		t.Errorf("another node got %v", err)
	}
	again, err := openDataDir(path, "a")
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if again.identity != first.identity {
		t.Errorf("first %+v, again %+v", first.identity, again.identity)
	}
}

func TestDataKeysAreMadeOnceAndNeverBesideAStore(t *testing.T) {
	folder := t.TempDir()
	keys, store := filepath.Join(folder, "keys"), filepath.Join(folder, "raft")
	first, err := openDataKeys(keys, store)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := first.ring.Seal([]byte("secret"), []byte("/secrets/a"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(store, 0o700); err != nil {
		t.Fatal(err)
	}
	again, err := openDataKeys(keys, store)
	if err != nil {
		t.Fatal(err)
	}
	if plain, _, err := again.ring.Open(sealed, []byte("/secrets/a")); err != nil || string(plain) != "secret" {
		t.Errorf("the key that was read again opens %q, %v", plain, err)
	}
	if info, err := os.Stat(keys); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file of the keys: %v, %v", info, err)
	}
	if err := os.Remove(keys); err != nil {
		t.Fatal(err)
	}
	if _, err := openDataKeys(keys, store); err == nil || !strings.Contains(err.Error(), "restore the file") {
		t.Errorf("without the file, beside a store: %v", err)
	}
}

func TestBadConfigurationIsNamedByItsFlag(t *testing.T) {
	for change, want := range map[string]struct {
		do  func(*Config)
		say string
	}{
		"relative folder": {func(c *Config) { c.DataDir = "data" }, `--data-dir: "data" is not an absolute path`},
		"bad name":        {func(c *Config) { c.NodeName = "A_B" }, `--node-name: "A_B"`},
		"one port twice":  {func(c *Config) { c.PeerPort = c.GossipPort }, "is also that of --"},
		"no port":         {func(c *Config) { c.APIPort = 0 }, "--api-port: 0 is no port"},
		"no range":        {func(c *Config) { c.PodRanges = []string{"10.0.0.1"} }, `"10.0.0.1" is not an address range`},
		"inside a range":  {func(c *Config) { c.PodRanges = []string{"10.244.1.0/16"} }, "is not the start of its range, that is 10.244.0.0/16"},
		"overlap":         {func(c *Config) { c.PodRanges = []string{"10.96.0.0/16"} }, "overlaps"},
		"audit, no log":   {func(c *Config) { c.AuditPolicyFile = "/policy" }, "--audit-log-path"},
	} {
		config := DefaultConfig()
		config.NodeName = "a"
		want.do(&config)
		if err := config.Validate(); err == nil || !strings.Contains(err.Error(), want.say) {
			t.Errorf("%s: %v, want %q", change, err, want.say)
		}
	}
	config := DefaultConfig()
	config.NodeName = "a"
	if err := config.Validate(); err != nil {
		t.Errorf("the default configuration: %v", err)
	}
}
