package gossip

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTagsSurviveTheJourney(t *testing.T) {
	key := strings.Repeat("k", 44) // a Curve25519 key in base64
	for _, tags := range []Tags{
		{Role: RoleVoter, APIPort: 6443, PeerPort: 7947, TunnelKey: key, Version: "v12.34.56-alpha.7+0123456789abcdef"},
		{Role: RoleEdge, APIPort: 65535},
	} {
		encoded, err := tags.encode()
		if err != nil {
			t.Fatal(err)
		}
		if decoded := decodeTags(encoded); decoded != tags {
			t.Errorf("sent %+v, received %+v", tags, decoded)
		}
	}
}

func TestTagsHaveALimit(t *testing.T) {
	if _, err := (Tags{Version: strings.Repeat("v", MaxTagsBytes)}).encode(); err == nil {
		t.Error("tags beyond the limit were accepted")
	}
}

func TestTagsOfAnotherVersionKeepTheMemberVisible(t *testing.T) {
	if decoded := decodeTags(map[string]string{tagRole: "voter", tagAPIPort: "-1", "new": "x"}); decoded != (Tags{}) {
		t.Errorf("nonsense was read as %+v", decoded)
	}
}

func TestBadKeyringsAreRefused(t *testing.T) {
	for name, content := range map[string]string{
		"empty": "[]", "no JSON": "keys", "no base64": `["*"]`, "a short key": `["YWJj"]`,
	} {
		path := filepath.Join(t.TempDir(), "keys")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := loadKeyring(path, nil); err == nil {
			t.Errorf("%s: the keyring was accepted", name)
		}
	}
}

func TestKeyringFileIsPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys")
	if _, err := loadKeyring(path, NewKey()); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the keyring's mode is %v", info.Mode())
	}
}
