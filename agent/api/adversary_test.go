package api_test

import (
	"bufio"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/podvine/podvine/agent/api/apitest"
	"github.com/podvine/podvine/agent/api/apitest/kubectl"
)

// testForgedTokens: of a good token nothing may be changed, and nobody is let in by a token that somebody else has signed.
func testForgedTokens(t *testing.T, c *apitest.Cluster, k *kubectl.Kubectl) {
	ns := namespace(t, k, "forged")
	k.Run(t, "", "create", ns, "serviceaccount", "robot")
	good := strings.TrimSpace(k.Run(t, "", "create", ns, "token", "robot"))
	parts := strings.Split(good, ".")
	code := base64.RawURLEncoding
	payload, err := code.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	head := func(text string) string { return code.EncodeToString([]byte(text)) }
	greater := code.EncodeToString([]byte(strings.ReplaceAll(string(payload), `:robot"`, `:admin"`)))
	longer := code.EncodeToString([]byte(strings.Replace(string(payload), `"exp":1`, `"exp":9`, 1)))
	keys := k.Run(t, "", "get", "--raw", "/openid/v1/jwks")
	byPublic := hmac.New(sha256.New, []byte(keys)) // what everybody knows is no key
	symmetric := head(`{"alg":"HS256","typ":"JWT"}`) + "." + parts[1]
	byPublic.Write([]byte(symmetric))
	anonymous := rest.AnonymousClientConfig(c.Config)
	transport, err := rest.TransportFor(anonymous)
	if err != nil {
		t.Fatal(err)
	}
	r := &rawClient{c.Config.Host, transport}
	const reviews = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
	who := func(token string) answer {
		return r.send(t, http.MethodPost, reviews, strings.NewReader(`{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}`),
			"Authorization", token, "Content-Type", "application/json")
	}
	if a := who("Bearer " + good); a.code != http.StatusCreated || !strings.Contains(string(a.body), "system:serviceaccount:forged:robot") {
		t.Fatalf("the good token: %d %s", a.code, a.body)
	}
	for name, token := range map[string]string{
		"another account": parts[0] + "." + greater + "." + parts[2], "a longer life": parts[0] + "." + longer + "." + parts[2],
		"no algorithm": head(`{"alg":"none"}`) + "." + parts[1] + ".", "no signature": parts[0] + "." + parts[1] + ".", "two parts": parts[0] + "." + parts[1],
		"signed by the public key":     symmetric + "." + code.EncodeToString(byPublic.Sum(nil)),
		"a key of the sender's":        head(`{"alg":"RS256","jwk":{"kty":"RSA","n":"AQAB","e":"AQAB"}}`) + "." + parts[1] + "." + parts[2],
		"a key from an address":        head(`{"alg":"RS256","jku":"https://127.0.0.1/keys","kid":"x"}`) + "." + parts[1] + "." + parts[2],
		"a path for a key":             head(`{"alg":"RS256","kid":"../../../../dev/null"}`) + "." + parts[1] + "." + parts[2],
		"another signature":            parts[0] + "." + parts[1] + "." + strings.Repeat("A", len(parts[2])),
		"no JSON":                      "YQ.YQ.YQ",
		"a token as long as it may be": strings.Repeat("a", 100_000),
	} {
		if a := who("Bearer " + token); a.code != http.StatusUnauthorized || strings.Contains(string(a.body), "forged") {
			t.Errorf("%s: %d %.300s", name, a.code, a.body)
		}
	}
	// What is no bearer's token makes nobody of the client.
	for _, header := range []string{"Basic YWRtaW46YWRtaW4=", "bearer", "Negotiate " + good, good} {
		if a := who(header); a.code != http.StatusCreated && a.code < 400 || strings.Contains(string(a.body), "robot") || strings.Contains(string(a.body), "masters") {
			t.Errorf("%.20s: %d %.300s", header, a.code, a.body)
		}
	}
}

// testOddRequests writes bytes that no client would: each is refused or ended soon, and the server goes on.
func testOddRequests(t *testing.T, c *apitest.Cluster, _ *kubectl.Kubectl) {
	settings, err := rest.TLSConfigFor(c.Config)
	if err != nil {
		t.Fatal(err)
	}
	settings.NextProtos = []string{"http/1.1"}
	host, err := url.Parse(c.Config.Host)
	if err != nil {
		t.Fatal(err)
	}
	// say sends the bytes and returns the codes of the answers, until the server ends the connection or says no more.
	say := func(text string) []int {
		conn, err := tls.Dial("tcp", host.Host, settings)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = io.WriteString(conn, text) }() // the server may end it before all is said
		var codes []int
		for reader := bufio.NewReader(conn); ; {
			response, err := http.ReadResponse(reader, nil)
			if err != nil {
				return codes
			}
			codes = append(codes, response.StatusCode)
			if _, err := io.Copy(io.Discard, response.Body); err != nil || response.Close {
				return codes
			}
		}
	}
	const end = "\r\nHost: x\r\nConnection: close\r\n\r\n"
	object := `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"smuggled"}}`
	smuggled := fmt.Sprintf("POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(object), object)
	for name, c := range map[string]struct {
		text string
		want []int
	}{
		"large headers":       {"GET /readyz HTTP/1.1\r\nX-Large: " + strings.Repeat("a", 2<<20) + end, []int{431}},
		"many headers":        {"GET /readyz HTTP/1.1\r\n" + strings.Repeat("X-Many: a\r\n", 200_000) + end[2:], []int{431}},
		"a long path":         {"GET /api/v1/namespaces/" + strings.Repeat("a/", 200_000) + " HTTP/1.1" + end, []int{404}},
		"a method of its own": {"STEAL /api/v1/namespaces HTTP/1.1" + end, []int{405}},
		"a tunnel":            {"CONNECT 127.0.0.1:22 HTTP/1.1" + end, []int{404}},
		"another server":      {"GET http://169.254.169.254/latest HTTP/1.1" + end, []int{404}},
		"two lengths":         {"POST /api/v1/namespaces HTTP/1.1\r\nContent-Length: 4\r\nContent-Length: 0" + end + smuggled, []int{400}},
		"a length below zero": {"POST /api/v1/namespaces HTTP/1.1\r\nContent-Length: -1" + end + smuggled, []int{400}},
		"unknown encoding":    {"POST /api/v1/namespaces HTTP/1.1\r\nTransfer-Encoding: gzip, chunked" + end + smuggled, []int{501}},
		"bad chunks":          {"POST /api/v1/namespaces HTTP/1.1\r\nTransfer-Encoding: chunked" + end + "zz\r\n" + smuggled, []int{500}}, // as Kubernetes says of a body that it cannot read,
		"a header in a value": {"GET /api/v1/namespaces\r\n HTTP/1.1" + end, []int{400}},
		"no HTTP":             {"\x16\x03\x01\x00\xff\r\n\r\n", []int{400}},
		"two hosts":           {"GET /readyz HTTP/1.1\r\nHost: y" + end, []int{400}},
		"length and chunks":   {"POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked" + end + "0\r\n\r\n" + smuggled, []int{400}},
	} {
		began := time.Now()
		if got := say(c.text); fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%s: answered by %v, want %v", name, got, c.want)
		}
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("%s: took %s", name, took)
		}
	}
	r := newRawClient(t, c)
	if a := r.send(t, http.MethodGet, "/api/v1/namespaces/default/configmaps/smuggled", nil); a.code != http.StatusNotFound {
		t.Errorf("a request within another was obeyed: %d %s", a.code, a.body)
	}
	for _, headers := range [][]string{{"Impersonate-Group", "system:masters"}, {"Impersonate-Uid", "1"}, {"Impersonate-Extra-Scopes", "all"}} {
		a := r.send(t, http.MethodGet, "/api/v1/namespaces", nil, headers...)
		var status struct{ Message string }
		if err := json.Unmarshal(a.body, &status); err != nil || a.code < 400 || !strings.Contains(status.Message, "without impersonating a user") {
			t.Errorf("%v: %d %s %v", headers, a.code, a.body, err)
		}
	}
}
