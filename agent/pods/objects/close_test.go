package objects

import (
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/podvine/podvine/agent/pods/vault"
)

// Close waits for what a watch is telling, and nothing is told after it.
func TestCloseWaits(t *testing.T) {
	keep, err := vault.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "s"}})
		telling, goOn := make(chan struct{}), make(chan struct{})
		var told atomic.Bool
		c := New(client, keep, slog.New(slog.DiscardHandler), func([]types.UID) {
			close(telling)
			<-goOn
			told.Store(true)
		})
		c.Track("uid", []Ref{{Secrets, "ns", "s"}})
		<-telling
		closed := make(chan bool)
		go func() {
			c.Close()
			closed <- told.Load()
		}()
		synctest.Wait()
		select {
		case <-closed:
			t.Error("it is closed while a pod is told of a change")
		default:
		}
		close(goOn)
		if !<-closed {
			t.Error("it is closed before a pod was told of a change")
		}
		c.Track("uid", []Ref{{Secrets, "ns", "s"}})
		if len(c.watches) != 0 {
			t.Error("a closed cache watches")
		}
	})
}
