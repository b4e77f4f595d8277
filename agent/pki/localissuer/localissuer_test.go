package localissuer

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/podvine/podvine/agent/pki"
)

const (
	helperSocket = "PODVINE_TEST_SOCKET"
	nobody       = 65534
)

// TestMain lets a copy of the test binary, run as another user, be the client.
func TestMain(m *testing.M) {
	if socket := os.Getenv(helperSocket); socket != "" {
		content, err := Request(context.Background(), socket, time.Hour)
		if err != nil {
			fmt.Fprint(os.Stderr, err)
			os.Exit(1)
		}
		if _, err := os.Stdout.Write(content); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func serve(t *testing.T, allowed func(uid, gid uint32) (bool, error)) (socket string, keys *pki.PKI) {
	t.Helper()
	dir, err := os.MkdirTemp("", "pv-issuer-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	keys, err = pki.Open(pki.Config{Dir: filepath.Join(dir, "pki"), NodeName: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(dir, "issuer.sock")
	server, err := Listen(socket, Config{Issuer: keys, APIServer: "https://127.0.0.1:6443", Allowed: allowed, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return socket, keys
}

func certificate(t *testing.T, kubeconfig []byte) *x509.Certificate {
	t.Helper()
	config, err := clientcmd.RESTConfigFromKubeConfig(kubeconfig)
	if err != nil {
		t.Fatalf("%v: %s", err, kubeconfig)
	}
	block, _ := pem.Decode(config.CertData)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// asNobody runs the client as a user that is not root.
func asNobody(t *testing.T, socket string) (string, error) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(filepath.Dir(socket), "client") // the test binary's own folder may be closed to others
	if err := os.WriteFile(copied, content, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(copied)
	cmd.Dir = "/"
	cmd.Env = []string{helperSocket + "=" + socket}
	cmd.SysProcAttr = as(nobody)
	out, err := cmd.Output()
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		return "", errors.New(string(failed.Stderr))
	}
	return string(out), err
}

func TestUserOutsideOfTheGroupIsRefused(t *testing.T) {
	socket, _ := serve(t, nil)
	if _, err := asNobody(t, socket); err == nil || !strings.Contains(err.Error(), "is not in group podvine") {
		t.Fatalf("error %v, want a refusal that names the group", err)
	}
}

func TestMemberGetsAShortLivedKubeconfig(t *testing.T) {
	socket, keys := serve(t, func(uid, _ uint32) (bool, error) { return uid == nobody, nil })
	out, err := asNobody(t, socket)
	if err != nil {
		t.Fatal(err)
	}
	cert := certificate(t, []byte(out))
	if cert.Subject.CommonName != "local:nobody" || len(cert.Subject.Organization) != 1 || cert.Subject.Organization[0] != pki.MastersGroup {
		t.Errorf("certificate of %v", cert.Subject)
	}
	if left := time.Until(cert.NotAfter); left > time.Hour || left < 50*time.Minute {
		t.Errorf("valid for %s, asked for an hour", left)
	}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: keys.Cluster().Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Error(err)
	}
}

func TestRootMayAsk(t *testing.T) {
	socket, _ := serve(t, nil)
	if _, err := Request(context.Background(), socket, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := Request(context.Background(), socket, 48*time.Hour); err == nil || !strings.Contains(err.Error(), "not between") {
		t.Fatalf("error %v, want a refusal of so long a life", err)
	}
}

func TestJunkIsRefused(t *testing.T) {
	socket, _ := serve(t, nil)
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("not JSON\n")); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 1024)
	n, err := conn.Read(answer)
	if err != nil || !strings.Contains(string(answer[:n]), "decode request") {
		t.Fatalf("answer %q (%v)", answer[:n], err)
	}
}

func TestNoAgent(t *testing.T) {
	if _, err := Request(context.Background(), filepath.Join(t.TempDir(), "absent"), 0); err == nil || !strings.Contains(err.Error(), "reach the agent") {
		t.Fatalf("error %v", err)
	}
}
