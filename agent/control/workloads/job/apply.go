package job

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"

	batchv1 "k8s.io/api/batch/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/podvine/podvine/agent/control/workloads/dependents"
	"github.com/podvine/podvine/agent/control/workloads/pods"
)

// indexVariable tells a pod's containers their index.
const indexVariable = "JOB_COMPLETION_INDEX"

// apply carries the plan out. Pods lose their finalizer last, and only when the status that counts them is written.
func (l *Loop) apply(ctx context.Context, j *batchv1.Job, plan Plan) error {
	writer := dependents.Pods{Client: l.Client, Recorder: l.Recorder, Pending: l.Pending, Kind: kind()}
	err := writer.Claim(ctx, j, plan.Adopt, plan.Release, func() (metav1.Object, error) {
		return l.Client.BatchV1().Jobs(j.Namespace).Get(ctx, j.Name, metav1.GetOptions{})
	})
	if err != nil {
		return err
	}
	err = errors.Join(writer.Delete(ctx, j, plan.Delete),
		writer.Create(ctx, j, len(plan.Create), func(i int) *v1.Pod { return newPod(j, plan.Create[i]) }))
	if err != nil {
		return err
	}
	if !equality.Semantic.DeepEqual(j.Status, plan.Status) {
		next := j.DeepCopy()
		next.Status = plan.Status
		if _, err := l.Client.BatchV1().Jobs(j.Namespace).UpdateStatus(ctx, next, metav1.UpdateOptions{}); err != nil {
			return dependents.Gone(err)
		}
	}
	for _, e := range plan.Events {
		l.Recorder.Event(j, e.Type, e.Reason, e.Message)
	}
	errs := make([]error, len(plan.Free))
	dependents.Parallel(len(plan.Free), func(i int) { errs[i] = free(ctx, l.Client, plan.Free[i]) })
	return errors.Join(errs...)
}

// free takes the finalizer from a pod, if it is still the one that was looked at.
func free(ctx context.Context, client kubernetes.Interface, p *v1.Pod) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": p.UID, "$deleteFromPrimitiveList/finalizers": []string{batchv1.JobTrackingFinalizer}}})
	if err != nil {
		return fmt.Errorf("encode finalizers of pod %s/%s: %w", p.Namespace, p.Name, err)
	}
	_, err = client.CoreV1().Pods(p.Namespace).Patch(ctx, p.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	return dependents.Released(err)
}

// newPod makes a pod of the job, for an index or none.
func newPod(j *batchv1.Job, c Creation) *v1.Pod {
	pod := pods.FromTemplate(&j.Spec.Template, j, kind())
	pod.Finalizers = append(slices.DeleteFunc(pod.Finalizers, func(f string) bool { return f == batchv1.JobTrackingFinalizer }), batchv1.JobTrackingFinalizer)
	if c.Index == noIndex {
		return pod
	}
	index := strconv.Itoa(c.Index)
	metav1.SetMetaDataAnnotation(&pod.ObjectMeta, batchv1.JobCompletionIndexAnnotation, index)
	metav1.SetMetaDataLabel(&pod.ObjectMeta, batchv1.JobCompletionIndexAnnotation, index)
	if j.Spec.BackoffLimitPerIndex != nil {
		metav1.SetMetaDataAnnotation(&pod.ObjectMeta, batchv1.JobIndexFailureCountAnnotation, strconv.Itoa(c.Failures))
		if c.Ignored > 0 {
			metav1.SetMetaDataAnnotation(&pod.ObjectMeta, batchv1.JobIndexIgnoredFailureCountAnnotation, strconv.Itoa(c.Ignored))
		}
	}
	pod.GenerateName = fmt.Sprintf("%s-%s-", j.Name, index)
	pod.Spec.Hostname = fmt.Sprintf("%s-%s", j.Name, index)
	for _, list := range [][]v1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			setIndex(&list[i])
		}
	}
	return pod
}

// setIndex gives a container its index by way of the annotation, unless it sets the variable itself.
func setIndex(c *v1.Container) {
	if slices.ContainsFunc(c.Env, func(e v1.EnvVar) bool { return e.Name == indexVariable }) {
		return
	}
	path := fmt.Sprintf("metadata.labels['%s']", batchv1.JobCompletionIndexAnnotation)
	c.Env = append(c.Env, v1.EnvVar{Name: indexVariable, ValueFrom: &v1.EnvVarSource{FieldRef: &v1.ObjectFieldSelector{FieldPath: path}}})
}
