package serviceaccounts

import (
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podvine/podvine/agent/control/loop"
	"github.com/podvine/podvine/agent/control/loop/looptest"
)

func TestMissing(t *testing.T) {
	notFound := apierrors.NewNotFound(v1.Resource("serviceaccounts"), DefaultName)
	active := &v1.Namespace{Status: v1.NamespaceStatus{Phase: v1.NamespaceActive}}
	fresh := &v1.Namespace{} // its phase is not written yet
	ending := &v1.Namespace{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: &metav1.Time{Time: time.Unix(1, 0)}}}
	if !missing(active, notFound) || !missing(fresh, notFound) || missing(ending, notFound) || missing(active, nil) {
		t.Error("an account is made exactly where an active namespace has none")
	}
}

// TestAccountsAreLeftAlone: an account that someone changed is not put back; one that is deleted is made anew.
func TestAccountsAreLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := looptest.New(t, &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "a"}})
		defer c.Stop()
		l, err := New(loop.Wiring{Client: c.Client, Informers: c.Informers, Logger: c.Logger()})
		c.Must(err)
		c.Start(l)
		accounts := c.Client.CoreV1().ServiceAccounts("a")
		made, err := accounts.Get(t.Context(), DefaultName, metav1.GetOptions{})
		c.Must(err)
		changed := made.DeepCopy()
		changed.Labels = map[string]string{"mine": "yes"}
		_, err = accounts.Update(t.Context(), changed, metav1.UpdateOptions{})
		c.Must(err)
		c.Pass(30 * time.Minute)
		if kept, err := accounts.Get(t.Context(), DefaultName, metav1.GetOptions{}); err != nil || kept.Labels["mine"] != "yes" {
			t.Errorf("account after half an hour: %v %v", kept, err)
		}
		c.Must(accounts.Delete(t.Context(), DefaultName, metav1.DeleteOptions{}))
		c.Settle()
		if again, err := accounts.Get(t.Context(), DefaultName, metav1.GetOptions{}); err != nil || again.UID == made.UID {
			t.Errorf("account after its deletion: %v %v", again, err)
		}
	})
}
