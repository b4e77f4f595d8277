package control_test

import (
	"context"
	"fmt"

	batchv1 "k8s.io/api/batch/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// runsJobs runs an indexed job, one pod of which fails first, and one that fails as a whole. Nodes are played: each pod is
// reported as ended, badly where bad says so.
func (r *real) runsJobs(ctx context.Context) {
	r.Helper()
	two, none, indexed := int32(2), int32(0), batchv1.IndexedCompletion
	template := v1.PodTemplateSpec{Spec: v1.PodSpec{RestartPolicy: v1.RestartPolicyNever, SchedulerName: "nobody",
		Containers: []v1.Container{{Name: "c", Image: "example.com/app"}}}}
	_, err := r.CoreV1().Namespaces().Create(ctx, &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "jobs"}}, metav1.CreateOptions{})
	r.must(err)
	for _, j := range []*batchv1.Job{
		{ObjectMeta: metav1.ObjectMeta{Name: "good"}, Spec: batchv1.JobSpec{Parallelism: &two, Completions: &two, CompletionMode: &indexed, Template: template}},
		{ObjectMeta: metav1.ObjectMeta{Name: "bad"}, Spec: batchv1.JobSpec{BackoffLimit: &none, Template: template}},
	} {
		r.until("create job", func() (bool, string) {
			_, err := r.BatchV1().Jobs("jobs").Create(ctx, j, metav1.CreateOptions{})
			return err == nil, fmt.Sprint(err)
		})
	}
	r.until("jobs end", func() (bool, string) {
		problem := r.endPods(ctx)
		good, goodErr := r.BatchV1().Jobs("jobs").Get(ctx, "good", metav1.GetOptions{})
		bad, badErr := r.BatchV1().Jobs("jobs").Get(ctx, "bad", metav1.GetOptions{})
		if goodErr != nil || badErr != nil {
			return false, fmt.Sprint(goodErr, badErr)
		}
		ok := holds(good, batchv1.JobComplete) && good.Status.CompletedIndexes == "0,1" && good.Status.Succeeded == 2 &&
			holds(bad, batchv1.JobFailed) && bad.Status.Failed == 1
		return ok, fmt.Sprint(problem, good.Status, bad.Status)
	})
	r.until("no pod keeps the finalizer", func() (bool, string) {
		pods, err := r.CoreV1().Pods("jobs").List(ctx, metav1.ListOptions{})
		if err != nil {
			return false, err.Error()
		}
		for i := range pods.Items {
			if len(pods.Items[i].Finalizers) > 0 {
				return false, pods.Items[i].Name
			}
		}
		return len(pods.Items) == 3, fmt.Sprint(len(pods.Items), " pods")
	})
}

func holds(j *batchv1.Job, t batchv1.JobConditionType) bool {
	for _, c := range j.Status.Conditions {
		if c.Type == t {
			return c.Status == v1.ConditionTrue
		}
	}
	return false
}

// endPods reports pods as ended: those of the job bad as failed.
func (r *real) endPods(ctx context.Context) string {
	pods, err := r.CoreV1().Pods("jobs").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err.Error()
	}
	for i := range pods.Items {
		p := &pods.Items[i]
		if p.Status.Phase == v1.PodSucceeded || p.Status.Phase == v1.PodFailed {
			continue
		}
		p.Status.Phase = v1.PodSucceeded
		if p.Labels[batchv1.JobNameLabel] == "bad" {
			p.Status.Phase = v1.PodFailed
		}
		if _, err := r.CoreV1().Pods("jobs").UpdateStatus(ctx, p, metav1.UpdateOptions{}); err != nil {
			return err.Error()
		}
	}
	return ""
}
