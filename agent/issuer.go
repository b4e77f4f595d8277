package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	authuser "k8s.io/apiserver/pkg/authentication/user"
	genericrequest "k8s.io/apiserver/pkg/endpoints/request"

	"github.com/podvine/podvine/agent/pki"
	"github.com/podvine/podvine/agent/pki/localissuer"
)

const (
	// IssuerSocket is where the agent gives members of the group podvine a kubeconfig.
	IssuerSocket = runDir + "/issuer.sock"
	// KubeconfigPath is where an administrator gets a kubeconfig for a lesser user.
	KubeconfigPath = "/podvine/kubeconfig"
	// maxKubeconfigRequestBytes bounds what is posted there.
	maxKubeconfigRequestBytes = 64 << 10
)

// kubeconfigResource names the path in errors.
var kubeconfigResource = schema.GroupResource{Resource: "kubeconfig"}

// KubeconfigRequest asks for a kubeconfig of a user of that name, with a certificate that lives so long.
type KubeconfigRequest struct {
	User       string   `json:"user"`
	Groups     []string `json:"groups,omitempty"`
	TTLSeconds int64    `json:"ttlSeconds"`
}

// runIssuer serves the local socket.
func (n *node) runIssuer(ctx context.Context) error {
	if err := os.MkdirAll(filepath.Dir(IssuerSocket), 0o755); err != nil {
		return fmt.Errorf("make the run folder: %w", err)
	}
	server, err := localissuer.Listen(IssuerSocket, localissuer.Config{
		Issuer: n.keys, APIServer: n.apiURL(), Log: n.log.With("part", "issuer"),
	})
	if err != nil {
		return err
	}
	return server.Serve(ctx)
}

func (n *node) apiURL() string {
	return "https://" + netip.AddrPortFrom(n.address, n.config.APIPort).String()
}

// issueKubeconfig answers [KubeconfigPath]. The chain has authorized the path; that alone must not be a way to become
// somebody greater, so that only administrators may ask, as only they may sign.
func (n *node) issueKubeconfig(w http.ResponseWriter, r *http.Request) {
	content, err := n.kubeconfigFor(r)
	var status apierrors.APIStatus
	switch {
	case err == nil:
		w.Header().Set("Content-Type", "application/yaml")
		if _, err := w.Write(content); err != nil {
			panic(http.ErrAbortHandler) // the client has gone
		}
	case errors.As(err, &status):
		http.Error(w, status.Status().Message, int(status.Status().Code))
	default:
		http.Error(w, err.Error(), http.StatusBadRequest)
	}
}

func (n *node) kubeconfigFor(r *http.Request) ([]byte, error) {
	if r.Method != http.MethodPost {
		return nil, apierrors.NewMethodNotSupported(kubeconfigResource, r.Method)
	}
	user, ok := genericrequest.UserFrom(r.Context())
	if !ok || !isAdministrator(user) {
		return nil, apierrors.NewForbidden(kubeconfigResource, "", errors.New("only members of system:masters may ask for the kubeconfig of another user"))
	}
	var asked KubeconfigRequest
	if err := json.NewDecoder(http.MaxBytesReader(nil, r.Body, maxKubeconfigRequestBytes)).Decode(&asked); err != nil {
		return nil, fmt.Errorf("read the request: %w", err)
	}
	issued, err := n.keys.IssueClient(pki.Identity{User: asked.User, Groups: asked.Groups}, time.Duration(asked.TTLSeconds)*time.Second, time.Now())
	if err != nil {
		return nil, err
	}
	return n.keys.Kubeconfig(n.apiURL(), asked.User, issued)
}

func isAdministrator(user authuser.Info) bool {
	for _, group := range user.GetGroups() {
		if group == authuser.SystemPrivilegedGroup {
			return true
		}
	}
	return false
}
