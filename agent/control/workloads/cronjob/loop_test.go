package cronjob_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"

	"github.com/podvine/podvine/agent/control/loop"
	"github.com/podvine/podvine/agent/control/loop/looptest"
	"github.com/podvine/podvine/agent/control/workloads/cronjob"
)

// TestLoop runs for an hour of virtual time: a job each ten minutes, each noted, and three kept.
func TestLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		three := int32(3)
		c := looptest.New(t, &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "c", UID: "c", CreationTimestamp: metav1.Now()},
			Spec: batchv1.CronJobSpec{Schedule: "*/10 * * * *", ConcurrencyPolicy: batchv1.ForbidConcurrent, SuccessfulJobsHistoryLimit: &three, FailedJobsHistoryLimit: &three}})
		defer c.Stop()
		events := record.NewFakeRecorder(1000)
		l, err := cronjob.New(loop.Wiring{Client: c.Client, Informers: c.Informers, Logger: c.Logger(), Recorder: events})
		c.Must(err)
		c.Start(l)
		jobs := c.Client.BatchV1().Jobs("ns")
		end := func() {
			list, err := jobs.List(t.Context(), metav1.ListOptions{})
			c.Must(err)
			for i := range list.Items {
				if j := &list.Items[i]; len(j.Status.Conditions) == 0 {
					now := metav1.Now()
					j.Status.CompletionTime, j.Status.Conditions = &now, []batchv1.JobCondition{{Type: batchv1.JobComplete, Status: v1.ConditionTrue}}
					_, err := jobs.UpdateStatus(t.Context(), j, metav1.UpdateOptions{})
					c.Must(err)
				}
			}
		}
		for range 60 {
			c.Pass(30 * time.Second)
			cj, err := c.Client.BatchV1().CronJobs("ns").Get(t.Context(), "c", metav1.GetOptions{})
			c.Must(err)
			if len(cj.Status.Active) > 1 {
				t.Fatalf("runs %v at once", cj.Status.Active)
			}
			c.Pass(30 * time.Second)
			end()
		}
		c.Settle()
		list, err := jobs.List(t.Context(), metav1.ListOptions{})
		c.Must(err)
		cj, err := c.Client.BatchV1().CronJobs("ns").Get(t.Context(), "c", metav1.GetOptions{})
		c.Must(err)
		if len(list.Items) != 3 || len(cj.Status.Active) != 0 || cj.Status.LastSuccessfulTime == nil || time.Since(cj.Status.LastScheduleTime.Time) > 11*time.Minute {
			t.Errorf("%d jobs are kept, status %+v", len(list.Items), cj.Status)
		}
		count := map[string]int{}
		for len(events.Events) > 0 {
			count[strings.Fields(<-events.Events)[1]]++
		}
		if created := count["SuccessfulCreate"]; created != 6 || count["SawCompletedJob"] != 6 || count["SuccessfulDelete"] != 3 || len(count) != 3 {
			t.Error(fmt.Sprint(count))
		}
	})
}
