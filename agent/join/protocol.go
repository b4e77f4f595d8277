// Package join is how a machine becomes a member: what it asks, what it is answered, and when it is refused.
//
// A machine that joins knows a peer's address and a token. It asks any member's API, first for the CA certificate, which
// must have the hash that stands in the token; only then, over a connection that this CA has certified, it says the
// token's secret and sends a certificate request. Edges carry the connection to a replica, so that any member will do.
//
// [Decide] is the whole decision of the member that is asked, and pure. [Ask] is the machine's side.
package join

import (
	"fmt"
	"net/http"
	"net/netip"
	"time"
)

// Where a member's API answers a machine that has no certificate yet.
const (
	// CAPath serves the cluster's CA certificate, and while it rotates that of the one that follows or went before after it.
	CAPath = "/podvine/ca"
	// RetiredHeader is in the answer and has the hashes of authorities that were rotated away, with commas.
	RetiredHeader = "Podvine-Retired-Authorities"
	// Path takes a [Request] and answers with a [Response] or a [Refusal].
	Path = "/podvine/join"

	// MaxRequestBytes bounds a request.
	MaxRequestBytes = 64 << 10
	// MaxResponseBytes bounds an answer.
	MaxResponseBytes = 4 << 20

	// Protocol is the version of what joins and its peers say to each other. Members whose versions differ refuse each other.
	Protocol = 1
	// MaxSkew is how far apart the clocks may be when a machine joins, so that a wrong clock is found at once. A member whose clock goes
	// wrong later stays one: the certificates of members start a day in the past.
	MaxSkew = 4 * time.Minute
)

// Request is what a machine sends.
type Request struct {
	Protocol int    `json:"protocol"`
	Version  string `json:"version"`
	// TokenID and TokenSecret are the token's first two parts.
	TokenID     string `json:"tokenID"`
	TokenSecret string `json:"tokenSecret"`
	// NodeName and NodeID are who the machine will be.
	NodeName string `json:"nodeName"`
	NodeID   string `json:"nodeID"`
	// Address is where others reach the machine.
	Address netip.Addr `json:"address"`
	// CertificateRequest is in PEM.
	CertificateRequest string    `json:"certificateRequest"`
	Time               time.Time `json:"time"`
}

// Response is what makes the machine a member.
type Response struct {
	ClusterID   string `json:"clusterID"`
	CA          string `json:"ca"`
	Certificate string `json:"certificate"`
	// GossipKeys are the keyring's keys, the first of them encrypts.
	GossipKeys [][]byte `json:"gossipKeys"`
	// Settings are the cluster's, as agent writes them.
	Settings []byte `json:"settings"`
	// Members are where others gossip.
	Members []Member `json:"members"`
	// RoleComing says that the quorum wants another replica, so that the machine may wait a moment for being told.
	RoleComing bool `json:"roleComing,omitempty"`
}

// Member is another node, so that the new one finds it before gossip tells.
type Member struct {
	ID     string         `json:"id"`
	Gossip netip.AddrPort `json:"gossip"`
	// Peer is where the peer port is.
	Peer    netip.AddrPort `json:"peer"`
	Replica bool           `json:"replica"`
}

// Refusal is why a machine may not join. It is an error and travels as JSON.
type Refusal struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

// Error implements error.
func (r *Refusal) Error() string { return r.Message }

func refuse(code int, format string, args ...any) *Refusal {
	return &Refusal{Code: code, Message: fmt.Sprintf(format, args...)}
}

// View is what the member that is asked knows.
type View struct {
	Version string
	Now     time.Time
	// Grant is that of the token's ID, nil when there is none.
	Grant *Grant
	// Holder is the node that has the name now, nil when none has.
	Holder *Holder
	// Unfit is why the cluster certifies no such node, nil when it would.
	Unfit error
	// AddressHolder is the living node that has the machine's address, "" when none has.
	AddressHolder string
	// Named is the name under which the node ID is known already, "" when it is not.
	Named string
}

// Holder is a node that has a name.
type Holder struct {
	// ID is the node's UUID; "" when the Node object names none.
	ID    string
	Alive bool
}

// Decide returns why the machine may not join, or nil.
func Decide(view View, request Request) *Refusal {
	switch {
	case request.Protocol != Protocol:
		return refuse(http.StatusConflict, "the versions are too far apart: this machine has %s (protocol %d), the cluster %s (protocol %d): install the cluster's version on the machine",
			orUnknown(request.Version), request.Protocol, view.Version, Protocol)
	case !request.Address.IsValid() || request.NodeID == "" || request.NodeName == "":
		return refuse(http.StatusBadRequest, "the request names no node or no address")
	case view.Grant == nil:
		return refuse(http.StatusUnauthorized, "token %s is unknown here: it was revoked or never made: make one with `podvine token create` on a member", request.TokenID)
	case !view.Grant.admits(request.TokenSecret):
		return refuse(http.StatusUnauthorized, "the secret of token %s is wrong: copy the whole token, as `podvine token create` printed it", request.TokenID)
	case view.Grant.Expired(view.Now):
		return refuse(http.StatusUnauthorized, "token %s expired at %s: make another with `podvine token create` on a member", request.TokenID, view.Grant.Expires.UTC().Format(time.RFC3339))
	}
	if skew := request.Time.Sub(view.Now); skew.Abs() > MaxSkew {
		return refuse(http.StatusPreconditionFailed, "the clocks are %s apart (this machine says %s, the cluster %s; at most %s is allowed): set the machine's clock",
			skew.Abs().Round(time.Second), request.Time.UTC().Format(time.RFC3339), view.Now.UTC().Format(time.RFC3339), MaxSkew)
	}
	if view.Unfit != nil {
		return refuse(http.StatusUnprocessableEntity, "%v: choose another with --node-name or --node-ip", view.Unfit)
	}
	return decideName(view, request)
}

// decideName lets a machine have its old name again, with a new ID after it was installed anew, but never the name or the
// address of a node that lives.
func decideName(view View, request Request) *Refusal {
	if view.Named != "" && view.Named != request.NodeName {
		return refuse(http.StatusConflict, "node %s is a member already, under the name %s", request.NodeID, view.Named)
	}
	if view.Holder != nil && view.Holder.ID != request.NodeID && view.Holder.Alive {
		return refuse(http.StatusConflict, "a living node has the name %s: choose another with --node-name", request.NodeName)
	}
	if view.AddressHolder != "" {
		return refuse(http.StatusConflict, "the living node %s has the address %s: choose this machine's own with --node-ip", view.AddressHolder, request.Address)
	}
	return nil
}

func orUnknown(version string) string {
	if version == "" {
		return "an unknown version"
	}
	return version
}
