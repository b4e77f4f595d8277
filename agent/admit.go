package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	authuser "k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/kubernetes"

	"github.com/podvine/podvine/agent/join"
	"github.com/podvine/podvine/agent/pki"
	"github.com/podvine/podvine/agent/version"
	"github.com/podvine/podvine/consensus/quorum"
)

const (
	// joinTimeout bounds the work of one join.
	joinTimeout = 8 * time.Second
	// claimTries bounds how often a join is decided anew because the Node object of its name changes.
	claimTries = 5
)

// publicRoutes are what a machine without credentials may ask.
func (n *node) publicRoutes() map[string]http.Handler {
	return map[string]http.Handler{
		join.CAPath: http.HandlerFunc(n.serveCA),
		join.Path:   http.HandlerFunc(n.serveJoin),
	}
}

func (n *node) serveCA(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		http.Error(w, "only GET", http.StatusMethodNotAllowed)
		return
	}
	w.Header().Set("Content-Type", "application/x-pem-file")
	if retired := n.keys.Retired(); len(retired) > 0 {
		w.Header().Set(join.RetiredHeader, strings.Join(retired, ","))
	}
	if _, err := w.Write(n.keys.Cluster().CertPEM()); err != nil {
		panic(http.ErrAbortHandler) // the client has gone
	}
}

// serveJoin makes the machine that asks a member, or says why not.
func (n *node) serveJoin(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), joinTimeout)
	defer cancel()
	response, err := n.join(ctx, r)
	var refusal *join.Refusal
	if err != nil && !errors.As(err, &refusal) {
		refusal = &join.Refusal{Code: http.StatusServiceUnavailable, Message: err.Error()}
	}
	answer := any(response)
	code := http.StatusOK
	if refusal != nil {
		answer, code = refusal, refusal.Code
		n.log.Info("refuse a machine", "address", r.RemoteAddr, "reason", refusal.Message)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	if err := json.NewEncoder(w).Encode(answer); err != nil {
		panic(http.ErrAbortHandler) // the client has gone
	}
}

func (n *node) join(ctx context.Context, r *http.Request) (*join.Response, error) {
	if r.Method != http.MethodPost {
		return nil, &join.Refusal{Code: http.StatusMethodNotAllowed, Message: "only POST"}
	}
	var request join.Request
	if err := json.NewDecoder(http.MaxBytesReader(nil, r.Body, join.MaxRequestBytes)).Decode(&request); err != nil {
		return nil, &join.Refusal{Code: http.StatusBadRequest, Message: fmt.Sprintf("read the request: %v", err)}
	}
	client := n.client(authuser.APIServerUser, authuser.SystemPrivilegedGroup)
	view, err := n.admit(ctx, client, request)
	if err != nil {
		return nil, err
	}
	if old := view.Holder; old != nil && old.ID != "" && old.ID != request.NodeID {
		if err := n.mesh.Forget(old.ID); err != nil {
			n.log.Warn("forget the node that had the name before", "node", request.NodeName, "error", err)
		}
	}
	response, err := n.welcome(request, view.Now)
	if err == nil {
		response.RoleComing = quorum.WantsReplica(n.replica.View(ctx), n.quorumMembers(), n.live.get().Voters)
	}
	return response, err
}

// admit decides on the machine and gives it its name. It decides again when the Node object of that name has changed
// meanwhile: its node may have come back.
func (n *node) admit(ctx context.Context, client kubernetes.Interface, request join.Request) (view join.View, err error) {
	for range claimTries {
		var holder *corev1.Node
		if view, holder, err = n.joinView(ctx, client, request); err != nil {
			return view, err
		}
		if refusal := join.Decide(view, request); refusal != nil {
			return view, refusal
		}
		if err = claimName(ctx, client, request, holder); !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) {
			return view, err
		}
	}
	return view, &join.Refusal{Code: http.StatusConflict, Message: fmt.Sprintf("others change node %s all the time: %v", request.NodeName, err)}
}

// joinView reads what the decision needs, from the API and not from a cache: a token may have been made a moment ago.
// It returns the Node object that has the name, too.
func (n *node) joinView(ctx context.Context, client kubernetes.Interface, request join.Request) (join.View, *corev1.Node, error) {
	view := join.View{Version: version.Version, Now: time.Now(), Named: n.directory.name(request.NodeID), Unfit: n.keys.CheckNode(identityOf(request))}
	for id, member := range n.directory.all() {
		if id != request.NodeID && answers(member) && member.Address.Addr() == request.Address {
			view.AddressHolder = cmp.Or(n.directory.name(id), id)
		}
	}
	secret, err := client.CoreV1().Secrets(metav1.NamespaceSystem).Get(ctx, join.SecretName(request.TokenID), metav1.GetOptions{})
	switch {
	case err == nil:
		if grant, ok := join.GrantOf(secret); ok {
			view.Grant = &grant
		}
	case !apierrors.IsNotFound(err) && !apierrors.IsInvalid(err) && !apierrors.IsBadRequest(err):
		return join.View{}, nil, fmt.Errorf("look for the token: %w", err)
	}
	holder, err := client.CoreV1().Nodes().Get(ctx, request.NodeName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return view, nil, nil
	}
	if err != nil {
		return join.View{}, nil, fmt.Errorf("look for the node: %w", err)
	}
	alive, _ := n.directory.Alive(request.NodeName)
	view.Holder = &join.Holder{ID: holder.Annotations[NodeIDAnnotation], Alive: alive}
	return view, holder, nil
}

// claimName makes the Node object, or takes over that of a node that is gone, as it was when that was decided. Of two
// machines that want a name at a time, the API lets one have it.
func claimName(ctx context.Context, client kubernetes.Interface, request join.Request, holder *corev1.Node) error {
	nodes := client.CoreV1().Nodes()
	if holder == nil {
		_, err := nodes.Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{
			Name: request.NodeName, Annotations: map[string]string{NodeIDAnnotation: request.NodeID},
		}}, metav1.CreateOptions{})
		if apierrors.IsInvalid(err) {
			return &join.Refusal{Code: http.StatusUnprocessableEntity, Message: err.Error()}
		}
		return err
	}
	metav1.SetMetaDataAnnotation(&holder.ObjectMeta, NodeIDAnnotation, request.NodeID)
	if _, err := nodes.Update(ctx, holder, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("take over node %s: %w", request.NodeName, err)
	}
	return nil
}

// identityOf is what the machine's certificate would say.
func identityOf(request join.Request) pki.NodeIdentity {
	return pki.NodeIdentity{Name: request.NodeName, ID: request.NodeID, IPs: []net.IP{request.Address.AsSlice()}}
}

// welcome is what the new member gets.
func (n *node) welcome(request join.Request, now time.Time) (*join.Response, error) {
	certificate, err := n.keys.SignNode(identityOf(request), []byte(request.CertificateRequest), now)
	if err != nil {
		return nil, &join.Refusal{Code: http.StatusBadRequest, Message: err.Error()}
	}
	settings, err := json.Marshal(n.live.get())
	if err != nil {
		return nil, fmt.Errorf("encode the settings: %w", err)
	}
	response := &join.Response{
		ClusterID: n.dir.ClusterID, CA: string(n.keys.Cluster().CertPEM()), Certificate: string(certificate),
		GossipKeys: n.mesh.Keys(), Settings: settings,
	}
	for _, member := range n.mesh.Members() {
		response.Members = append(response.Members, join.Member{
			ID: member.ID, Gossip: member.Address, Peer: netip.AddrPortFrom(member.Address.Addr(), member.Tags.PeerPort),
			Replica: member.Tags.Role.Replica(),
		})
	}
	n.log.Info("admit a machine", "node", request.NodeName, "id", request.NodeID, "address", request.Address)
	return response, nil
}
