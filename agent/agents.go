package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/podvine/podvine/agent/peer"
	"github.com/podvine/podvine/agent/pki"
)

// Agents call each other over HTTP on the peer port; the caller is whom its certificate names.
const (
	certificatePath = "/certificate"

	callTimeout  = 10 * time.Second
	maxCallBytes = 1 << 20
)

// certificateCall asks a replica to certify the caller's key.
type certificateCall struct {
	Request string `json:"request"`
}

type certificateAnswer struct {
	Certificate string `json:"certificate"`
}

// callerKey finds the caller in a request's context.
type callerKey struct{}

// runAgentCalls serves the calls of other agents until ctx ends.
func (n *node) runAgentCalls(ctx context.Context) error {
	listener, err := n.peers.Listen(peer.ProtocolAgent, false)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("POST "+rolePath, answer(n.takeRole))
	mux.Handle("POST "+gossipKeysPath, answer(n.tellGossipKeys))
	mux.Handle("POST "+authoritiesPath, answer(n.takeAuthorities))
	if n.replica != nil {
		mux.Handle("POST "+certificatePath, answer(n.certify))
		mux.HandleFunc("POST "+restorePath, n.takeRestore)
		mux.Handle("POST "+leasePath, answer(n.takeLease))
		mux.Handle("POST "+leavePath, answer(n.takeLeave))
		mux.Handle("POST "+replicaKeysPath, answer(n.takeKeys))
		mux.Handle("POST "+rotatePath, answer(n.takeRotate))
	}
	server := &http.Server{
		Handler: mux, ReadHeaderTimeout: callTimeout, ReadTimeout: callTimeout, WriteTimeout: callTimeout,
		IdleTimeout: callTimeout, BaseContext: func(net.Listener) context.Context { return ctx },
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			if known, ok := conn.(*peer.Conn); ok {
				return context.WithValue(ctx, callerKey{}, known.Peer)
			}
			return ctx
		},
	}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) && ctx.Err() == nil {
		return fmt.Errorf("serve other agents: %w", err)
	}
	return nil
}

// answer serves a call that takes In and answers Out.
func answer[In, Out any](do func(ctx context.Context, caller pki.NodeIdentity, in In) (Out, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller, known := r.Context().Value(callerKey{}).(pki.NodeIdentity)
		if !known {
			http.Error(w, "the caller is unknown", http.StatusForbidden)
			return
		}
		var in In
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxCallBytes)).Decode(&in); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		out, err := do(r.Context(), caller, in)
		if err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(out); err != nil {
			panic(http.ErrAbortHandler) // the caller has gone
		}
	})
}

// call calls another agent.
func call[In, Out any](ctx context.Context, peers *peer.Network, nodeID, path string, in In) (out Out, err error) {
	return callAt[In, Out](ctx, peers, nodeID, path, in, false)
}

// callReplica is call of a node whose certificate says that it is a replica, whatever role it claims in gossip.
func callReplica[In, Out any](ctx context.Context, peers *peer.Network, nodeID, path string, in In) (out Out, err error) {
	return callAt[In, Out](ctx, peers, nodeID, path, in, true)
}

func callAt[In, Out any](ctx context.Context, peers *peer.Network, nodeID, path string, in In, replica bool) (out Out, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	body, err := json.Marshal(in)
	if err != nil {
		return out, fmt.Errorf("call %s of %s: %w", path, nodeID, err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+nodeID+path, bytes.NewReader(body))
	if err != nil {
		return out, fmt.Errorf("call %s of %s: %w", path, nodeID, err)
	}
	content, err := ask(peers, nodeID, request, replica)
	if err != nil {
		return out, fmt.Errorf("call %s of %s: %w", path, nodeID, err)
	}
	if err := json.Unmarshal(content, &out); err != nil {
		return out, fmt.Errorf("call %s of %s: %w", path, nodeID, err)
	}
	return out, nil
}

// ask sends a request to another agent and returns its answer; with replica only to one that is certified as such.
func ask(peers *peer.Network, nodeID string, request *http.Request, replica bool) (content []byte, err error) {
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		conn, err := peers.Dial(ctx, nodeID, peer.ProtocolAgent)
		if err != nil {
			return nil, err
		}
		if certified, ok := conn.(*peer.Conn); replica && (!ok || !certified.Peer.Replica) {
			return nil, errors.Join(fmt.Errorf("node %s is certified as no replica", nodeID), conn.Close())
		}
		return conn, nil
	}}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	content, err = io.ReadAll(io.LimitReader(response.Body, maxCallBytes))
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, errors.New(string(bytes.TrimSpace(content)))
	}
	return content, nil
}

// certify answers an edge whose certificate is to be renewed. The new one says what the old one said, but for the address,
// which is where gossip has the node now.
func (n *node) certify(_ context.Context, caller pki.NodeIdentity, in certificateCall) (certificateAnswer, error) {
	if owner := n.directory.id(caller.Name); owner != "" && owner != caller.ID {
		return certificateAnswer{}, fmt.Errorf("node %s has another owner now", caller.Name)
	}
	if at, known := n.directory.peerAddress(caller.ID); known {
		caller.IPs = []net.IP{at.Addr().AsSlice()}
	}
	certificate, err := n.keys.SignNode(caller, []byte(in.Request), time.Now())
	return certificateAnswer{Certificate: string(certificate)}, err
}

// sign has a replica sign this node's certificate. It is called while the keys are opened, before there is a network of peers, and so
// reaches the replica with the certificate that lies on the disk.
func (n *node) sign(request []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	peers, err := peersOnDisk(n.dir, n.resolve, n.log)
	if err != nil {
		return nil, err
	}
	errs := []error{errNoReplica}
	for _, id := range n.link.candidates() {
		signed, err := call[certificateCall, certificateAnswer](ctx, peers, id, certificatePath, certificateCall{Request: string(request)})
		if err == nil {
			return []byte(signed.Certificate), nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}
