package tokens

import (
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
)

// claims are the content of a token: the registered claims and Kubernetes' own.
type claims struct {
	Audience   audience    `json:"aud,omitempty"`
	Expiry     int64       `json:"exp,omitempty"`
	IssuedAt   int64       `json:"iat,omitempty"`
	Issuer     string      `json:"iss,omitempty"`
	ID         string      `json:"jti,omitempty"`
	Kubernetes boundClaims `json:"kubernetes.io"`
	NotBefore  int64       `json:"nbf,omitempty"`
	Subject    string      `json:"sub,omitempty"`
}

// boundClaims say whose token it is and what it is bound to.
type boundClaims struct {
	Namespace      string     `json:"namespace,omitempty"`
	Node           *reference `json:"node,omitempty"`
	Pod            *reference `json:"pod,omitempty"`
	Secret         *reference `json:"secret,omitempty"`
	ServiceAccount reference  `json:"serviceaccount"`
	WarnAfter      int64      `json:"warnafter,omitempty"`
}

type reference struct {
	Name string    `json:"name,omitempty"`
	UID  types.UID `json:"uid,omitempty"`
}

// audience is a list that may also be written as one string.
type audience []string

// UnmarshalJSON takes both forms.
func (a *audience) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*a = audience{one}
		return nil
	}
	var many []string
	if err := json.Unmarshal(b, &many); err != nil {
		return fmt.Errorf("decode audience: %w", err)
	}
	*a = many
	return nil
}

// Binding is what a token is issued for. Account is required; at most one of Pod, Secret, or Node alone binds it;
// Node beside Pod is only told.
type Binding struct {
	Account *corev1.ServiceAccount
	Pod     *corev1.Pod
	Node    *corev1.Node
	Secret  *corev1.Secret
}

func newClaims(b Binding, issuer, id string, audiences []string, now time.Time, lifetime, warnAfter time.Duration) *claims {
	c := &claims{
		Audience: audiences, Expiry: now.Add(lifetime).Unix(), IssuedAt: now.Unix(), Issuer: issuer, ID: id, NotBefore: now.Unix(),
		Subject: serviceaccount.MakeUsername(b.Account.Namespace, b.Account.Name),
		Kubernetes: boundClaims{
			Namespace:      b.Account.Namespace,
			ServiceAccount: reference{Name: b.Account.Name, UID: b.Account.UID},
		},
	}
	if b.Pod != nil {
		c.Kubernetes.Pod = &reference{Name: b.Pod.Name, UID: b.Pod.UID}
	}
	if b.Secret != nil {
		c.Kubernetes.Secret = &reference{Name: b.Secret.Name, UID: b.Secret.UID}
	}
	if b.Node != nil {
		c.Kubernetes.Node = &reference{Name: b.Node.Name, UID: b.Node.UID}
	}
	if warnAfter > 0 {
		c.Kubernetes.WarnAfter = now.Add(warnAfter).Unix()
	}
	return c
}
