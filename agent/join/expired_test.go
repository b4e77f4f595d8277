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
	foreign := of("aaaaaa", now.Add(-time.Hour))
	delete(foreign.Data, "usage-podvine-join")
	client := fake.NewClientset(of("expird", now), of("valid1", now.Add(time.Second)), foreign)
	removed, err := join.RemoveExpired(t.Context(), client, now)
	if err != nil || !slices.Equal(removed, []string{"expird"}) {
		t.Errorf("removed %v, %v", removed, err)
	}
	left, err := client.CoreV1().Secrets(metav1.NamespaceSystem).List(t.Context(), metav1.ListOptions{})
	if err != nil || len(left.Items) != 2 {
		t.Errorf("left are %v, %v", left, err)
	}
}
