package standard

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"maps"
	"math/big"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/podvine/podvine/agent/pki"
)

// authority makes a certificate in PEM that ends then.
func authority(t *testing.T, name string, ends time.Time) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: ends.Add(-time.Hour), NotAfter: ends, IsCA: true}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}))
}

func TestMergeTrust(t *testing.T) {
	now := time.Now()
	mine, theirs, expired := authority(t, "mine", now.Add(time.Hour)), authority(t, "theirs", now.Add(time.Hour)), authority(t, "expired", now.Add(-time.Minute))
	for name, c := range map[string]struct{ have, own, want map[string]string }{
		"nothing there":        {nil, map[string]string{clientCAKey: mine, "h": `["a"]`}, map[string]string{clientCAKey: mine, "h": `["a"]`}},
		"the same":             {map[string]string{clientCAKey: mine, "h": `[ "a" ]`}, map[string]string{clientCAKey: mine, "h": `["a"]`}, map[string]string{clientCAKey: mine, "h": `[ "a" ]`}},
		"another's is kept":    {map[string]string{clientCAKey: theirs, "h": `["b"]`}, map[string]string{clientCAKey: mine, "h": `["a"]`}, map[string]string{clientCAKey: theirs + mine, "h": `["b","a"]`}},
		"expired is dropped":   {map[string]string{clientCAKey: expired + mine}, map[string]string{clientCAKey: mine}, map[string]string{clientCAKey: mine}},
		"rubbish is dropped":   {map[string]string{clientCAKey: "x", "h": "["}, map[string]string{clientCAKey: mine, "h": `["a"]`}, map[string]string{clientCAKey: mine, "h": `["a"]`}},
		"any name is any name": {map[string]string{allowedNamesKey: `["b"]`}, map[string]string{allowedNamesKey: `[]`}, map[string]string{allowedNamesKey: `[]`}},
		"any name stays":       {map[string]string{allowedNamesKey: `[]`}, map[string]string{allowedNamesKey: `["a"]`}, map[string]string{allowedNamesKey: `[]`}},
		"names are joined":     {map[string]string{allowedNamesKey: `["b"]`}, map[string]string{allowedNamesKey: `["a"]`}, map[string]string{allowedNamesKey: `["b","a"]`}},
		"other keys stay":      {map[string]string{"note": "n"}, map[string]string{"h": `["a"]`}, map[string]string{"note": "n", "h": `["a"]`}},
	} {
		got := mergeTrust(c.have, c.own, nil, now)
		if !maps.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
		if again := mergeTrust(got, c.own, nil, now); !maps.Equal(again, got) {
			t.Errorf("%s: a second merge changes %q to %q", name, got, again)
		}
	}
}

// settle lets an informer, which pauses between its tries, come to rest. Time is virtual.
func settle() {
	<-time.After(time.Minute)
	synctest.Wait()
}

func TestTrustComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset()
		own := map[string]string{clientCAKey: authority(t, "mine", time.Now().Add(time.Hour))}
		var retired []string
		ensure := func(ctx context.Context) error { return ensureTrust(ctx, client, own, retired, time.Now()) }
		if err := ensure(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		changed := make(trigger, trustQueue)
		if err := followTrust(ctx, client, changed); err != nil {
			t.Fatal(err)
		}
		go func() { keepTrust(ctx, changed, ensure); close(done) }()
		settle()
		objects := client.CoreV1().ConfigMaps(metav1.NamespaceSystem)
		if err := objects.Delete(ctx, trustName, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		settle()
		got, err := objects.Get(ctx, trustName, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			t.Fatal("it was deleted and did not come back")
		}
		if err != nil || !maps.Equal(got.Data, own) {
			t.Fatalf("%v %v", got, err)
		}
		got.Data = map[string]string{clientCAKey: strings.ToLower(got.Data[clientCAKey])}
		if _, err := objects.Update(ctx, got, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		settle()
		if got, err = objects.Get(ctx, trustName, metav1.GetOptions{}); err != nil || !maps.Equal(got.Data, own) {
			t.Errorf("a change was not undone: %v %v", got, err)
		}
		block, _ := pem.Decode([]byte(own[clientCAKey]))
		before, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		own, retired = map[string]string{clientCAKey: authority(t, "next", time.Now().Add(time.Hour))}, []string{pki.CertificateID(before)}
		changed.Enqueue()
		settle()
		if got, err = objects.Get(ctx, trustName, metav1.GetOptions{}); err != nil || !maps.Equal(got.Data, own) {
			t.Errorf("after a rotation it is %v, %v", got, err)
		}
		cancel()
		<-done
	})
}
