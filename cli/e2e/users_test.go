package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestLocalUsers gives a member of the group podvine a kubeconfig by itself, and tells another user what is missing.
func TestLocalUsers(t *testing.T) {
	script := `set -e
groupadd --force podvine
useradd --create-home --groups podvine member
useradd --create-home stranger
su member -c 'podvine kubectl get nodes'
su member -c 'podvine kubectl auth whoami'
stat --format '%a' /home/member/.cache/podvine/kubeconfig /etc/podvine/admin.kubeconfig
su stranger -c 'podvine kubectl get nodes' 2>&1 || true
`
	out, err := command("lab", "exec", "--name", labName, "h1", "--", "bash", "-c", script).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	wants(t, string(out), "h1", "Ready", "local:member", "600\n600\n", "is not in group podvine; ask root for: usermod -aG podvine USER")
}

// TestResetRefusesWhileTheAgentRuns keeps an operator from pulling the data from under an agent.
func TestResetRefusesWhileTheAgentRuns(t *testing.T) {
	out, err := command("lab", "exec", "--name", labName, "h1", "--", "podvine", "agent", "reset", "--yes").CombinedOutput()
	if err == nil {
		t.Errorf("reset went on: %s", out)
	}
	wants(t, string(out), "the agent runs: stop it first")
}

// TestLesserUser joins the kubeconfig of a lesser user with the administrator's, as people do, and becomes the one and the other.
func TestLesserUser(t *testing.T) {
	ns := newNamespace(t)
	made, err := command("kubeconfig", "--user", "jane", "--group", "developers", "--group", "testers", "--ttl", "1h").Output()
	if err != nil {
		t.Fatal(err)
	}
	admin, err := os.ReadFile(kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	mine, jane := filepath.Join(folder, "mine"), filepath.Join(folder, "jane")
	for path, content := range map[string][]byte{mine: admin, jane: made} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ask := func(args ...string) (string, error) {
		c := command(append([]string{"kubectl", "--namespace", ns}, args...)...)
		c.Env = append(c.Env, "KUBECONFIG="+mine+":"+jane)
		out, err := c.CombinedOutput()
		return string(out), err
	}
	use := func(name string) {
		if out, err := ask("config", "use-context", name); err != nil || out != "Switched to context \""+name+"\".\n" {
			t.Fatalf("%v: %s", err, out)
		}
	}
	use("jane@podvine")
	out, err := ask("auth", "whoami")
	if err != nil {
		t.Error(err)
	}
	wants(t, out, "Username                                            jane\n", "[testers developers system:authenticated]", "X509SHA256=")
	if out, err = ask("get", "pods"); err == nil {
		t.Errorf("jane may list pods: %s", out)
	}
	wants(t, out, `Error from server (Forbidden): pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the namespace "`+ns+`"`)
	if out, err = ask("auth", "can-i", "get", "pods"); err == nil || out != "no\n" {
		t.Errorf("may she? %v: %s", err, out)
	}
	use("podvine")
	if out, err = ask("create", "rolebinding", "view", "--clusterrole=view", "--group=testers"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	use("jane@podvine")
	if out, err = ask("auth", "can-i", "--list"); err != nil {
		t.Error(err)
	}
	wants(t, out, "Resources                                       Non-Resource URLs   Resource Names   Verbs\n",
		"selfsubjectrulesreviews.authorization.k8s.io    []                  []               [create]\n",
		"pods                                            []                  []               [get list watch]\n",
		"                                                [/version]          []               [get]\n")
	if strings.Contains(out, "secrets") || strings.Contains(out, "*.*") {
		t.Errorf("more than view: %s", out)
	}
	if out, err = ask("delete", "pod", "one"); err == nil {
		t.Errorf("jane may delete a pod: %s", out)
	}
	wants(t, out, `User "jane" cannot delete`)
	use("podvine")
}

// TestCertificatesAreApprovedAndDenied: who asks gets a certificate that the API takes, or none.
func TestCertificatesAreApprovedAndDenied(t *testing.T) {
	folder := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "joe", Organization: []string{"developers"}}}, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	request := base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
	for _, name := range []string{"e2e-joe", "e2e-refused"} {
		apply(t, "default", "{apiVersion: certificates.k8s.io/v1, kind: CertificateSigningRequest, metadata: {name: "+name+"}, spec: {request: "+request+
			", signerName: kubernetes.io/kube-apiserver-client, expirationSeconds: 3600, usages: [client auth]}}")
	}
	t.Cleanup(func() {
		if out, err := command("kubectl", "delete", "csr", "e2e-joe", "e2e-refused").CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	wants(t, kubectl(t, "default", "get", "csr", "e2e-joe"), "SIGNERNAME", "REQUESTEDDURATION", "kubernetes.io/kube-apiserver-client   podvine-admin   60m                 Pending")
	wants(t, kubectl(t, "default", "certificate", "approve", "e2e-joe"), "certificatesigningrequest.certificates.k8s.io/e2e-joe approved")
	wants(t, kubectl(t, "default", "certificate", "deny", "e2e-refused"), "certificatesigningrequest.certificates.k8s.io/e2e-refused denied")
	wants(t, kubectl(t, "default", "get", "csr", "e2e-refused"), "Denied")
	for name, is := range map[string]string{"e2e-joe": "Approved", "e2e-refused": "Denied"} {
		verb := map[string]string{"Approved": "deny", "Denied": "approve"}[is]
		out, err := tryKubectl(t, "default", "", "certificate", verb, name)
		if err == nil {
			t.Errorf("what is %s was changed: %s", is, out)
		}
		wants(t, out, `certificate signing request "`+name+`" is already `+is)
	}
	var signed []byte
	eventually(t, 10*time.Second, "the certificate", func() (string, bool) {
		text := kubectl(t, "default", "get", "csr", "e2e-joe", "-o", "jsonpath={.status.certificate}")
		signed, err = base64.StdEncoding.DecodeString(text)
		return text, err == nil && len(signed) > 0
	})
	wants(t, kubectl(t, "default", "get", "csr", "e2e-joe"), "Approved,Issued")
	certificate, private := filepath.Join(folder, "certificate"), filepath.Join(folder, "key")
	for path, content := range map[string][]byte{certificate: signed, private: pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	who := kubectl(t, "default", "--user=", "--client-certificate="+certificate, "--client-key="+private, "auth", "whoami", "-o", "jsonpath={.status.userInfo.username} {.status.userInfo.groups}")
	if who != `joe ["developers","system:authenticated"]` {
		t.Errorf("the certificate is that of %s", who)
	}
}

// TestTokensAreBound: a token has the life and the audiences that are asked for, and ends with what it is bound to.
func TestTokensAreBound(t *testing.T) {
	ns := newNamespace(t)
	kubectl(t, ns, "create", "serviceaccount", "robot")
	kubectl(t, ns, "create", "secret", "generic", "bound")
	asToken := func(token string) (string, error) {
		return tryKubectl(t, ns, "", "--kubeconfig=/dev/null", "--server="+restConfig.Host, "--insecure-skip-tls-verify", "--token="+strings.TrimSpace(token), "auth", "whoami")
	}
	create := func(more ...string) string {
		return kubectl(t, ns, append([]string{"create", "token", "robot"}, more...)...)
	}
	bound := create("--bound-object-kind=Secret", "--bound-object-name=bound", "--duration=20m")
	out, err := asToken(bound)
	if err != nil {
		t.Error(err)
	}
	wants(t, out, "system:serviceaccount:"+ns+":robot", "[system:serviceaccounts system:serviceaccounts:"+ns+" system:authenticated]", "JTI=")
	out, err = asToken(create("--bound-object-kind=Node", "--bound-object-name=h1"))
	if err != nil {
		t.Error(err)
	}
	wants(t, out, "authentication.kubernetes.io/node-name", "[h1]", "authentication.kubernetes.io/node-uid")
	foreign := create("--audience=vault", "--duration=2h", "-o", "yaml")
	wants(t, foreign, "kind: TokenRequest", "- vault", "expirationSeconds: 7200", "expirationTimestamp:")
	if out, err = asToken(create("--audience=vault")); err == nil {
		t.Errorf("a token for another was taken: %s", out)
	}
	wants(t, out, "You must be logged in to the server")
	for _, c := range []struct{ flag, answer string }{
		{"--duration=1m", "spec.expirationSeconds: Invalid value: 60: may not specify a duration less than 10 minutes"},
		{"--bound-object-kind=Pod --bound-object-name=none", `pods "none" not found`},
		{"--bound-object-kind=ConfigMap --bound-object-name=bound", "supported --bound-object-kind values are"},
	} {
		out, err := tryKubectl(t, ns, "", append([]string{"create", "token", "robot"}, strings.Fields(c.flag)...)...)
		if err == nil {
			t.Errorf("%s: %s", c.flag, out)
		}
		wants(t, out, c.answer)
	}
	kubectl(t, ns, "delete", "secret", "bound")
	eventually(t, 15*time.Second, "the token to end with the secret", func() (string, bool) { // who a token is may be remembered for 10 s
		out, err := asToken(bound)
		return out, err != nil && strings.Contains(out, "You must be logged in to the server")
	})
}
