package external

import (
	"bytes"
	"context"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
)

const (
	ownIssuer = "https://kubernetes.default.svc.cluster.local"
	patience  = 30 * time.Second
	testPoll  = 10 * time.Millisecond
)

// journal is a log that tests read.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) count(what string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Count(j.text.String(), what)
}

func write(t *testing.T, path, content string) string {
	t.Helper()
	// As an administrator's tools do it: a reader sees the old or the new content.
	if err := os.WriteFile(path+".new", []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	return path
}

func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	err := wait.PollUntilContextTimeout(t.Context(), testPoll, patience, true, func(context.Context) (bool, error) { return condition(), nil })
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// start puts files into effect until the test ends.
func start(t *testing.T, files Files, usual Usual) (*External, *Authorizer, *journal) {
	t.Helper()
	log := &journal{}
	files.TokenWebhookVersion, files.TokenWebhookCache = "v1", time.Minute
	e, err := New(Config{Files: files, Issuer: ownIssuer, Audiences: authenticator.Audiences{ownIssuer}, ServerID: "n1", Poll: testPoll,
		Log: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	decides := e.Authorization(usual)
	if err := e.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return e, decides, log
}

func ask(t *testing.T, e *External, token string) (user.Info, error) {
	t.Helper()
	for _, a := range e.Tokens() {
		response, ok, err := a.AuthenticateToken(t.Context(), token)
		if err != nil {
			return nil, err
		}
		if ok {
			return response.User, nil
		}
	}
	return nil, nil
}

// kubeconfig leads to the server.
func kubeconfig(t *testing.T, server *httptest.Server) string {
	t.Helper()
	ca := write(t, filepath.Join(t.TempDir(), "ca.crt"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
	return write(t, filepath.Join(t.TempDir(), "kubeconfig"), fmt.Sprintf(`
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: %q, certificate-authority: %q}}]
users: [{name: u, user: {token: t}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
current-context: c
`, server.URL, ca))
}

func TestStaticTokens(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "tokens"), `s3cret,alice,1,"dev,ops"`)
	e, _, log := start(t, Files{Tokens: path}, Usual{})
	who, err := ask(t, e, "s3cret")
	if err != nil || who == nil || who.GetName() != "alice" || !slices.Equal(who.GetGroups(), []string{"dev", "ops"}) {
		t.Errorf("%v, %v", who, err)
	}
	if who, err := ask(t, e, "other"); who != nil || err != nil {
		t.Errorf("%v, %v", who, err)
	}
	write(t, path, "n3w,bob,2")
	until(t, "a new token counts", func() bool { who, err := ask(t, e, "n3w"); return err == nil && who != nil })
	if who, _ := ask(t, e, "s3cret"); who != nil {
		t.Errorf("a token that is gone is still %s", who.GetName())
	}
	write(t, path, "b4d")
	until(t, "a bad file is named", func() bool { return log.count("stays in effect") == 1 })
	if who, _ := ask(t, e, "n3w"); who == nil {
		t.Error("a bad file took the tokens away")
	}
	if log.count("n3w")+log.count("b4d")+log.count("s3cret") > 0 {
		t.Error("the log holds a token")
	}
}

// TestBadFiles: each is refused before the server starts, in one line that names the file and what is wrong with it.
func TestBadFiles(t *testing.T) {
	const authentication, authorization = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n", "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\n"
	hook := func(connection string) string {
		return authorization + "authorizers: [{type: Webhook, name: w, webhook: {timeout: 3s, subjectAccessReviewVersion: v1, failurePolicy: Deny, connectionInfo: " + connection + "}}]"
	}
	for name, c := range map[string]struct {
		content string
		files   func(path string) Files
		want    string
	}{
		"unknown field":        {authentication + "jwtt: []", func(p string) Files { return Files{Authentication: p} }, `unknown field "jwtt"`},
		"another kind":         {authorization + "authorizers: []", func(p string) Files { return Files{Authentication: p} }, "not an AuthenticationConfiguration"},
		"the cluster's issuer": {authentication + "jwt: [{issuer: {url: " + ownIssuer + ", audiences: [a]}, claimMappings: {username: {claim: sub, prefix: ''}}}]", func(p string) Files { return Files{Authentication: p} }, "jwt[0].issuer.url"},
		"a bad expression":     {authentication + "jwt: [{issuer: {url: https://i.example.com, audiences: [a]}, claimMappings: {username: {expression: 'claims.'}}}]", func(p string) Files { return Files{Authentication: p} }, "jwt[0].claimMappings.username.expression"},
		"no authorizers":       {authorization, func(p string) Files { return Files{Authorization: p} }, "at least one authorization mode must be defined"},
		"an empty file":        {"", func(p string) Files { return Files{Authorization: p} }, "it is empty"},
		"an unknown type":      {authorization + "authorizers: [{type: ABAC, name: a}]", func(p string) Files { return Files{Authorization: p} }, `Unsupported value: "ABAC"`},
		"itself":               {hook("{type: InClusterConfig}"), func(p string) Files { return Files{Authorization: p} }, "use KubeConfigFile"},
		"a missing kubeconfig": {hook("{type: KubeConfigFile, kubeConfigFile: /nowhere}"), func(p string) Files { return Files{Authorization: p} }, "/nowhere"},
		"a token alone":        {"t0ken", func(p string) Files { return Files{Tokens: p} }, "token file"},
		"no kubeconfig":        {"apiVersion: v1\nkind: Config", func(p string) Files { return Files{TokenWebhook: p, TokenWebhookVersion: "v1"} }, "invalid configuration"},
	} {
		path := write(t, filepath.Join(t.TempDir(), "file"), c.content)
		_, err := New(Config{Files: c.files(path), Issuer: ownIssuer, Log: slog.New(slog.DiscardHandler)})
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
	if _, err := New(Config{Files: Files{Tokens: "/nowhere"}, Log: slog.New(slog.DiscardHandler)}); err == nil || !strings.Contains(err.Error(), "/nowhere") {
		t.Errorf("a file that is not there: %v", err)
	}
}

// usualOf allows get by RBAC, and list by the Node authorizer.
func usualOf() Usual {
	allow := func(verb string) authorizer.Authorizer {
		return authorizer.AuthorizerFunc(func(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
			if a.GetVerb() == verb {
				return authorizer.DecisionAllow, "", nil
			}
			return authorizer.DecisionNoOpinion, "", nil
		})
	}
	return Usual{Masters: authorizerfactory.NewPrivilegedGroups("system:masters"), RBAC: allow("get"), Node: allow("list"), Rules: authorizerfactory.NewAlwaysDenyAuthorizer()}
}
