package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/podvine/podvine/agent/peer"
	"github.com/podvine/podvine/consensus/quorum"
	"github.com/podvine/podvine/gossip"
)

const (
	// LocalSocket is where root tells this machine's agent to leave its cluster.
	LocalSocket = runDir + "/agent.sock"
	// localLeavePath takes a LeaveRequest there and answers with a LeaveProgress a line.
	localLeavePath = "/leave"
	// leavePath is where a replica helps another node to leave.
	leavePath = "/leave"
	// leavePause is between two looks at whether the pods or the replica are gone, releaseTimeout bounds the wait for the quorum
	// to let go of the replica.
	leavePause     = 500 * time.Millisecond
	releaseTimeout = 2 * time.Minute
)

// errLeft ends the agent of a machine that has left its cluster.
var errLeft = errors.New("this machine has left its cluster")

// LeaveRequest says how a machine leaves its cluster.
type LeaveRequest struct {
	// KeepPods leaves the pods on the machine, where they end with it; without it they are evicted first.
	KeepPods bool `json:"keepPods,omitempty"`
	// Force evicts pods, too, that nothing makes anew, DeleteEmptyDirData those that have data in an emptyDir.
	Force              bool `json:"force,omitempty"`
	DeleteEmptyDirData bool `json:"deleteEmptyDirData,omitempty"`
}

// LeaveProgress is a line of what is said meanwhile.
type LeaveProgress struct {
	Step  string `json:"step,omitempty"`
	Error string `json:"error,omitempty"`
	// Done is the last: the node is out, and its agent ends.
	Done bool `json:"done,omitempty"`
}

// runLocal serves the socket of root until ctx ends.
func (n *node) runLocal(ctx context.Context) error {
	if err := os.MkdirAll(filepath.Dir(LocalSocket), 0o755); err != nil {
		return fmt.Errorf("make the run folder: %w", err)
	}
	if err := os.RemoveAll(LocalSocket); err != nil {
		return fmt.Errorf("remove the socket of the agent before: %w", err)
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "unix", LocalSocket)
	if err != nil {
		return fmt.Errorf("listen for root: %w", err)
	}
	if err := os.Chmod(LocalSocket, 0o600); err != nil {
		return errors.Join(fmt.Errorf("keep the socket to root: %w", err), listener.Close())
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+localLeavePath, n.serveLeave)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: callTimeout, BaseContext: func(net.Listener) context.Context { return ctx }}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) && ctx.Err() == nil {
		return fmt.Errorf("serve root: %w", err)
	}
	return nil
}

// serveLeave has this node leave, and tells how it goes. It ends with its client.
func (n *node) serveLeave(w http.ResponseWriter, r *http.Request) {
	var wanted LeaveRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxCallBytes)).Decode(&wanted); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	encoder, control := json.NewEncoder(w), http.NewResponseController(w)
	say := func(line LeaveProgress) {
		if err := errors.Join(encoder.Encode(line), control.Flush()); err != nil {
			panic(http.ErrAbortHandler) // the client has gone
		}
	}
	if !n.leaving.CompareAndSwap(leavingNot, leavingAsked) {
		say(LeaveProgress{Error: "it is leaving already"})
		return
	}
	err := n.leave(r.Context(), wanted, func(format string, of ...any) {
		step := fmt.Sprintf(format, of...)
		n.log.Info("leave the cluster", "step", step)
		say(LeaveProgress{Step: step})
	})
	if err != nil {
		n.stay()
		n.log.Warn("leave the cluster", "error", err)
		say(LeaveProgress{Error: err.Error()})
		return
	}
	say(LeaveProgress{Done: true})
	n.end(errLeft)
}

// How far a node is on its way out.
const (
	leavingNot int32 = iota
	leavingAsked
	// leavingQuorum has the others do without this node's replica.
	leavingQuorum
)

// stay takes back that the node leaves.
func (n *node) stay() {
	if n.leaving.Swap(leavingNot) == leavingQuorum {
		if err := n.mesh.SetTags(n.tags()); err != nil {
			n.log.Warn("tell gossip that this node stays", "error", err)
		}
	}
}

// leave takes the node out of the cluster: its pods, its place in the quorum, itself in gossip. The rest is done when its agent has
// ended, see [Leave].
func (n *node) leave(ctx context.Context, wanted LeaveRequest, say func(format string, of ...any)) error {
	if err := n.mayLeave(ctx); err != nil {
		return err
	}
	if err := n.leavePods(ctx, wanted, say); err != nil {
		return err
	}
	err := n.mayLeave(ctx) // that may have taken a while
	if err == nil && !n.dir.Edge {
		err = n.leaveQuorum(ctx, say)
	}
	if err != nil {
		return fmt.Errorf("%w; %s", err, n.uncordonHint())
	}
	next := n.dir.identity
	next.Left = true
	if err := n.dir.become(next); err != nil {
		return err
	}
	if err := n.mesh.Leave(); err != nil {
		n.log.Warn("say goodbye in gossip", "error", err) // the others are told to forget this node besides
	}
	return nil
}

// mayLeave asks whether the others can go on without this node. A replica knows itself, and may be the only one.
func (n *node) mayLeave(ctx context.Context) (err error) {
	if n.replica != nil {
		err = quorum.MayLeave(n.leadersView(ctx), n.quorumMembers(), time.Now(), n.dir.NodeID)
	} else {
		_, err = n.helpMe(ctx, leaveCall{Phase: leaveAsk})
	}
	if err != nil {
		return fmt.Errorf("leave the cluster: %w", err)
	}
	return nil
}

// leavePods has the node's pods evicted until none is left, or tells which end with the machine.
func (n *node) leavePods(ctx context.Context, wanted LeaveRequest, say func(format string, of ...any)) error {
	said := ""
	for {
		left, err := n.helpMe(ctx, leaveCall{Phase: leaveDrain, Request: wanted})
		if err != nil {
			return fmt.Errorf("move the pods away: %w; %s", err, n.uncordonHint())
		}
		for _, warning := range left.Warnings {
			if warning != said {
				say("%s", warning)
				said = warning
			}
		}
		if len(left.Pods) == 0 {
			return nil
		}
		if text := describePods(left.Pods, wanted.KeepPods); text != said {
			say("%s", text)
			said = text
		}
		if wanted.KeepPods {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(leavePause):
		}
	}
}

func (n *node) uncordonHint() string {
	return fmt.Sprintf("the node takes no new pods: use `podvine kubectl uncordon %s` if it is to stay", n.dir.NodeName)
}

func describePods(pods []string, kept bool) string {
	const most = 5
	more := ""
	if len(pods) > most {
		more = fmt.Sprintf(" and %d more", len(pods)-most)
		pods = pods[:most]
	}
	if kept {
		return fmt.Sprintf("these pods end with the machine: %v%s", pods, more)
	}
	return fmt.Sprintf("moving pods away: %v%s", pods, more)
}

// leaveQuorum has the leader take this node's replica out of the quorum.
func (n *node) leaveQuorum(ctx context.Context, say func(format string, of ...any)) error {
	say("handing this replica's place in the quorum over")
	n.leaving.Store(leavingQuorum)
	if err := n.mesh.SetTags(n.tags()); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, releaseTimeout)
	defer cancel()
	var last error
	for {
		answered, err := n.helpMe(ctx, leaveCall{Phase: leaveQuorum})
		if err == nil && !answered.Replica {
			return nil
		}
		last = err
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("leave the quorum: the leader did not let go: %w", ctx.Err()), last)
		case <-time.After(leavePause):
		}
	}
}

// helpMe asks another replica for what this node may not do itself.
func (n *node) helpMe(ctx context.Context, asked leaveCall) (leaveAnswer, error) {
	return askToLeave(ctx, n.peers, n.link.candidates(), asked)
}

// askToLeave asks the replicas in turn. What one of them decides counts; who cannot be reached decides nothing.
func askToLeave(ctx context.Context, peers *peer.Network, replicas []string, asked leaveCall) (leaveAnswer, error) {
	errs := []error{errNoReplica}
	for _, id := range replicas {
		answered, err := callReplica[leaveCall, leaveAnswer](ctx, peers, id, leavePath, asked)
		if err == nil && answered.Refusal != "" {
			return answered, errors.New(answered.Refusal)
		}
		if err == nil {
			return answered, nil
		}
		errs = append(errs, err)
	}
	return leaveAnswer{}, errors.Join(errs...)
}

// leftMark is what a machine that has left keeps: it must not found a cluster, or join one again, only because something starts its
// agent as before.
type leftMark struct {
	ClusterID string    `json:"clusterID"`
	NodeName  string    `json:"nodeName"`
	Left      time.Time `json:"left"`
}

const leftFile = "left.json"

func errHasLeft(mark leftMark) error {
	return fmt.Errorf("this machine left cluster %s as %s, and neither founds nor joins one by itself: make it forget that with `podvine agent reset --yes`", mark.ClusterID, mark.NodeName)
}

// Leave takes this machine out of its cluster: its agent says goodbye and ends, then everything that it made on the machine is removed, its
// keys and certificates among it. A mark stays, so that an agent that is started again does nothing. It may be repeated until it has succeeded.
func Leave(ctx context.Context, config Config, wanted LeaveRequest, progress func(step string)) error {
	var who identity
	if err := readJSON(filepath.Join(config.DataDir, identityFile), &who); err != nil {
		return err
	}
	if who.NodeID == "" {
		return fmt.Errorf("leave the cluster: %s belongs to none", config.DataDir)
	}
	if !who.Left {
		if err := tellAgentToLeave(ctx, wanted, progress); err != nil {
			return err
		}
	}
	unlock, err := awaitEnd(ctx, config)
	if err != nil {
		return err
	}
	defer unlock()
	if err := removeTraces(ctx, config, progress); err != nil {
		return err
	}
	progress("having the cluster forget this machine")
	if err := askToForget(ctx, config); err != nil {
		return fmt.Errorf("leave the cluster: %w: repeat this when a replica can be reached, or use `podvine agent reset --yes` here and `podvine kubectl delete node %s` elsewhere", err, who.NodeName)
	}
	progress("removing data")
	if err := writeJSON(filepath.Join(config.DataDir, leftFile), leftMark{ClusterID: who.ClusterID, NodeName: who.NodeName, Left: time.Now().UTC()}); err != nil {
		return err
	}
	return removeAll(config, leftFile)
}

// tellAgentToLeave returns when the agent has taken its node out of the cluster.
func tellAgentToLeave(ctx context.Context, wanted LeaveRequest, progress func(step string)) error {
	answer, err := postLocal(ctx, localLeavePath, wanted)
	if err != nil {
		return fmt.Errorf("leave the cluster: the agent does not answer, and must take part: start it: %w", err)
	}
	defer answer.Body.Close()
	lines := json.NewDecoder(answer.Body)
	for {
		var line LeaveProgress
		if err := lines.Decode(&line); err != nil {
			return fmt.Errorf("leave the cluster: the agent has gone: repeat this: %w", err)
		}
		switch {
		case line.Error != "":
			return errors.New(line.Error)
		case line.Done:
			return nil
		}
		progress(line.Step)
	}
}

func postLocal(ctx context.Context, path string, body any) (*http.Response, error) {
	content, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://agent"+path, bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", LocalSocket)
	}}
	return transport.RoundTrip(request)
}

// awaitEnd waits until the agent has ended, and keeps others from starting.
func awaitEnd(ctx context.Context, config Config) (unlock func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, endTimeout)
	defer cancel()
	err = retry(ctx, func(context.Context) (err error) {
		unlock, err = lockForReset(config)
		return err
	})
	return unlock, err
}

// askToForget has a replica delete what the cluster knows of this machine.
func askToForget(ctx context.Context, config Config) error {
	dir := &dataDir{path: config.DataDir}
	last, err := gossip.LastPeers(dir.path)
	if err != nil {
		return err
	}
	peers, err := peersOnDisk(dir, func(id string) (netip.AddrPort, bool) { return lastAddress(last, id) }, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	var replicas []string
	for _, member := range last {
		if member.Replica {
			replicas = append(replicas, member.ID)
		}
	}
	_, err = askToLeave(ctx, peers, replicas, leaveCall{Phase: leaveForget})
	return err
}
