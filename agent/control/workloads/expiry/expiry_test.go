package expiry_test

import (
	"testing"
	"testing/synctest"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"github.com/podvine/podvine/agent/control/loop"
	"github.com/podvine/podvine/agent/control/loop/looptest"
	"github.com/podvine/podvine/agent/control/workloads/expiry"
)

func ended(name string, seconds *int32, how batchv1.JobConditionType, at time.Time) *batchv1.Job {
	j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}, Spec: batchv1.JobSpec{TTLSecondsAfterFinished: seconds}}
	if how != "" {
		j.Status.Conditions = []batchv1.JobCondition{{Type: how, Status: v1.ConditionTrue, LastTransitionTime: metav1.NewTime(at)}}
	}
	return j
}

// TestDecide: a job goes when its time is over, not before, and says how long that is.
func TestDecide(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ttl := rapid.Int32Range(0, 100).Draw(t, "ttl")
		how := rapid.SampledFrom([]batchv1.JobConditionType{"", batchv1.JobSuspended, batchv1.JobComplete, batchv1.JobFailed}).Draw(t, "how")
		start := time.Unix(1_000_000, 0)
		age := time.Duration(rapid.IntRange(0, 200).Draw(t, "age")) * time.Second
		over, left := expiry.Decide(ended("j", &ttl, how, start), start.Add(age))
		finished := how == batchv1.JobComplete || how == batchv1.JobFailed
		if over != (finished && age >= time.Duration(ttl)*time.Second) || finished && !over && age+left != time.Duration(ttl)*time.Second || !finished && left != 0 {
			t.Fatalf("%s, %d s, after %v: %v, %v", how, ttl, age, over, left)
		}
	})
}

func TestLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now, soon := int32(0), int32(600)
		c := looptest.New(t, ended("at-once", &now, batchv1.JobComplete, time.Now()), ended("later", &soon, batchv1.JobFailed, time.Now()),
			ended("never", nil, batchv1.JobComplete, time.Now()), ended("runs", &now, "", time.Now()))
		defer c.Stop()
		l, err := expiry.New(loop.Wiring{Client: c.Client, Informers: c.Informers, Logger: c.Logger()})
		c.Must(err)
		c.Start(l)
		there := func(want ...string) {
			t.Helper()
			for _, name := range []string{"at-once", "later", "never", "runs"} {
				_, err := c.Client.BatchV1().Jobs("ns").Get(t.Context(), name, metav1.GetOptions{})
				wanted := false
				for _, w := range want {
					wanted = wanted || w == name
				}
				if apierrors.IsNotFound(err) == wanted {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
		there("later", "never", "runs")
		c.Pass(10 * time.Minute)
		there("never", "runs")
		c.Client.ClearActions()
		c.Pass(time.Hour)
		if actions := c.Client.Actions(); len(actions) > 0 {
			t.Errorf("an idle loop does %v", actions)
		}
	})
}
