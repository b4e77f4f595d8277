package wireguard

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
	"pgregory.net/rapid"
)

func TestKeyIsMadeOnceAndKeptPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tunnel")
	first, err := OpenKeys(dir)
	if err != nil {
		t.Fatal(err)
	}
	second, err := OpenKeys(dir)
	if err != nil || second.Public() != first.Public() {
		t.Errorf("the key was made anew: %v", err)
	}
	for path, want := range map[string]os.FileMode{first.Path(): 0o600, dir: 0o700} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: mode %v, %v; want %v", path, info.Mode().Perm(), err, want)
		}
	}
	private, err := ReadPrivateKey(first.Path(), first.Public())
	if err != nil {
		t.Fatal(err)
	}
	// The tools of WireGuard agree on which keys belong together.
	if got := wgtypes.Key(private.Bytes()).PublicKey(); Key(got) != first.Public() {
		t.Errorf("public key %s, WireGuard's own says %s", first.Public(), got)
	}
	content, err := os.ReadFile(first.Path())
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if text := fmt.Sprintf(format, private); strings.Contains(text, strings.TrimSpace(string(content))) || !strings.Contains(text, "private key") {
			t.Errorf("%s shows %s", format, text)
		}
	}
	rotated, err := first.Rotate()
	if err != nil || rotated == second.Public() || first.Public() != rotated {
		t.Errorf("rotated to %s, %v", rotated, err)
	}
	if _, err := ReadPrivateKey(first.Path(), second.Public()); err == nil {
		t.Error("the old public key still fits")
	}
}

func TestBrokenKeyFileIsAnErrorThatShowsNothing(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, KeyFile), []byte("c2VjcmV0"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := OpenKeys(dir)
	if err == nil || strings.Contains(err.Error(), "c2VjcmV0") || !strings.Contains(err.Error(), "does not hold a key") {
		t.Errorf("error %v", err)
	}
}

func TestKeyText(t *testing.T) {
	key := Key{1, 2, 3}
	var again Key
	text, err := key.MarshalText()
	if err != nil || again.UnmarshalText(text) != nil || again != key {
		t.Errorf("%s became %s, %v", key, again, err)
	}
	for _, bad := range []string{"", "short", "AAAA"} {
		if _, err := ParseKey(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func peers() *rapid.Generator[[]Peer] {
	one := rapid.Custom(func(t *rapid.T) Peer {
		p := Peer{
			PublicKey: Key{byte(rapid.IntRange(1, 6).Draw(t, "key"))},
			Endpoint:  netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(rapid.IntRange(1, 3).Draw(t, "address"))}), 51820),
		}
		for range rapid.IntRange(0, 2).Draw(t, "ranges") {
			p.AllowedIPs = append(p.AllowedIPs, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(rapid.IntRange(0, 5).Draw(t, "range")), 0}), 24))
		}
		return p
	})
	return rapid.SliceOfNDistinct(one, 0, 6, func(p Peer) Key { return p.PublicKey })
}

// Carrying the changes out turns one list into the other, and nothing is written twice.
func TestDiff(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		have, want := peers().Draw(t, "have"), peers().Draw(t, "want")
		state := map[Key]Peer{}
		for _, p := range have {
			state[p.PublicKey] = p
		}
		for _, c := range Diff(have, want) {
			if c.Remove {
				delete(state, c.Peer.PublicKey)
				continue
			}
			old, known := state[c.Peer.PublicKey]
			if !known && (!c.Endpoint || !c.AllowedIPs) {
				t.Fatalf("new peer half written: %+v", c)
			}
			if c.Endpoint {
				old.Endpoint = c.Peer.Endpoint
			}
			if c.AllowedIPs {
				old.AllowedIPs = c.Peer.AllowedIPs
			}
			old.PublicKey = c.Peer.PublicKey
			state[c.Peer.PublicKey] = old
		}
		if len(state) != len(want) {
			t.Fatalf("%d peers, want %d", len(state), len(want))
		}
		var now []Peer
		for _, p := range state {
			now = append(now, p)
		}
		if left := Diff(now, want); len(left) > 0 {
			t.Fatalf("still to do: %+v", left)
		}
	})
}

func TestMovedPeerKeepsItsSession(t *testing.T) {
	old := Peer{PublicKey: Key{1}, Endpoint: netip.MustParseAddrPort("192.0.2.1:51820"), AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}}
	moved := old
	moved.Endpoint = netip.MustParseAddrPort("[2001:db8::1]:51820")
	text := FormatPeers(Diff([]Peer{old}, []Peer{moved}))
	want := "public_key=0100000000000000000000000000000000000000000000000000000000000000\nendpoint=[2001:db8::1]:51820\n"
	if text != want {
		t.Errorf("wrote %q, want %q", text, want)
	}
	if text := FormatPeers(Diff([]Peer{old}, nil)); !strings.HasSuffix(text, "remove=true\n") {
		t.Errorf("wrote %q", text)
	}
}

func TestCheckRefusesWhatNoDeviceCanDo(t *testing.T) {
	good := Config{Link: "pvwg0", KeyFile: "k", PublicKey: Key{9}, Port: 1}
	one := Peer{PublicKey: Key{1}, Endpoint: netip.MustParseAddrPort("192.0.2.1:1"), AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}}
	two := one
	two.PublicKey = Key{2}
	for name, c := range map[string]Config{
		"no port": {Link: "x", KeyFile: "k", PublicKey: Key{9}}, "key twice": {Peers: []Peer{one, one}}, "range twice": {Peers: []Peer{one, two}},
		"no endpoint": {Peers: []Peer{{PublicKey: Key{1}}}}, "too many": {Peers: make([]Peer, PeersLimit+1)},
	} {
		if name != "no port" {
			list := c.Peers
			c = good
			c.Peers = list
		}
		if err := c.Check(); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
}

func TestParseStatus(t *testing.T) {
	secret := strings.Repeat("ab", KeyBytes)
	status, err := ParseStatus("private_key=" + secret + "\nlisten_port=51820\npublic_key=01" + strings.Repeat("00", 31) +
		"\nendpoint=192.0.2.1:51820\nlast_handshake_time_sec=1700000000\nlast_handshake_time_nsec=5\ntx_bytes=7\nrx_bytes=8\nallowed_ip=10.0.0.0/24\n")
	if err != nil || status.Port != 51820 || len(status.Peers) != 1 {
		t.Fatalf("%+v, %v", status, err)
	}
	p := status.Peers[0]
	if p.PublicKey != (Key{1}) || p.SentBytes != 7 || p.ReceivedBytes != 8 || !p.LastHandshake.Equal(time.Unix(1700000000, 0)) || len(p.AllowedIPs) != 1 {
		t.Errorf("peer %+v", p)
	}
	if strings.Contains(fmt.Sprintf("%+v", status), secret) {
		t.Error("the private key is in the status")
	}
	if _, err := ParseStatus("public_key=zz\n"); err == nil {
		t.Error("a broken key was accepted")
	}
}
