package job

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"github.com/podvine/podvine/agent/control/loop/looptest"
	"github.com/podvine/podvine/agent/phase"
)

var start = time.Unix(1_000_000, 0)

func testJob(parallel, completions int32, change ...func(*batchv1.Job)) *batchv1.Job {
	app, limit := map[string]string{"app": "j"}, int32(6)
	j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "j", UID: "job"},
		Spec: batchv1.JobSpec{Parallelism: &parallel, Completions: &completions, BackoffLimit: &limit, Selector: &metav1.LabelSelector{MatchLabels: app},
			Template: v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: app}, Spec: v1.PodSpec{RestartPolicy: v1.RestartPolicyNever,
				Containers: []v1.Container{{Name: "c"}}}}}}
	for _, f := range change {
		f(j)
	}
	return j
}

func withIndexes(j *batchv1.Job) {
	mode := batchv1.IndexedCompletion
	j.Spec.CompletionMode = &mode
}
func perIndex(limit int32) func(*batchv1.Job) {
	return func(j *batchv1.Job) {
		withIndexes(j)
		j.Spec.BackoffLimitPerIndex = &limit
	}
}
func backoff(limit int32) func(*batchv1.Job) {
	return func(j *batchv1.Job) { j.Spec.BackoffLimit = &limit }
}
func suspended(j *batchv1.Job)  { yes := true; j.Spec.Suspend = &yes }
func queue(j *batchv1.Job)      { j.Spec.Completions = nil }
func failedOnly(j *batchv1.Job) { p := batchv1.Failed; j.Spec.PodReplacementPolicy = &p }
func managed(j *batchv1.Job)    { m := "example.com/c"; j.Spec.ManagedBy = &m }
func deadline(seconds int64) func(*batchv1.Job) {
	return func(j *batchv1.Job) {
		j.Spec.ActiveDeadlineSeconds = &seconds
		j.Status.StartTime = &metav1.Time{Time: start.Add(-time.Minute)}
	}
}
func onCode(action batchv1.PodFailurePolicyAction, code int32) func(*batchv1.Job) {
	return func(j *batchv1.Job) {
		j.Spec.PodFailurePolicy = &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{{Action: action,
			OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{Operator: batchv1.PodFailurePolicyOnExitCodesOpIn, Values: []int32{code}}}}}
	}
}
func enough(indexes string, count int32) func(*batchv1.Job) {
	return func(j *batchv1.Job) {
		withIndexes(j)
		j.Spec.SuccessPolicy = &batchv1.SuccessPolicy{Rules: []batchv1.SuccessPolicyRule{{SucceededIndexes: &indexes, SucceededCount: &count}}}
	}
}

// pod makes the n-th pod; words are those of looptest, "free" for one without finalizer and "code3" for its exit code.
// It ended a long time ago unless it ended "now".
func pod(j *batchv1.Job, name string, index int, states []string, deleted map[types.UID]bool) *v1.Pod {
	p := newPod(j, Creation{Index: index})
	p.Name, p.UID, p.Spec.NodeName, p.Status.Phase, p.CreationTimestamp = name, types.UID(name), "n", v1.PodRunning, metav1.NewTime(start.Add(-time.Hour))
	looptest.Put(p, states, deleted, start.Add(-time.Hour))
	end := start.Add(-time.Hour)
	for _, state := range states {
		var code int32
		switch _, err := fmt.Sscanf(state, "code%d", &code); {
		case state == "free":
			p.Finalizers = nil
		case state == "second":
			p.Annotations[batchv1.JobIndexFailureCountAnnotation] = "1"
		case state == "now":
			end = start
		case err == nil:
			p.Status.ContainerStatuses = []v1.ContainerStatus{{Name: "c", State: v1.ContainerState{Terminated: &v1.ContainerStateTerminated{ExitCode: code}}}}
		}
	}
	if len(p.Status.ContainerStatuses) == 0 && (p.Status.Phase == v1.PodFailed || p.Status.Phase == v1.PodSucceeded) {
		p.Status.ContainerStatuses = []v1.ContainerStatus{{Name: "c", State: v1.ContainerState{Terminated: &v1.ContainerStateTerminated{ExitCode: 1}}}}
	}
	for i := range p.Status.ContainerStatuses {
		p.Status.ContainerStatuses[i].State.Terminated.FinishedAt = metav1.NewTime(end)
	}
	return p
}

// world makes a view from words: "a:ready b:failed,free 2:ended": a number is an index.
func world(j *batchv1.Job, words string) View {
	view := View{Job: j, Deleted: map[types.UID]bool{}}
	for i, word := range strings.Fields(words) {
		name, states, _ := strings.Cut(word, ":")
		index := noIndex
		if _, err := fmt.Sscan(name, &index); err == nil {
			name = fmt.Sprintf("p%d-%d", index, i)
		}
		view.Pods = append(view.Pods, pod(j, name, index, strings.Split(states, ","), view.Deleted))
	}
	return view
}

func said(plan Plan) string {
	out := append(looptest.Said("adopt", plan.Adopt), looptest.Said("release", plan.Release)...)
	out = append(out, looptest.Said("delete", plan.Delete)...)
	for _, c := range plan.Create {
		out = append(out, strings.TrimSuffix(fmt.Sprint("create ", c.Index), " -1"))
	}
	out = append(out, looptest.Said("free", plan.Free)...)
	for _, c := range plan.Status.Conditions {
		out = append(out, fmt.Sprintf("%s=%s %s", c.Type, c.Status, c.Reason))
	}
	if plan.Again > 0 {
		out = append(out, "again "+plan.Again.String())
	}
	return strings.Join(out, ", ")
}

func TestDecide(t *testing.T) {
	for _, test := range []struct {
		name, pods, want string
		job              *batchv1.Job
	}{
		{name: "as many as may run", job: testJob(2, 3), want: "create, create"},
		{name: "and no more", job: testJob(2, 3), pods: "a: b:"},
		{name: "no more than are needed", job: testJob(5, 2), want: "create, create"},
		{name: "too many", job: testJob(1, 3), pods: "a:ready b:waiting", want: "delete b"},
		{name: "one succeeded", job: testJob(1, 2), pods: "a:ended", want: "create, free a"},
		{name: "all succeeded", job: testJob(1, 1), pods: "a:ended", want: "free a, SuccessCriteriaMet=True CompletionsReached"},
		{name: "one failed", job: testJob(1, 1), pods: "a:failed", want: "create, free a"},
		{name: "one failed just now", job: testJob(1, 1), pods: "a:failed,now", want: "free a, again 10s"},
		{name: "three failed just now", job: testJob(1, 1), pods: "a:failed,now b:failed,now c:failed,now", want: "free a, free b, free c, again 40s"},
		{name: "a failure too many", job: testJob(2, 2, backoff(0)), pods: "a:failed b:", want: "delete b, free a, FailureTarget=True BackoffLimitExceeded"},
		{name: "a queue that is worked off", job: testJob(2, 1, queue), pods: "a:ended b:", want: "free a"},
		{name: "and empty", job: testJob(2, 1, queue), pods: "a:ended b:ended", want: "free a, free b, SuccessCriteriaMet=True CompletionsReached"},
		{name: "one that leaves is replaced", job: testJob(1, 1), pods: "a:leaving", want: "create, free a"},
		{name: "unless only failed ones are", job: testJob(1, 1, failedOnly), pods: "a:leaving"},
		{name: "suspended", job: testJob(2, 2, suspended), pods: "a: b:", want: "delete a, delete b, Suspended=True JobSuspended"},
		{name: "managed by another", job: testJob(2, 2, managed)},
		{name: "before its deadline", job: testJob(1, 1, deadline(90)), pods: "a:", want: "again 30s"},
		{name: "after its deadline", job: testJob(1, 1, deadline(60)), pods: "a:", want: "delete a, FailureTarget=True DeadlineExceeded"},
		{name: "adopts and releases", job: testJob(2, 2), pods: "a:orphan b:relabelled", want: "adopt a, release b, create"},

		{name: "indexes from the lowest", job: testJob(2, 4, withIndexes), pods: "0:ended", want: "create 1, create 2, free p0-0"},
		{name: "an index has one pod", job: testJob(3, 3, withIndexes), pods: "0: 1: 1:", want: "delete p1-2, create 2"},
		{name: "an index that is no more", job: testJob(1, 1, withIndexes), pods: "0: 7:", want: "delete p7-1"},
		{name: "all indexes", job: testJob(2, 2, withIndexes), pods: "0:ended 1:ended", want: "free p0-0, free p1-1, SuccessCriteriaMet=True CompletionsReached, Complete=True CompletionsReached"},
		{name: "an index that failed waits alone", job: testJob(2, 3, perIndex(1)), pods: "0:failed,now", want: "create 1, create 2, again 10s"},
		{name: "an index that failed is remembered", job: testJob(1, 1, perIndex(1)), pods: "0:failed", want: "create 0"},
		{name: "until its next attempt is there", job: testJob(1, 1, perIndex(1)), pods: "0:failed 0:second", want: "free p0-0"},
		{name: "an index that failed too often", job: testJob(1, 2, perIndex(0)), pods: "0:failed", want: "create 1, free p0-0"},
		{name: "all done, some failed", job: testJob(1, 2, perIndex(0)), pods: "0:failed 1:ended", want: "free p0-0, free p1-1, FailureTarget=True FailedIndexes"},
		{name: "enough succeeded", job: testJob(3, 3, enough("0-1", 1)), pods: "1:ended 2:", want: "delete p2-1, free p1-0, SuccessCriteriaMet=True SuccessPolicy"},

		{name: "a failure that ends the job", job: testJob(1, 1, onCode(batchv1.PodFailurePolicyActionFailJob, 3)), pods: "a:failed,code3", want: "free a, FailureTarget=True PodFailurePolicy"},
		{name: "another does not", job: testJob(1, 1, onCode(batchv1.PodFailurePolicyActionFailJob, 3)), pods: "a:failed,code4", want: "create, free a"},
		{name: "a failure that does not count", job: testJob(1, 1, backoff(0), onCode(batchv1.PodFailurePolicyActionIgnore, 3)), pods: "a:failed,code3", want: "create, free a"},
		{name: "a failure that ends its index", job: testJob(1, 2, perIndex(9), onCode(batchv1.PodFailurePolicyActionFailIndex, 3)), pods: "0:failed,code3", want: "create 1, free p0-0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := said(Decide(world(test.job, test.pods), start)); got != test.want {
				t.Errorf("does %q, want %q", got, test.want)
			}
		})
	}
}

func TestIndexesAsText(t *testing.T) {
	for text, want := range map[string]string{"": "", "0": "0", "0,1": "0,1", "0-2": "0-2", "4,0-1": "0,1,4", "2-9": "2-4", "x,1": "1"} {
		if got := parseIndexes(text, 5).String(); got != want {
			t.Errorf("%q is read as %q, want %q", text, got, want)
		}
	}
}

// TestRuns lives a job's life at random: never more pods than may run, never two of an index, each pod counted once, and
// an end.
func TestRuns(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		parallel, completions := rapid.Int32Range(1, 4).Draw(t, "parallelism"), rapid.Int32Range(1, 6).Draw(t, "completions")
		kindOf := rapid.SampledFrom([]func(*batchv1.Job){func(*batchv1.Job) {}, withIndexes, perIndex(1), failedOnly, enough("0-1", 1)}).Draw(t, "kind")
		j, now := testJob(parallel, completions, kindOf), start
		j.Spec.BackoffLimit = ptrTo(rapid.Int32Range(0, 6).Draw(t, "backoffLimit"))
		var all []*v1.Pod
		ends, resized := map[types.UID]v1.PodPhase{}, false
		var ever []*v1.Pod
		for step := range 300 {
			plan := Decide(View{Job: j, Pods: all}, now)
			var made []*v1.Pod
			j, made = enact(j, plan, len(ever), now)
			all, ever = append(all, made...), append(ever, made...)
			check(t, j, all)
			if !resized {
				tries(t, j, ever)
			}
			if finished(&j.Status) {
				counted(t, j, ends, resized)
				return
			}
			if step > 20 || rapid.Bool().Draw(t, "moves") {
				move(t, all, ends, now)
			}
			if step < 100 {
				resized = meddle(t, j, plan) || resized
			} else {
				j.Spec.Suspend = nil
			}
			all = slices.DeleteFunc(all, func(p *v1.Pod) bool { // by its deletion, or by whoever tidies up
				return len(p.Finalizers) == 0 && phase.Ended(p.Status.Phase) && (p.DeletionTimestamp != nil || rapid.Bool().Draw(t, "removed"))
			})
			now = now.Add(plan.Again + time.Second)
		}
		t.Fatalf("no end after 300 steps: %+v", j.Status)
	})
}

// enact carries a plan out. It returns the job with its status, and the pods that were made, numbered after those before.
func enact(j *batchv1.Job, plan Plan, before int, now time.Time) (next *batchv1.Job, made []*v1.Pod) {
	for _, p := range plan.Delete {
		p.DeletionTimestamp = &metav1.Time{Time: now}
	}
	for i, c := range plan.Create {
		p := newPod(j, c)
		p.Name = fmt.Sprint("p", before+i)
		p.UID, p.Status.Phase, p.CreationTimestamp = types.UID(p.Name), v1.PodPending, metav1.NewTime(now)
		made = append(made, p)
	}
	next = j.DeepCopy()
	next.Status = plan.Status
	for _, p := range plan.Free {
		p.Finalizers = nil
	}
	return next, made
}

// TestIndexesFailAsOftenAsTheyMay: an index that does not succeed fails once more than its limit, however soon its pods are gone.
func TestIndexesFailAsOftenAsTheyMay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit, completions := rapid.Int32Range(0, 3).Draw(t, "limit"), rapid.Int32Range(1, 4).Draw(t, "completions")
		j, now := testJob(rapid.Int32Range(1, 4).Draw(t, "parallelism"), completions, perIndex(limit), backoff(math.MaxInt32)), start
		var all []*v1.Pod
		failed, well, count := map[int]int32{}, map[int]bool{}, 0
		for range 300 {
			plan := Decide(View{Job: j, Pods: all}, now)
			var made []*v1.Pod
			j, made = enact(j, plan, count, now)
			all, count = append(all, made...), count+len(made)
			check(t, j, all)
			if finished(&j.Status) {
				for n := range int(completions) {
					if !well[n] && failed[n] != limit+1 {
						t.Fatalf("index %d failed %d times, of %d it may: %+v", n, failed[n], limit+1, j.Status)
					}
				}
				return
			}
			ends := map[types.UID]v1.PodPhase{}
			move(t, all, ends, now)
			for _, p := range all {
				switch ends[p.UID] {
				case v1.PodFailed:
					failed[indexOf(p)]++
				case v1.PodSucceeded:
					well[indexOf(p)] = true
				}
			}
			all = slices.DeleteFunc(all, func(p *v1.Pod) bool { return len(p.Finalizers) == 0 && phase.Ended(p.Status.Phase) })
			now = now.Add(plan.Again + time.Second)
		}
		t.Fatalf("no end after 300 steps: %+v", j.Status)
	})
}

// meddle suspends or resumes the job, or changes how large an indexed one is.
func meddle(t *rapid.T, j *batchv1.Job, plan Plan) (resized bool) {
	switch rapid.IntRange(0, 12).Draw(t, "meddles") {
	case 0:
		j.Spec.Suspend = ptrTo(j.Spec.Suspend == nil || !*j.Spec.Suspend)
	case 1:
		if indexed := j.Spec.CompletionMode != nil; indexed && j.Spec.SuccessPolicy == nil && !ending(&plan.Status) {
			size := rapid.Int32Range(1, 6).Draw(t, "size")
			j.Spec.Parallelism, j.Spec.Completions = &size, ptrTo(size)
			return true
		}
	}
	return false
}

// tries: an index fails once more than its limit at most, whichever of its pods are gone.
func tries(t *rapid.T, j *batchv1.Job, ever []*v1.Pod) {
	if j.Spec.BackoffLimitPerIndex == nil {
		return
	}
	failed := map[int]int32{}
	for _, p := range ever {
		if p.Status.Phase == v1.PodFailed && p.DeletionTimestamp == nil {
			if failed[indexOf(p)]++; failed[indexOf(p)] > *j.Spec.BackoffLimitPerIndex+1 {
				t.Fatalf("index %d failed %d times", indexOf(p), failed[indexOf(p)])
			}
		}
	}
}

func ptrTo[T any](v T) *T { return &v }

// move brings the first pod that has not ended to an end.
func move(t *rapid.T, all []*v1.Pod, ends map[types.UID]v1.PodPhase, now time.Time) {
	for _, p := range all {
		if phase.Ended(p.Status.Phase) {
			continue
		}
		p.Status.Phase = rapid.SampledFrom([]v1.PodPhase{v1.PodSucceeded, v1.PodSucceeded, v1.PodFailed}).Draw(t, "end")
		if p.DeletionTimestamp != nil {
			p.Status.Phase = v1.PodFailed
		}
		p.Status.ContainerStatuses = []v1.ContainerStatus{{Name: "c", State: v1.ContainerState{Terminated: &v1.ContainerStateTerminated{FinishedAt: metav1.NewTime(now)}}}}
		ends[p.UID] = p.Status.Phase
		return
	}
}

func check(t *rapid.T, j *batchv1.Job, all []*v1.Pod) {
	active, indexes := 0, map[int]bool{}
	for _, p := range all {
		if phase.Ended(p.Status.Phase) || p.DeletionTimestamp != nil {
			continue
		}
		active++
		if n := indexOf(p); n != noIndex && indexes[n] {
			t.Fatalf("index %d has two pods", n)
		} else {
			indexes[n] = n != noIndex
		}
	}
	if active > int(*j.Spec.Parallelism) {
		t.Fatalf("%d pods are active of at most %d", active, *j.Spec.Parallelism)
	}
}

// counted: a finished job has counted each failure once, and succeeded only as often as pods did.
// One that was made smaller counts no pods of indexes that it lost.
func counted(t *rapid.T, j *batchv1.Job, ends map[types.UID]v1.PodPhase, resized bool) {
	var well, badly int32
	for _, phase := range ends {
		if phase == v1.PodSucceeded {
			well++
		} else {
			badly++
		}
	}
	if j.Status.Failed > badly || j.Status.Failed < badly && !resized || j.Status.Succeeded > well {
		t.Fatalf("counted %d failed and %d succeeded, were %d and %d", j.Status.Failed, j.Status.Succeeded, badly, well)
	}
	if hasCondition(&j.Status, batchv1.JobComplete) && j.Spec.SuccessPolicy == nil && j.Status.Succeeded < *j.Spec.Completions {
		t.Fatalf("complete with %d of %d", j.Status.Succeeded, *j.Spec.Completions)
	}
}
