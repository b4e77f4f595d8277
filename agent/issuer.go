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
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
func (n *node) issueKubeconfig(w http.ResponseWriter, r *http.Request) error {
	var asked KubeconfigRequest
	if err := json.NewDecoder(http.MaxBytesReader(nil, r.Body, maxKubeconfigRequestBytes)).Decode(&asked); err != nil {
		return apierrors.NewBadRequest("read the request: " + err.Error())
	}
	issued, err := n.keys.IssueClient(pki.Identity{User: asked.User, Groups: asked.Groups}, time.Duration(asked.TTLSeconds)*time.Second, time.Now())
	if err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	content, err := n.keys.Kubeconfig(n.apiURL(), asked.User, issued)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/yaml")
	if _, err := w.Write(content); err != nil {
		panic(http.ErrAbortHandler) // the client has gone
	}
	return nil
}

// administratorOnly lets administrators through, and answers others as the API does.
func administratorOnly(what string, serve func(http.ResponseWriter, *http.Request) error, methods ...string) http.HandlerFunc {
	resource := schema.GroupResource{Resource: what}
	return func(w http.ResponseWriter, r *http.Request) {
		user, known := genericrequest.UserFrom(r.Context())
		var err error
		switch {
		case !slices.Contains(methods, r.Method):
			err = apierrors.NewMethodNotSupported(resource, r.Method)
		case !known || !isAdministrator(user):
			err = apierrors.NewForbidden(resource, "", errors.New("only members of system:masters may ask for it"))
		default:
			err = serve(w, r)
		}
		if err != nil {
			writeFailure(w, err)
		}
	}
}

// writeFailure answers with a Status, which clients of the API can read.
func writeFailure(w http.ResponseWriter, failure error) {
	status := metav1.Status{Status: metav1.StatusFailure, Message: failure.Error(), Reason: metav1.StatusReasonConflict, Code: http.StatusConflict}
	var known apierrors.APIStatus
	if errors.As(failure, &known) {
		status = known.Status()
	}
	status.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(int(status.Code))
	if err := json.NewEncoder(w).Encode(status); err != nil {
		panic(http.ErrAbortHandler) // the client has gone
	}
}

func isAdministrator(user authuser.Info) bool {
	for _, group := range user.GetGroups() {
		if group == authuser.SystemPrivilegedGroup {
			return true
		}
	}
	return false
}
