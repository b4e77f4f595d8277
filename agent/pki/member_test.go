package pki

import (
	"bytes"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// joined is the key folder of a node that a replica has certified.
func joined(t *testing.T, by *PKI, node NodeIdentity) string {
	t.Helper()
	dir := t.TempDir()
	request, key, err := NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := by.SignNode(node, request, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := Enrol(dir, by.Cluster().CertPEM(), cert, key); err != nil {
		t.Fatal(err)
	}
	return dir
}

func peerOf(t *testing.T, p *PKI) NodeIdentity {
	t.Helper()
	pair, err := p.Peer().TLS()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: p.Cluster().Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		t.Fatal(err)
	}
	who, err := NodeOf(cert)
	if err != nil {
		t.Fatal(err)
	}
	return who
}

func peerSerial(t *testing.T, p *PKI) string {
	t.Helper()
	pair, err := p.Peer().TLS()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return cert.SerialNumber.String()
}

func TestAnEdgeBecomesAReplicaAndAnEdgeAgain(t *testing.T) {
	founder, err := Open(Config{Dir: t.TempDir(), NodeName: "a", NodeID: "id-a"})
	if err != nil {
		t.Fatal(err)
	}
	if who := peerOf(t, founder); !who.Replica || who.ID != "id-a" || who.Name != "a" {
		t.Errorf("the founder is %+v", who)
	}
	before := peerSerial(t, founder)
	if _, err := founder.Renew(time.Now()); err != nil || peerSerial(t, founder) != before {
		t.Errorf("a certificate that is not due was issued anew (%v)", err)
	}
	dir := joined(t, founder, NodeIdentity{Name: "b", ID: "id-b", Replica: true, IPs: []net.IP{net.IPv4(10, 0, 0, 2)}})
	config := Config{Dir: dir, NodeName: "b", NodeID: "id-b", NodeIPs: []net.IP{net.IPv4(10, 0, 0, 2)}, Sign: func([]byte) ([]byte, error) {
		return nil, errors.New("nothing is due")
	}}
	edge, err := Open(config)
	if err != nil {
		t.Fatal(err)
	}
	if who := peerOf(t, edge); who.Replica {
		t.Error("a node that joins is certified as a replica")
	}
	if _, err := edge.Export(); err == nil {
		t.Error("an edge exports keys")
	}
	if _, err := edge.SignNode(NodeIdentity{Name: "c", ID: "id-c"}, nil, time.Now()); err == nil {
		t.Error("an edge signs")
	}

	bundle, err := founder.Export()
	if err != nil {
		t.Fatal(err)
	}
	if err := Install(dir, bundle); err != nil {
		t.Fatal(err)
	}
	replica, err := Open(Config{Dir: dir, NodeName: "b", NodeID: "id-b", NodeIPs: config.NodeIPs})
	if err != nil {
		t.Fatal(err)
	}
	if who := peerOf(t, replica); !who.Replica || who.ID != "id-b" {
		t.Errorf("the replica is %+v", who)
	}
	if mine, _ := replica.Tokens().SigningKey(); !slices.ContainsFunc(founder.Tokens().PublicKeys(), func(k IdentifiedKey) bool { return k.ID == mine }) {
		t.Error("the replica signs tokens that the founder does not know")
	}

	if err := Uninstall(dir); err != nil {
		t.Fatal(err)
	}
	signed := false
	config.Sign = func(request []byte) ([]byte, error) {
		signed = true
		return founder.SignNode(NodeIdentity{Name: "b", ID: "id-b", IPs: config.NodeIPs}, request, time.Now())
	}
	again, err := Open(config)
	if err != nil {
		t.Fatal(err)
	}
	if who := peerOf(t, again); who.Replica || !signed {
		t.Errorf("after its demotion the node is %+v, signed anew: %v", who, signed)
	}
	err = filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if content, err := os.ReadFile(path); err == nil && bytes.Contains(content, bundle.ClusterKey) {
			t.Errorf("%s still holds the cluster's key", path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestReplicasAdoptEachOthersTokenKeys(t *testing.T) {
	now := time.Now()
	first, err := Open(Config{Dir: t.TempDir(), NodeName: "a", NodeID: "id-a"})
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := first.Export()
	if err != nil {
		t.Fatal(err)
	}
	dir := joined(t, first, NodeIdentity{Name: "b", ID: "id-b"})
	if err := Install(dir, bundle); err != nil {
		t.Fatal(err)
	}
	second, err := Open(Config{Dir: dir, NodeName: "b", NodeID: "id-b"})
	if err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Hour)
	if err := first.Tokens().Rotate(now, time.Hour); err != nil {
		t.Fatal(err)
	}
	rotated, err := first.Export()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // a repetition changes nothing
		if err := second.AdoptTokenKeys(rotated); err != nil {
			t.Fatal(err)
		}
	}
	one, two := first.Tokens().Status(), second.Tokens().Status()
	if len(two) != 2 || one[0].ID != two[0].ID || one[1].ID != two[1].ID || two[1].Retires == nil || !one[1].Retires.Equal(*two[1].Retires) {
		t.Errorf("the first has %+v, the second %+v", one, two)
	}
	if err := second.AdoptTokenKeys(Bundle{TokenKeys: map[string][]byte{"../1.key": nil}}); err == nil {
		t.Error("a key was written outside of the folder")
	}

	// Both lead, one after the other, and rotate in the same second: the two keys have one name.
	now = now.Add(time.Hour)
	for _, p := range []*PKI{first, second} {
		if err := p.Tokens().Rotate(now, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		exchangeTokenKeys(t, first, second)
	}
	opened, err := Open(Config{Dir: dir, NodeName: "b", NodeID: "id-b"})
	if err != nil {
		t.Fatal(err)
	}
	ids := func(p *PKI) (ids []string) {
		for _, key := range p.Tokens().PublicKeys() {
			ids = append(ids, key.ID)
		}
		slices.Sort(ids)
		return ids
	}
	if all := ids(first); len(all) != 4 || !slices.Equal(all, ids(second)) || !slices.Equal(all, ids(opened)) {
		t.Errorf("the first has %v, the second %v, and when it is started again %v", all, ids(second), ids(opened))
	}
}

func exchangeTokenKeys(t *testing.T, one, other *PKI) {
	t.Helper()
	for _, pair := range [][2]*PKI{{one, other}, {other, one}} {
		bundle, err := pair[0].ExportTokenKeys()
		if err == nil {
			err = pair[1].AdoptTokenKeys(bundle)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// A node that nobody can certify starts all the same, as long as what it has is good.
func TestAnEdgeStartsWithoutAReplica(t *testing.T) {
	founder, err := Open(Config{Dir: t.TempDir(), NodeName: "a", NodeID: "id-a"})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		later  time.Duration
		starts bool
	}{
		"not due":  {time.Hour, true},
		"due":      {LeafLifetimeHours * time.Hour * 5 / 6, true},
		"run out":  {(LeafLifetimeHours + 1) * time.Hour, false},
		"too soon": {-25 * time.Hour, false},
	} {
		config := Config{
			Dir: joined(t, founder, NodeIdentity{Name: "b", ID: "id-b"}), NodeName: "b", NodeID: "id-b",
			Now:  func() time.Time { return time.Now().Add(c.later) },
			Sign: func([]byte) ([]byte, error) { return nil, errors.New("nobody is there") },
		}
		_, err := Open(config)
		if (err == nil) != c.starts || errors.Is(err, ErrRanOut) != (name == "run out") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
