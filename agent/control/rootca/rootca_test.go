package rootca_test

import (
	"testing"
	"testing/synctest"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podvine/podvine/agent/control/loop"
	"github.com/podvine/podvine/agent/control/loop/looptest"
	"github.com/podvine/podvine/agent/control/rootca"
	"github.com/podvine/podvine/agent/control/serviceaccounts"
)

// TestFurnishesNamespaces: with both loops, every active namespace, early or late, has the CA and the default account; what is
// changed or deleted comes back; a terminating namespace gets nothing.
func TestFurnishesNamespaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		active := v1.NamespaceStatus{Phase: v1.NamespaceActive}
		c := looptest.New(t, &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "early"}, Status: active},
			&v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ending"}, Status: v1.NamespaceStatus{Phase: v1.NamespaceTerminating}})
		defer c.Stop()
		bundle := "PEM"
		ca, err := rootca.New(loop.Wiring{Client: c.Client, Informers: c.Informers, Logger: c.Logger()}, func() []byte { return []byte(bundle) })
		c.Must(err)
		accounts, err := serviceaccounts.New(loop.Wiring{Client: c.Client, Informers: c.Informers, Logger: c.Logger()})
		c.Must(err)
		c.Start(ca, accounts)
		_, err = c.Client.CoreV1().Namespaces().Create(ctx, &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "late"}, Status: active}, metav1.CreateOptions{})
		c.Must(err)
		c.Settle()
		check := func(when string) {
			t.Helper()
			for _, namespace := range []string{"early", "late"} {
				m, err := c.Client.CoreV1().ConfigMaps(namespace).Get(ctx, rootca.Name, metav1.GetOptions{})
				if err != nil || m.Data[rootca.Key] != bundle || len(m.Data) != 1 {
					t.Errorf("%s: CA in %s: %v %v", when, namespace, m, err)
				}
				if _, err := c.Client.CoreV1().ServiceAccounts(namespace).Get(ctx, "default", metav1.GetOptions{}); err != nil {
					t.Errorf("%s: account in %s: %v", when, namespace, err)
				}
			}
		}
		check("at first")
		spoilt, err := c.Client.CoreV1().ConfigMaps("early").Get(ctx, rootca.Name, metav1.GetOptions{})
		c.Must(err)
		spoilt = spoilt.DeepCopy()
		spoilt.Data = map[string]string{"x": "y"}
		_, err = c.Client.CoreV1().ConfigMaps("early").Update(ctx, spoilt, metav1.UpdateOptions{})
		c.Must(err)
		c.Must(c.Client.CoreV1().ConfigMaps("late").Delete(ctx, rootca.Name, metav1.DeleteOptions{}))
		c.Must(c.Client.CoreV1().ServiceAccounts("late").Delete(ctx, "default", metav1.DeleteOptions{}))
		c.Settle()
		check("after tampering")
		bundle = "PEM of two"
		ca.Changed()
		c.Settle()
		check("after the bundle changed")
		if list, err := c.Client.CoreV1().ConfigMaps("ending").List(ctx, metav1.ListOptions{}); err != nil || len(list.Items) != 0 {
			t.Errorf("terminating namespace got %d maps (%v)", len(list.Items), err)
		}
	})
}
