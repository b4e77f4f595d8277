package job_test

import (
	"testing"
	"testing/synctest"

	batchv1 "k8s.io/api/batch/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/podvine/podvine/agent/control/loop"
	"github.com/podvine/podvine/agent/control/loop/looptest"
	"github.com/podvine/podvine/agent/control/workloads/job"
)

// TestOrphans: a pod keeps the finalizer while its job is there, and no longer.
func TestOrphans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pod := func(name, owner string) *v1.Pod {
			p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID(name), Finalizers: []string{"other/one", batchv1.JobTrackingFinalizer}}}
			if yes := true; owner != "" {
				p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "batch/v1", Kind: "Job", Name: owner, UID: types.UID(owner), Controller: &yes}}
			}
			return p
		}
		c := looptest.New(t, &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "j", UID: "j"}}, pod("kept", "j"), pod("of-another", "gone"), pod("of-nobody", ""))
		defer c.Stop()
		l, err := job.NewOrphans(loop.Wiring{Client: c.Client, Informers: c.Informers, Logger: c.Logger()})
		c.Must(err)
		c.Start(l)
		holds := func(want map[string]int) {
			t.Helper()
			for name, n := range want {
				p, err := c.Client.CoreV1().Pods("ns").Get(t.Context(), name, metav1.GetOptions{})
				c.Must(err)
				if len(p.Finalizers) != n {
					t.Errorf("%s has %v", name, p.Finalizers)
				}
			}
		}
		holds(map[string]int{"kept": 2, "of-another": 1, "of-nobody": 1})
		c.Must(c.Client.BatchV1().Jobs("ns").Delete(t.Context(), "j", metav1.DeleteOptions{}))
		c.Settle()
		holds(map[string]int{"kept": 1})
	})
}
