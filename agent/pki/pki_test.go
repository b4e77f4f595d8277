package pki

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
)

func testTime() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }

func open(t *testing.T, dir string, now time.Time) (*PKI, error) {
	t.Helper()
	return Open(Config{
		Dir: dir, NodeName: "n1", NodeIPs: []net.IP{net.IPv4(192, 0, 2, 7)}, ServiceIP: net.IPv4(10, 96, 0, 1),
		Now: func() time.Time { return now },
	})
}

func mustOpen(t *testing.T, dir string, now time.Time) *PKI {
	t.Helper()
	p, err := open(t, dir, now)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func parse(t *testing.T, content []byte) *x509.Certificate {
	t.Helper()
	cert, err := parseCert("test", content)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestServingCertificateNames(t *testing.T) {
	p := mustOpen(t, t.TempDir(), testTime())
	content, _ := p.Serving().CurrentCertKeyContent()
	cert := parse(t, content)
	for _, name := range []string{"localhost", "127.0.0.1", "n1", "192.0.2.7", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
		"kubernetes.default.svc.cluster.local", "10.96.0.1"} {
		_, err := cert.Verify(x509.VerifyOptions{DNSName: name, Roots: p.Cluster().Pool(), CurrentTime: testTime()})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEverythingStaysAfterReopening(t *testing.T) {
	dir := t.TempDir()
	first, second := mustOpen(t, dir, testTime()), mustOpen(t, dir, testTime().Add(time.Hour))
	if !bytes.Equal(first.Cluster().CertPEM(), second.Cluster().CertPEM()) {
		t.Error("another cluster CA")
	}
	a, _ := first.Serving().CurrentCertKeyContent()
	b, _ := second.Serving().CurrentCertKeyContent()
	if !bytes.Equal(a, b) {
		t.Error("another serving certificate")
	}
	one, _ := first.Tokens().SigningKey()
	two, _ := second.Tokens().SigningKey()
	if one != two {
		t.Error("another token key")
	}
}

func TestFilesAreForRootOnly(t *testing.T) {
	dir := t.TempDir()
	mustOpen(t, dir, testTime())
	key := filepath.Join(dir, "cluster-ca.key")
	if err := os.Chmod(key, 0o644); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, dir, testTime()) // puts it right
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if open := info.Mode().Perm() & 0o077; open != 0 && filepath.Ext(path) != ".crt" {
			t.Errorf("%s has mode %o", path, info.Mode().Perm())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

type listener struct{ calls int }

func (l *listener) Enqueue() { l.calls++ }

func TestRenewal(t *testing.T) {
	p := mustOpen(t, t.TempDir(), testTime())
	var heard listener
	p.Serving().AddListener(&heard)
	before, _ := p.Serving().CurrentCertKeyContent()
	next, err := p.Renew(testTime().Add(time.Hour))
	if err != nil || heard.calls != 0 {
		t.Fatalf("renewed after an hour (%v)", err)
	}
	if wait := next.Sub(testTime()); wait < 19*24*time.Hour || wait > 21*24*time.Hour {
		t.Errorf("next look after %s, want two thirds of %d h", wait, LeafLifetimeHours)
	}
	if _, err := p.Renew(next); err != nil {
		t.Fatal(err)
	}
	after, _ := p.Serving().CurrentCertKeyContent()
	if bytes.Equal(before, after) || heard.calls != 1 {
		t.Errorf("not renewed, or %d calls instead of 1", heard.calls)
	}
}

func TestChangedAddressIsCertifiedAnew(t *testing.T) {
	dir := t.TempDir()
	mustOpen(t, dir, testTime())
	p, err := Open(Config{Dir: dir, NodeName: "n1", NodeIPs: []net.IP{net.IPv4(192, 0, 2, 8)}, Now: testTime})
	if err != nil {
		t.Fatal(err)
	}
	content, _ := p.Serving().CurrentCertKeyContent()
	if err := parse(t, content).VerifyHostname("192.0.2.8"); err != nil {
		t.Error(err)
	}
}

func TestRenewAt(t *testing.T) {
	from := testTime()
	if got := RenewAt(from, from.Add(3*time.Hour)); got != from.Add(2*time.Hour) {
		t.Errorf("renew at %s", got)
	}
}

func TestPlanTokenKeys(t *testing.T) {
	day := 24 * time.Hour
	now := testTime()
	made := func(ages ...time.Duration) (keys []tokenKey) {
		for _, age := range ages {
			keys = append(keys, tokenKey{made: now.Add(-age)})
		}
		return keys
	}
	retired := func(at time.Time) []tokenKey {
		keys := made(9*day, 8*day, day)
		keys[1].retire = at
		return keys
	}
	for name, c := range map[string]struct {
		keys []tokenKey
		due  bool
		drop []int
	}{
		"fresh":                         {made(0), false, nil},
		"due":                           {made(TokenKeySignsDays * day), true, nil},
		"old one verifies still":        {made(200*day, 10*day), false, nil},
		"old one verifies nothing":      {made(600*day, 401*day, 10*day), false, []int{0}},
		"the newest is never dropped":   {made(4000 * day), true, nil},
		"one that is to retire":         {retired(now.Add(time.Hour)), false, nil},
		"one that retires now":          {retired(now), false, []int{1}},
		"more than the folder may hold": {made(slices.Repeat([]time.Duration{day}, maxTokenKeys+1)...), false, []int{0}},
	} {
		due, drop, next := planTokenKeys(c.keys, now)
		if due != c.due || !slices.Equal(drop, c.drop) || !next.After(now) {
			t.Errorf("%s: due %t, drop %v, next %s", name, due, drop, next)
		}
	}
}

// A new key verifies at once and signs when the other replicas have had the time to get it; one that replaces others has
// them verify no more after the overlap.
func TestTokenKeysRotate(t *testing.T) {
	now, makes := testTime(), true
	p, err := Open(Config{Dir: t.TempDir(), NodeName: "node1", Now: func() time.Time { return now }, MakesTokenKeys: func() bool { return makes }})
	if err != nil {
		t.Fatal(err)
	}
	signs := func() string { id, _ := p.Tokens().SigningKey(); return id }
	renew := func() {
		t.Helper()
		if next, err := p.Renew(now); err != nil || !next.After(now) {
			t.Fatalf("look again at %s, %v", next, err)
		}
	}
	old := signs()
	now = now.AddDate(0, 0, TokenKeySignsDays)
	makes = false
	if renew(); len(p.Tokens().PublicKeys()) != 1 {
		t.Error("a replica that is not to make keys made one")
	}
	makes = true
	if renew(); len(p.Tokens().PublicKeys()) != 2 || signs() != old {
		t.Error("a key that nobody else can have yet signs")
	}
	now = now.Add(TokenKeySettle)
	second := signs()
	if second == old {
		t.Error("the old key signs still")
	}
	for range 2 { // in the same second
		if err := p.Tokens().Rotate(now, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	if signs() != second || len(p.Tokens().PublicKeys()) != 4 {
		t.Errorf("after a rotation: %+v", p.Tokens().Status())
	}
	now = now.Add(TokenKeySettle + time.Hour - time.Second)
	if renew(); signs() == second || len(p.Tokens().PublicKeys()) != 4 {
		t.Errorf("during the overlap: %+v", p.Tokens().Status())
	}
	now = now.Add(3 * time.Second)
	if got := p.Tokens().PublicKeys(); len(got) != 1 {
		t.Errorf("%d keys verify after the overlap, before anything renewed", len(got))
	}
	if _, ok := p.Tokens().PublicKey(second); ok {
		t.Error("a retired key verifies before anything renewed")
	}
	if renew(); len(p.Tokens().PublicKeys()) != 1 {
		t.Errorf("after the overlap: %+v", p.Tokens().Status())
	}
	again, err := Open(p.config)
	if err != nil || len(again.Tokens().PublicKeys()) != 1 {
		t.Errorf("opened again: %v", err)
	}
}

func TestIssueClient(t *testing.T) {
	p := mustOpen(t, t.TempDir(), testTime())
	issued, err := p.IssueClient(Identity{User: "alice", Groups: []string{"dev"}}, time.Hour, testTime())
	if err != nil {
		t.Fatal(err)
	}
	cert := parse(t, issued.CertPEM)
	if cert.Subject.CommonName != "alice" || strings.Join(cert.Subject.Organization, ",") != "dev" || !cert.NotAfter.Equal(testTime().Add(time.Hour)) {
		t.Errorf("issued %v until %s", cert.Subject, cert.NotAfter)
	}
	for name, c := range map[string]struct {
		id  Identity
		ttl time.Duration
	}{
		"no name":    {Identity{User: " "}, time.Hour},
		"no group":   {Identity{User: "a", Groups: []string{""}}, time.Hour},
		"a newline":  {Identity{User: "a\nb"}, time.Hour},
		"no time":    {Identity{User: "a"}, 0},
		"a long one": {Identity{User: "a"}, 2 * 365 * 24 * time.Hour},
	} {
		if _, err := p.IssueClient(c.id, c.ttl, testTime()); err == nil {
			t.Errorf("%s: issued", name)
		}
	}
}

func TestAdminKubeconfig(t *testing.T) {
	p := mustOpen(t, t.TempDir(), testTime())
	path := filepath.Join(t.TempDir(), "admin.kubeconfig")
	if err := p.WriteAdminKubeconfig(path, "https://127.0.0.1:6443", testTime()); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v (%v)", info.Mode(), err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		t.Fatal(err)
	}
	if cert := parse(t, config.CertData); cert.Subject.Organization[0] != MastersGroup || config.Host != "https://127.0.0.1:6443" {
		t.Errorf("kubeconfig for %v at %s", cert.Subject, config.Host)
	}
}

func TestBrokenFiles(t *testing.T) {
	write := func(name, content string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	swap := func(from, to string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			content, err := os.ReadFile(filepath.Join(dir, from))
			if err != nil {
				t.Fatal(err)
			}
			write(to, string(content))(t, dir)
		}
	}
	remove := func(name string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, c := range map[string]struct {
		harm func(t *testing.T, dir string)
		now  time.Time
		want string // "": heals
	}{
		"junk certificate":           {write("cluster-ca.crt", "junk"), testTime(), "no PEM certificate"},
		"junk key":                   {write("cluster-ca.key", "junk"), testTime(), "no PEM private key"},
		"key of another CA":          {swap("front-proxy-ca.key", "cluster-ca.key"), testTime(), "do not belong together"},
		"key missing":                {remove("cluster-ca.key"), testTime(), "key"},
		"start cut short":            {remove("cluster-ca.crt"), testTime(), ""},
		"leaf missing":               {remove("serving.pem"), testTime(), ""},
		"junk leaf":                  {write("serving.pem", "junk"), testTime(), "no PEM certificate"},
		"expired CA":                 {func(*testing.T, string) {}, testTime().AddDate(11, 0, 0), "expired on"},
		"clock before the CA's time": {func(*testing.T, string) {}, testTime().AddDate(-1, 0, 0), "is the clock right?"},
		"token key without a time":   {write("tokens/x.key", "junk"), testTime(), "not a time"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			mustOpen(t, dir, testTime())
			c.harm(t, dir)
			_, err := open(t, dir, c.now)
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n")):
				t.Errorf("error %v, want one line with %q", err, c.want)
			}
		})
	}
}

func TestErrorsHoldNoSecrets(t *testing.T) {
	dir := t.TempDir()
	mustOpen(t, dir, testTime())
	path := filepath.Join(dir, "cluster-ca.key")
	secret := pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: []byte("very secret bytes")})
	if err := os.WriteFile(path, secret, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, dir, testTime()); err == nil || strings.Contains(err.Error(), "very secret") {
		t.Errorf("error %v", err)
	}
}
