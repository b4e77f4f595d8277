package pki

import (
	"bytes"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// members are a replica and an edge that another replica certified, in folders of their own.
type rotating struct {
	first, second, edge *PKI
	dirs                map[*PKI]string
	// refuses has the edge find no replica.
	refuses bool
}

func newRotating(t *testing.T) *rotating {
	t.Helper()
	r := &rotating{dirs: map[*PKI]string{}}
	dir := t.TempDir()
	var err error
	if r.first, err = Open(Config{Dir: dir, NodeName: "a", NodeID: "id-a"}); err != nil {
		t.Fatal(err)
	}
	r.dirs[r.first] = dir
	bundle, err := r.first.Export()
	if err != nil {
		t.Fatal(err)
	}
	dir = joined(t, r.first, NodeIdentity{Name: "b", ID: "id-b"})
	if err := Install(dir, bundle); err != nil {
		t.Fatal(err)
	}
	if r.second, err = Open(Config{Dir: dir, NodeName: "b", NodeID: "id-b"}); err != nil {
		t.Fatal(err)
	}
	r.dirs[r.second] = dir
	dir = joined(t, r.first, NodeIdentity{Name: "c", ID: "id-c"})
	r.edge, err = Open(Config{Dir: dir, NodeName: "c", NodeID: "id-c", Sign: func(request []byte) ([]byte, error) {
		if r.refuses {
			return nil, errors.New("nobody is there")
		}
		return r.second.SignNode(NodeIdentity{Name: "c", ID: "id-c"}, request, time.Now())
	}})
	if err != nil {
		t.Fatal(err)
	}
	r.dirs[r.edge] = dir
	return r
}

// adopt gives the trust to all, the edge without keys.
func (r *rotating) adopt(t *testing.T, trust Trust) {
	t.Helper()
	for range 2 { // a repetition changes nothing
		for _, p := range []*PKI{r.first, r.second, r.edge} {
			given := trust
			if p == r.edge {
				given = trust.Public()
			}
			if _, err := p.Adopt(given, time.Now()); err != nil {
				t.Fatal(err)
			}
			if state := p.TrustState(); !state.Certified || !slices.Equal(state.Trusted, trust.IDs()) || state.Users != trust.Users {
				t.Fatalf("told %v and %s, it is %+v", trust.IDs(), trust.Users, state)
			}
		}
	}
}

func verifies(p *PKI, cert *x509.Certificate) bool {
	_, err := cert.Verify(x509.VerifyOptions{Roots: p.Cluster().Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	return err == nil
}

func TestAuthoritiesRotate(t *testing.T) {
	r := newRotating(t)
	user := func(p *PKI) *x509.Certificate {
		issued, err := p.IssueClient(Identity{User: "u"}, time.Hour, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return parse(t, issued.CertPEM)
	}
	early := user(r.first)
	earlyPeer, _ := r.edge.Peer().CurrentCertKeyContent()
	held, err := r.first.Trust()
	if err != nil {
		t.Fatal(err)
	}
	both, err := held.WithSuccessor(time.Now().Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	ids := both.IDs()
	if len(ids) != 2 || ids[0] != held.IDs()[0] || both.Newest() != ids[1] || len(both.AllIDs()) != 4 {
		t.Fatalf("the successor makes %v of %v", ids, held.IDs())
	}
	if _, err := r.second.Adopt(mustOrder(t, both, ids[1], ids[0], ids[1]).Public(), time.Now()); err == nil {
		t.Fatal("a replica takes an authority without its key")
	}
	r.adopt(t, both)
	if shown, _ := r.edge.Peer().CurrentCertKeyContent(); !bytes.Equal(shown, earlyPeer) {
		t.Error("a member is certified anew before its time")
	}
	r.adopt(t, mustOrder(t, both, ids[0], ids[1], ids[1]))
	late := user(r.second)
	if late.CheckSignatureFrom(r.first.cluster.get()[1].cert) != nil || !verifies(r.first, early) || !verifies(r.edge, late) {
		t.Error("in the overlap not both kinds of users are trusted, or the new authority does not certify them")
	}
	// All is as it was after a start.
	again, err := Open(Config{Dir: r.dirs[r.second], NodeName: "b", NodeID: "id-b"})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := again.TrustState(), r.second.TrustState(); !slices.Equal(got.Trusted, want.Trusted) || got.Users != want.Users || !got.Certified {
		t.Errorf("after a start it is %+v, not %+v", got, want)
	}

	r.adopt(t, mustOrder(t, both, ids[1], ids[0], ids[1]))
	r.adopt(t, mustOrder(t, both, ids[1], "", ids[1]))
	if verifies(r.first, early) || verifies(r.edge, parse(t, earlyPeer)) || !verifies(r.edge, late) {
		t.Error("a certificate of before is trusted still, or one of now is not")
	}
	for _, p := range []*PKI{r.first, r.second} {
		proxy, _ := p.ProxyClient().CurrentCertKeyContent()
		if parse(t, proxy).CheckSignatureFrom(p.FrontProxy().Certificate()) != nil || p.FrontProxy().Certificate().Equal(parse(t, held.FrontProxy)) {
			t.Error("the front proxy's authority stayed")
		}
		for _, name := range []string{"cluster-ca.key", "front-proxy-ca.key"} {
			content, err := os.ReadFile(filepath.Join(r.dirs[p], name))
			if err != nil || bytes.Contains(content, held.ClusterKeys) || bytes.Contains(content, held.FrontProxyKeys) {
				t.Errorf("%s: %v, or it holds the old key", name, err)
			}
		}
	}
	if _, err := Open(Config{Dir: r.dirs[r.edge], NodeName: "c", NodeID: "id-c", Sign: func([]byte) ([]byte, error) {
		return nil, errors.New("nothing is due")
	}}); err != nil {
		t.Error(err)
	}
}

func mustOrder(t *testing.T, trust Trust, certifies, also, users string) Trust {
	t.Helper()
	ordered, err := trust.Ordered(certifies, also, users)
	if err != nil {
		t.Fatal(err)
	}
	return ordered
}

// A node that is told to show a certificate of the new authority, and finds nobody to sign it, goes on with what it has, also over a start.
func TestAnEdgeWaitsForItsNewCertificate(t *testing.T) {
	r := newRotating(t)
	held, err := r.first.Trust()
	if err != nil {
		t.Fatal(err)
	}
	both, err := held.WithSuccessor(time.Now().Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	ids := both.IDs()
	r.adopt(t, both)
	certify := mustOrder(t, both, ids[1], ids[0], ids[1])
	if _, err := r.edge.Adopt(certify.Public(), time.Now()); err == nil {
		t.Error("a replica that does not show the new authority has signed for it")
	}
	r.refuses = true
	if _, err := r.edge.Adopt(certify.Public(), time.Now()); err == nil || r.edge.TrustState().Certified {
		t.Errorf("without a replica it says %+v, %v", r.edge.TrustState(), err)
	}
	again, err := Open(Config{Dir: r.dirs[r.edge], NodeName: "c", NodeID: "id-c", Sign: func([]byte) ([]byte, error) {
		return nil, errors.New("nobody is there")
	}})
	if err != nil || again.TrustState().Certified {
		t.Fatalf("it does not start with what it has: %v", err)
	}
	r.refuses = false
	r.adopt(t, certify)
}
