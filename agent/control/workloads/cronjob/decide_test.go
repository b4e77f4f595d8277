package cronjob

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/robfig/cron/v3"
	batchv1 "k8s.io/api/batch/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"github.com/podvine/podvine/agent/control/loop/looptest"
)

// noon is Saturday, 2026-03-28: the night after, Europe's clocks go forward.
var noon = time.Date(2026, 3, 28, 12, 0, 0, 0, time.UTC)

type change = func(*batchv1.CronJob)

func cronJob(schedule string, changes ...change) *batchv1.CronJob {
	three, one := int32(3), int32(1)
	c := &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "c", UID: "cron", CreationTimestamp: metav1.NewTime(noon.Add(-90 * time.Second))},
		Spec: batchv1.CronJobSpec{Schedule: schedule, ConcurrencyPolicy: batchv1.AllowConcurrent, SuccessfulJobsHistoryLimit: &three, FailedJobsHistoryLimit: &one}}
	for _, f := range changes {
		f(c)
	}
	return c
}

func ran(ago time.Duration) change {
	return func(c *batchv1.CronJob) { c.Status.LastScheduleTime = &metav1.Time{Time: noon.Add(-ago)} }
}
func within(seconds int64) change {
	return func(c *batchv1.CronJob) { c.Spec.StartingDeadlineSeconds = &seconds }
}
func zone(name string) change    { return func(c *batchv1.CronJob) { c.Spec.TimeZone = &name } }
func forbid(c *batchv1.CronJob)  { c.Spec.ConcurrencyPolicy = batchv1.ForbidConcurrent }
func replace(c *batchv1.CronJob) { c.Spec.ConcurrencyPolicy = batchv1.ReplaceConcurrent }
func suspend(c *batchv1.CronJob) { yes := true; c.Spec.Suspend = &yes }
func going(c *batchv1.CronJob)   { c.DeletionTimestamp = &metav1.Time{Time: noon} }
func lists(names ...string) change {
	return func(c *batchv1.CronJob) {
		for _, name := range names {
			c.Status.Active = append(c.Status.Active, v1.ObjectReference{Name: name, UID: types.UID(name)})
		}
	}
}

// jobs are made from words: "a" runs, "b:complete" and "c:failed" ended; each began a minute after the one before.
func jobs(words string) (out []*batchv1.Job) {
	for i, word := range strings.Fields(words) {
		name, state, _ := strings.Cut(word, ":")
		at := metav1.NewTime(noon.Add(time.Duration(i-60) * time.Minute))
		j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}, Status: batchv1.JobStatus{StartTime: &at}}
		switch state {
		case "complete":
			j.Status.CompletionTime = &at
			j.Status.Conditions = []batchv1.JobCondition{{Type: batchv1.JobComplete, Status: v1.ConditionTrue}}
		case "failed":
			j.Status.Conditions = []batchv1.JobCondition{{Type: batchv1.JobFailed, Status: v1.ConditionTrue}}
		}
		out = append(out, j)
	}
	return out
}

func said(plan Plan) string {
	out := looptest.Said("delete", plan.Delete)
	if plan.Create != nil {
		out = append(out, "create for "+plan.Create.Annotations[batchv1.CronJobScheduledTimestampAnnotation])
	}
	for _, ref := range plan.Status.Active {
		out = append(out, "active "+ref.Name)
	}
	for _, e := range plan.Events {
		out = append(out, e.Reason)
	}
	if plan.Again > 0 {
		out = append(out, "again "+plan.Again.String())
	}
	return strings.Join(out, ", ")
}

func TestDecide(t *testing.T) {
	for _, test := range []struct {
		name, want, jobs string
		c                *batchv1.CronJob
	}{
		{name: "its time has come", c: cronJob("0 12 * * *"), want: "create for 2026-03-28T12:00:00Z, again 5m0s"},
		{name: "its time comes", c: cronJob("1 12 * * *"), want: "again 1m0.1s"},
		{name: "its time comes late", c: cronJob("0 11 * * *"), want: "again 5m0s"},
		{name: "started already", c: cronJob("* * * * *", ran(0)), want: "again 1m0.1s"},
		{name: "each interval from its creation", c: cronJob("@every 1m"), want: "create for 2026-03-28T11:59:30Z, again 30.1s"},
		{name: "the last of some that were missed", c: cronJob("* * * * *", ran(5*time.Minute)), want: "create for 2026-03-28T12:00:00Z, again 1m0.1s"},
		{name: "the last of a year", c: cronJob("*/5 * * * *", ran(365*24*time.Hour)), want: "create for 2026-03-28T12:00:00Z, TooManyMissedTimes, again 5m0s"},
		{name: "the last interval of a year", c: cronJob("@every 7m", ran(365*24*time.Hour)), want: "create for 2026-03-28T11:55:00Z, TooManyMissedTimes, again 2m0.1s"},
		{name: "a year behind, with a deadline", c: cronJob("*/5 * * * *", ran(365*24*time.Hour), within(200)), want: "create for 2026-03-28T12:00:00Z, again 5m0s"},
		{name: "too late", c: cronJob("0 11 * * *", ran(25*time.Hour), within(60)), want: "MissSchedule, again 5m0s"},
		{name: "just in time", c: cronJob("59 11 * * *", ran(24*time.Hour), within(61)), want: "create for 2026-03-28T11:59:00Z, again 5m0s"},
		{name: "suspended", c: cronJob("0 12 * * *", suspend)},
		{name: "going", c: cronJob("0 12 * * *", going)},
		{name: "the clock was set back", c: cronJob("* * * * *", ran(-time.Hour)), want: "again 5m0s"},

		{name: "in its zone", c: cronJob("0 13 * * *", zone("Europe/Berlin")), want: "create for 2026-03-28T13:00:00+01:00, again 5m0s"},
		{name: "in a zone of the schedule", c: cronJob("TZ=Asia/Tokyo 0 21 * * *"), want: "create for 2026-03-28T12:00:00Z, UnsupportedSchedule, again 5m0s"},
		{name: "in no zone", c: cronJob("0 13 * * *", zone("Nowhere")), want: "UnknownTimeZone"},
		{name: "never", c: cronJob("59 23 31 2 *"), want: "InvalidSchedule"},
		{name: "not a schedule", c: cronJob("every day"), want: "UnparseableSchedule"},

		{name: "beside one that runs", c: cronJob("0 12 * * *", lists("a")), jobs: "a", want: "create for 2026-03-28T12:00:00Z, active a, again 5m0s"},
		{name: "not beside one that runs", c: cronJob("0 12 * * *", forbid, lists("a")), jobs: "a", want: "active a, JobAlreadyActive, again 5m0s"},
		{name: "after one that has ended", c: cronJob("0 12 * * *", forbid, lists("a")), jobs: "a:complete", want: "create for 2026-03-28T12:00:00Z, SawCompletedJob, again 5m0s"},
		{name: "after one that is gone", c: cronJob("0 12 * * *", forbid, lists("a")), want: "create for 2026-03-28T12:00:00Z, MissingJob, again 5m0s"},
		{name: "instead of one that runs", c: cronJob("0 12 * * *", replace, lists("a")), jobs: "a", want: "delete a, create for 2026-03-28T12:00:00Z, again 5m0s"},
		{name: "one that nobody noted", c: cronJob("1 12 * * *"), jobs: "a", want: "UnexpectedJob, again 1m0.1s"},
		{name: "old ones go, even of one that is suspended", c: cronJob("* * * * *", suspend), jobs: "a:complete b:complete c:complete d:complete e:failed f:failed", want: "delete a, delete e"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := said(Decide(View{CronJob: test.c, Jobs: jobs(test.jobs)}, noon)); got != test.want {
				t.Errorf("does %q, want %q", got, test.want)
			}
		})
	}
}

func TestTellsOnce(t *testing.T) {
	view := View{CronJob: cronJob("0 11 * * *", ran(25*time.Hour), within(60))}
	first := Decide(view, noon)
	view.Told = first.Told
	if second := Decide(view, noon.Add(time.Minute)); len(first.Events) != 1 || len(second.Events) != 0 || second.Told != first.Told {
		t.Errorf("told %v, then %v", first.Events, second.Events)
	}
}

func TestJob(t *testing.T) {
	c := cronJob("0 12 * * *")
	c.Spec.JobTemplate = batchv1.JobTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}, Annotations: map[string]string{"c": "d"}, Finalizers: []string{"x/y"}}}
	j := Decide(View{CronJob: c}, noon).Create
	if j.Name != fmt.Sprintf("c-%d", noon.Unix()/60) || j.Labels["a"] != "b" || j.Annotations["c"] != "d" || len(j.Finalizers) != 0 || !metav1.IsControlledBy(j, c) {
		t.Errorf("%+v", j.ObjectMeta)
	}
	if len(c.Spec.JobTemplate.Annotations) != 1 {
		t.Error("the template was changed")
	}
}

// TestSummerTime: a start that the clocks leap over is not made that day.
func TestSummerTime(t *testing.T) {
	c := cronJob("30 2 * * *", zone("Europe/Berlin"), ran(0))
	r := &run{View: View{CronJob: c}}
	schedule := r.schedule()
	at, missed, err := due(schedule, noon, noon.Add(40*time.Hour)) // until Monday, 04:00 UTC
	if want := time.Date(2026, 3, 30, 0, 30, 0, 0, time.UTC); err != nil || missed != 1 || !at.Equal(want) {
		t.Errorf("%d starts, the last at %v: %v", missed, at, err)
	}
}

// TestDueIsTheLast: whatever the schedule and however long nobody looked, the start that is made up for is the latest.
func TestDueIsTheLast(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.SampledFrom([]string{"* * * * *", "*/7 3-5 * * *", "0 0 29 2 *", "15 10 * * 1-5", "0 */5 1,15 * *", "@every 90s", "@monthly", "TZ=America/New_York 30 1 * * *"}).Draw(t, "schedule")
		schedule, err := cron.ParseStandard(text)
		if err != nil {
			t.Fatal(err)
		}
		now := noon.Add(time.Duration(rapid.Int64Range(0, 1e6).Draw(t, "seconds")) * time.Second)
		from := now.Add(-time.Duration(rapid.Int64Range(0, 4e7).Draw(t, "behind")) * time.Second)
		at, missed, err := due(schedule, from, now)
		if err != nil {
			t.Fatal(err)
		}
		first := schedule.Next(from)
		if (missed == 0) != first.After(now) || (missed == 0) != at.IsZero() {
			t.Fatalf("%d missed, the latest at %v, the first at %v, now %v", missed, at, first, now)
		}
		if missed > 0 && (at.After(now) || at.Before(first) || !schedule.Next(at).After(now)) {
			t.Fatalf("the latest is %v, the one after it %v, now %v", at, schedule.Next(at), now)
		}
	})
}

// TestLives lives a CronJob's life at random, its status kept or lost on the way: each start is made once, never two at once where that is forbidden.
func TestLives(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		policy := rapid.SampledFrom([]change{func(*batchv1.CronJob) {}, forbid, replace}).Draw(t, "policy")
		c, now := cronJob("*/2 * * * *", policy), noon
		var live []*batchv1.Job
		made := map[string]bool{}
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			plan := Decide(View{CronJob: c, Jobs: live}, now)
			for _, gone := range plan.Delete {
				for i, j := range live {
					if j.UID == gone.UID {
						live = append(append([]*batchv1.Job{}, live[:i]...), live[i+1:]...)
						break
					}
				}
			}
			status := plan.Status
			if j := plan.Create; j != nil {
				if made[j.Name] {
					t.Fatalf("%s is started twice", j.Name)
				}
				made[j.Name] = true
				j.UID, j.Status.StartTime = types.UID(j.Name), &metav1.Time{Time: now}
				live = append(live, j)
				status.Active = append(status.Active, v1.ObjectReference{Name: j.Name, UID: j.UID})
				status.LastScheduleTime = &metav1.Time{Time: plan.At}
			}
			c = c.DeepCopy()
			c.Status = status
			running, ended := 0, 0
			for _, j := range live {
				if len(j.Status.Conditions) == 0 {
					running++
				} else {
					ended++
				}
			}
			if c.Spec.ConcurrencyPolicy != batchv1.AllowConcurrent && running > 1 {
				t.Fatalf("%d run at once", running)
			}
			if ended > 4 || len(c.Status.Active) != running {
				t.Fatalf("%d are kept, %d run, %d are listed", ended, running, len(c.Status.Active))
			}
			now = now.Add(time.Duration(rapid.IntRange(1, 300).Draw(t, "seconds")) * time.Second)
			if i := rapid.IntRange(0, 6).Draw(t, "ends"); i < len(live) && len(live[i].Status.Conditions) == 0 {
				end := live[i].DeepCopy()
				end.Status.CompletionTime = &metav1.Time{Time: now}
				end.Status.Conditions = []batchv1.JobCondition{{Type: rapid.SampledFrom([]batchv1.JobConditionType{batchv1.JobComplete, batchv1.JobFailed}).Draw(t, "how"), Status: v1.ConditionTrue}}
				live[i] = end
			}
		}
	})
}
