package agent

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/podvine/podvine/gossip"
)

const (
	// StatusPath is where a member's API tells how it sees the cluster.
	StatusPath = "/podvine/status"
	// QuorumPath is where a member's API tells of the quorum, as a quorum.Status of package consensus/quorum.
	QuorumPath = "/podvine/quorum"
	// ImagesPath is where a node's kubelet API lists its images, and imports an archive that is posted to it.
	ImagesPath = "podvine/images"
)

// Status is how a member sees the cluster.
type Status struct {
	Cluster string `json:"cluster"`
	Node    string `json:"node"`
	Version string `json:"version"`
	// Leader is the name of the quorum's leader; empty when there is none.
	Leader    string `json:"leader"`
	LastIndex uint64 `json:"lastIndex"`
	// Conditions are what an operator should know, a line each; empty when all is well.
	Conditions []string       `json:"conditions,omitempty"`
	Members    []MemberStatus `json:"members"`
}

// MemberStatus is a node as gossip sees it.
type MemberStatus struct {
	Name    string    `json:"name"`
	ID      string    `json:"id"`
	Role    string    `json:"role"`
	State   string    `json:"state"`
	Alive   bool      `json:"alive"`
	Since   time.Time `json:"since"`
	Address string    `json:"address"`
	Version string    `json:"version"`
}

// Image is an image that a node holds.
type Image struct {
	Name      string `json:"name"`
	Digest    string `json:"digest"`
	SizeBytes int64  `json:"sizeBytes"`
}

// memberStatus describes a member; name is that of its Node object, or its ID while that is not known.
func memberStatus(member gossip.Member, name string) MemberStatus {
	return MemberStatus{
		Name: name, ID: member.ID, Role: member.Tags.Role.String(),
		State: member.State.String(), Alive: member.State == gossip.StateAlive,
		Since: member.Since, Address: member.Address.Addr().String(), Version: member.Tags.Version,
	}
}

// serveJSON answers with what get returns.
func serveJSON[T any](get func(*http.Request) (T, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		value, err := get(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(value); err != nil {
			panic(http.ErrAbortHandler) // the client has gone; its connection is of no more use
		}
	}
}
