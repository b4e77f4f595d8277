package join_test

import (
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/podvine/podvine/agent/join"
)

func TestExpiredTokensAreRemoved(t *testing.T) {
	of := func(id string, expires time.Time) *corev1.Secret {
		return join.Token{ID: id, Secret: "secretsecretsecr"}.Object(expires, "")
	}
	foreign, endless, other := of("aaaaaa", now.Add(-time.Hour)), of("bbbbbb", now), of("cccccc", now.Add(-time.Hour))
	delete(foreign.Data, "usage-podvine-join")
	delete(endless.Data, "expiration")
	other.Type = corev1.SecretTypeOpaque
	const kept = 10 * time.Minute // whoever uses the token meanwhile is told that it expired
	client := fake.NewClientset(of("expird", now.Add(-kept)), of("kept12", now.Add(time.Second-kept)), foreign, endless, other)
	removed, err := join.RemoveExpired(t.Context(), client, now)
	if err != nil || !slices.Equal(removed, []string{"aaaaaa", "expird"}) {
		t.Errorf("removed %v, %v", removed, err)
	}
	left, err := client.CoreV1().Secrets(metav1.NamespaceSystem).List(t.Context(), metav1.ListOptions{})
	if err != nil || len(left.Items) != 3 {
		t.Errorf("left are %v, %v", left, err)
	}
}
