package control_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"github.com/podvine/podvine/agent/api/apitest"
	"github.com/podvine/podvine/agent/control"
)

// patience bounds each wait on a real API, on a machine that does much else.
const patience = 60 * time.Second

// real is all loops on a real API server, each under the rights of its own identity.
type real struct {
	*testing.T
	kubernetes.Interface
	cluster *apitest.Cluster
}

func startReal(t *testing.T) *real {
	t.Helper()
	cluster := apitest.Start(t)
	as := func(name string) *rest.Config {
		name, groups := control.User(name)
		return cluster.Server.ClientConfig(&user.DefaultInfo{Name: name, Groups: groups})
	}
	c, err := control.New(control.Config{
		ClientFor:   func(name string) kubernetes.Interface { return kubernetes.NewForConfigOrDie(as(name)) },
		MetadataFor: func(name string) metadata.Interface { return metadata.NewForConfigOrDie(as(name)) },
		Informers:   cluster.Server.Informers(), Liveness: allAlive{}, CA: func() []byte { return []byte("PEM") }, Sign: cluster.PKI.SignRequest, ServiceRanges: []string{"10.96.0.0/12"},
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		t.Fatal(err)
	}
	cluster.Server.OnKindsChanged(c.KindsChanged)
	ctx, stop := context.WithCancel(context.Background())
	cluster.Server.Informers().Start(ctx.Done())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
	})
	return &real{t, cluster.Client(t), cluster}
}

func (r *real) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// until waits for a condition; what says what it last saw.
func (r *real) until(what string, condition func() (bool, string)) {
	r.Helper()
	last := ""
	err := wait.PollUntilContextTimeout(r.Context(), 20*time.Millisecond, patience, true, func(context.Context) (ok bool, err error) {
		ok, last = condition()
		return ok, nil
	})
	if err != nil {
		r.Fatalf("%s: %v: %s", what, err, last)
	}
}

func (r *real) addNode(name string) {
	r.Helper()
	amount := v1.ResourceList{v1.ResourceCPU: apiresource.MustParse("4"), v1.ResourceMemory: apiresource.MustParse("4Gi"), v1.ResourcePods: apiresource.MustParse("20")}
	node, err := r.CoreV1().Nodes().Create(r.Context(), &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	r.must(err)
	node.Status.Allocatable, node.Status.Capacity = amount, amount
	node.Status.Conditions = []v1.NodeCondition{{Type: v1.NodeReady, Status: v1.ConditionTrue, Reason: "KubeletReady"}}
	r.until("report node", func() (bool, string) {
		live, err := r.CoreV1().Nodes().Get(r.Context(), name, metav1.GetOptions{})
		if err == nil {
			live.Status = node.Status
			_, err = r.CoreV1().Nodes().UpdateStatus(r.Context(), live, metav1.UpdateOptions{})
		}
		return err == nil, fmt.Sprint(err)
	})
}

// playNode reports bound pods as running and ends deleted ones, as a node's agent does.
func (r *real) playNode(namespace string) string {
	r.Helper()
	pods, err := r.CoreV1().Pods(namespace).List(r.Context(), metav1.ListOptions{})
	if err != nil {
		return err.Error()
	}
	for i := range pods.Items {
		p := &pods.Items[i]
		switch {
		case p.DeletionTimestamp != nil:
			err = r.CoreV1().Pods(namespace).Delete(r.Context(), p.Name, *metav1.NewDeleteOptions(0))
		case p.Spec.NodeName != "" && p.Status.Phase == v1.PodPending:
			p.Status.Phase = v1.PodRunning
			p.Status.Conditions = append(p.Status.Conditions, v1.PodCondition{Type: v1.PodReady, Status: v1.ConditionTrue, LastTransitionTime: metav1.Now()})
			_, err = r.CoreV1().Pods(namespace).UpdateStatus(r.Context(), p, metav1.UpdateOptions{})
		}
		if err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
			return err.Error()
		}
	}
	return fmt.Sprintf("%d pods", len(pods.Items))
}

func (r *real) rolledOut(namespace string, image string) {
	r.Helper()
	r.until("roll out "+image, func() (bool, string) {
		said := r.playNode(namespace)
		d, err := r.AppsV1().Deployments(namespace).Get(r.Context(), "web", metav1.GetOptions{})
		if err != nil {
			return false, err.Error()
		}
		s := d.Status
		done := s.ObservedGeneration == d.Generation && s.UpdatedReplicas == 3 && s.Replicas == 3 && s.AvailableReplicas == 3
		return done && d.Spec.Template.Spec.Containers[0].Image == image, fmt.Sprintf("%s, status %+v", said, s)
	})
}

// TestOnARealAPI goes the whole way under Kubernetes' bootstrap roles: a namespace is furnished, a Deployment
// becomes pods on a node, rolls out and back, is collected when it is deleted, and the namespace ends.
func TestOnARealAPI(t *testing.T) {
	r := startReal(t)
	ctx := t.Context()
	r.addNode("n1")
	_, err := r.CoreV1().Namespaces().Create(ctx, &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}, metav1.CreateOptions{})
	r.must(err)
	r.until("furnish namespace", func() (bool, string) {
		_, accountErr := r.CoreV1().ServiceAccounts("shop").Get(ctx, "default", metav1.GetOptions{})
		_, mapErr := r.CoreV1().ConfigMaps("shop").Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
		return accountErr == nil && mapErr == nil, fmt.Sprint(accountErr, mapErr)
	})
	app, three := map[string]string{"app": "web"}, int32(3)
	_, err = r.AppsV1().Deployments("shop").Create(ctx, &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: appsv1.DeploymentSpec{Replicas: &three, Selector: &metav1.LabelSelector{MatchLabels: app}, Template: v1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: app}, Spec: v1.PodSpec{Containers: []v1.Container{{Name: "c", Image: "v1"}}}}}}, metav1.CreateOptions{})
	r.must(err)
	r.rolledOut("shop", "v1")
	for _, image := range []string{"v2", "v1"} {
		patch := fmt.Appendf(nil, `{"spec":{"template":{"spec":{"containers":[{"name":"c","image":%q}]}}}}`, image)
		_, err = r.AppsV1().Deployments("shop").Patch(ctx, "web", types.StrategicMergePatchType, patch, metav1.PatchOptions{})
		r.must(err)
		r.rolledOut("shop", image)
	}
	d, err := r.AppsV1().Deployments("shop").Get(ctx, "web", metav1.GetOptions{})
	r.must(err)
	if got := d.Annotations["deployment.kubernetes.io/revision"]; got != "3" {
		t.Errorf("revision %s after a rollout and its undoing, want 3", got)
	}
	node, err := r.CoreV1().Nodes().Get(ctx, "n1", metav1.GetOptions{})
	r.must(err)
	if node.Spec.PodCIDR != "10.244.0.0/24" || len(node.Spec.PodCIDRs) != 1 {
		t.Errorf("node has blocks %v", node.Spec.PodCIDRs)
	}
	r.counts(ctx)
	r.checksPolicies(ctx)
	r.certifies(ctx)
	r.keepsOthers(ctx)
	r.guards(ctx)
	r.runsJobs(ctx)
	r.collects(ctx)
	r.ends(ctx)
}

// counts has a quota count what is there already, of a kind that it knows by its name only too, and give back what goes.
func (r *real) counts(ctx context.Context) {
	r.Helper()
	_, err := r.CoreV1().ResourceQuotas("shop").Create(ctx, &v1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "q"}, Spec: v1.ResourceQuotaSpec{
		Hard: v1.ResourceList{"pods": apiresource.MustParse("10"), "count/deployments.apps": apiresource.MustParse("2")}}}, metav1.CreateOptions{})
	r.must(err)
	used := func(pods, deployments int64) func() (bool, string) {
		return func() (bool, string) {
			r.playNode("shop")
			q, err := r.CoreV1().ResourceQuotas("shop").Get(ctx, "q", metav1.GetOptions{})
			r.must(err)
			p, d := q.Status.Used["pods"], q.Status.Used["count/deployments.apps"]
			return p.Value() == pods && d.Value() == deployments && len(q.Status.Hard) == 2, fmt.Sprintf("%+v", q.Status)
		}
	}
	r.until("count pods and deployments", used(3, 1))
	extra := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "extra"}, Spec: appsv1.DeploymentSpec{Replicas: new(int32),
		Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "extra"}}, Template: v1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "extra"}}, Spec: v1.PodSpec{Containers: []v1.Container{{Name: "c", Image: "i"}}}}}}
	_, err = r.AppsV1().Deployments("shop").Create(ctx, extra, metav1.CreateOptions{})
	r.must(err)
	r.until("charge a deployment", used(3, 2))
	extra.Name = "more"
	if _, err = r.AppsV1().Deployments("shop").Create(ctx, extra, metav1.CreateOptions{}); !apierrors.IsForbidden(err) {
		r.Errorf("a deployment too many: %v", err)
	}
	r.must(r.AppsV1().Deployments("shop").Delete(ctx, "extra", metav1.DeleteOptions{}))
	r.until("give back a deployment", used(3, 1))
	r.must(r.CoreV1().ResourceQuotas("shop").Delete(ctx, "q", metav1.DeleteOptions{}))
}

// checksPolicies has a policy tell of a field that its objects do not have.
func (r *real) checksPolicies(ctx context.Context) {
	r.Helper()
	policies := r.AdmissionregistrationV1().ValidatingAdmissionPolicies()
	_, err := policies.Create(ctx, &admissionregistrationv1.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: "odd"},
		Spec: admissionregistrationv1.ValidatingAdmissionPolicySpec{
			Validations: []admissionregistrationv1.Validation{{Expression: "object.spec.replicaz < 5"}},
			MatchConstraints: &admissionregistrationv1.MatchResources{ResourceRules: []admissionregistrationv1.NamedRuleWithOperations{{
				RuleWithOperations: admissionregistrationv1.RuleWithOperations{Operations: []admissionregistrationv1.OperationType{"CREATE"},
					Rule: admissionregistrationv1.Rule{APIGroups: []string{"apps"}, APIVersions: []string{"v1"}, Resources: []string{"deployments"}}}}}}}}, metav1.CreateOptions{})
	r.must(err)
	r.until("check a policy", func() (bool, string) {
		p, err := policies.Get(ctx, "odd", metav1.GetOptions{})
		r.must(err)
		checked := p.Status.ObservedGeneration == 1 && p.Status.TypeChecking != nil && len(p.Status.TypeChecking.ExpressionWarnings) == 1
		return checked && strings.Contains(p.Status.TypeChecking.ExpressionWarnings[0].Warning, "undefined field 'replicaz'"), fmt.Sprintf("%+v", p.Status)
	})
	r.must(policies.Delete(ctx, "odd", metav1.DeleteOptions{}))
}

// keepsOthers has every other kind of workload come up, under the rights of its loop, and go again.
func (r *real) keepsOthers(ctx context.Context) {
	r.Helper()
	app := map[string]string{"app": "other"}
	selector, two, now := &metav1.LabelSelector{MatchLabels: app}, int32(2), int64(0)
	template := v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: app},
		Spec: v1.PodSpec{TerminationGracePeriodSeconds: &now, Containers: []v1.Container{{Name: "c", Image: "v1"}}}}
	meta := metav1.ObjectMeta{Name: "other"}
	_, err := r.AppsV1().StatefulSets("shop").Create(ctx, &appsv1.StatefulSet{ObjectMeta: meta,
		Spec: appsv1.StatefulSetSpec{Replicas: &two, Selector: selector, Template: template, ServiceName: "other"}}, metav1.CreateOptions{})
	r.must(err)
	r.until("keep a stateful set", func() (bool, string) {
		said := r.playNode("shop")
		set, err := r.AppsV1().StatefulSets("shop").Get(ctx, "other", metav1.GetOptions{})
		r.must(err)
		return set.Status.AvailableReplicas == 2 && set.Status.CurrentRevision == set.Status.UpdateRevision, fmt.Sprintf("%s, status %+v", said, set.Status)
	})
	background := metav1.DeletePropagationBackground
	options := metav1.DeleteOptions{PropagationPolicy: &background}
	r.must(r.AppsV1().StatefulSets("shop").Delete(ctx, "other", options))
	_, err = r.CoreV1().PersistentVolumeClaims("shop").Create(ctx, &v1.PersistentVolumeClaim{ObjectMeta: meta, Spec: v1.PersistentVolumeClaimSpec{
		AccessModes: []v1.PersistentVolumeAccessMode{v1.ReadWriteOnce},
		Resources:   v1.VolumeResourceRequirements{Requests: v1.ResourceList{v1.ResourceStorage: apiresource.MustParse("1Gi")}}}}, metav1.CreateOptions{})
	r.must(err)
	r.must(r.CoreV1().PersistentVolumeClaims("shop").Delete(ctx, "other", metav1.DeleteOptions{}))
	r.until("let an unused claim go", func() (bool, string) {
		_, err := r.CoreV1().PersistentVolumeClaims("shop").Get(ctx, "other", metav1.GetOptions{})
		return apierrors.IsNotFound(err), fmt.Sprint(err)
	})
	r.keepsDaemons(ctx, meta, selector, template)
	r.keepsController(ctx, meta, template)
}

func (r *real) keepsDaemons(ctx context.Context, meta metav1.ObjectMeta, selector *metav1.LabelSelector, template v1.PodTemplateSpec) {
	r.Helper()
	_, err := r.AppsV1().DaemonSets("shop").Create(ctx, &appsv1.DaemonSet{ObjectMeta: meta, Spec: appsv1.DaemonSetSpec{Selector: selector, Template: template}}, metav1.CreateOptions{})
	r.must(err)
	r.until("keep a daemon set", func() (bool, string) {
		said := r.playNode("shop")
		set, err := r.AppsV1().DaemonSets("shop").Get(ctx, "other", metav1.GetOptions{})
		r.must(err)
		return set.Status.NumberAvailable == 1 && set.Status.UpdatedNumberScheduled == 1, fmt.Sprintf("%s, status %+v", said, set.Status)
	})
	background := metav1.DeletePropagationBackground
	r.must(r.AppsV1().DaemonSets("shop").Delete(ctx, "other", metav1.DeleteOptions{PropagationPolicy: &background}))
}

func (r *real) keepsController(ctx context.Context, meta metav1.ObjectMeta, template v1.PodTemplateSpec) {
	r.Helper()
	_, err := r.CoreV1().ReplicationControllers("shop").Create(ctx, &v1.ReplicationController{ObjectMeta: meta,
		Spec: v1.ReplicationControllerSpec{Template: &template}}, metav1.CreateOptions{})
	r.must(err)
	r.until("keep a replication controller", func() (bool, string) {
		said := r.playNode("shop")
		rc, err := r.CoreV1().ReplicationControllers("shop").Get(ctx, "other", metav1.GetOptions{})
		r.must(err)
		return rc.Status.AvailableReplicas == 1, fmt.Sprintf("%s, status %+v", said, rc.Status)
	})
	background := metav1.DeletePropagationBackground
	r.must(r.CoreV1().ReplicationControllers("shop").Delete(ctx, "other", metav1.DeleteOptions{PropagationPolicy: &background}))
}

func (r *real) collects(ctx context.Context) {
	r.Helper()
	foreground := metav1.DeletePropagationForeground
	r.must(r.AppsV1().Deployments("shop").Delete(ctx, "web", metav1.DeleteOptions{PropagationPolicy: &foreground}))
	r.until("collect", func() (bool, string) {
		said := r.playNode("shop")
		_, err := r.AppsV1().Deployments("shop").Get(ctx, "web", metav1.GetOptions{})
		sets, setErr := r.AppsV1().ReplicaSets("shop").List(ctx, metav1.ListOptions{})
		return apierrors.IsNotFound(err) && setErr == nil && len(sets.Items) == 0 && said == "0 pods", fmt.Sprint(err, setErr, said)
	})
}

func (r *real) ends(ctx context.Context) {
	r.Helper()
	r.must(r.CoreV1().Namespaces().Delete(ctx, "shop", metav1.DeleteOptions{}))
	r.until("end namespace", func() (bool, string) {
		live, err := r.CoreV1().Namespaces().Get(ctx, "shop", metav1.GetOptions{})
		if err != nil {
			return apierrors.IsNotFound(err), err.Error()
		}
		return false, fmt.Sprintf("%+v", live.Status)
	})
}

// TestSchedulesOnARealAPI: a pod that fits nowhere says why; when a node comes, it goes there.
func TestSchedulesOnARealAPI(t *testing.T) {
	r := startReal(t)
	ctx := t.Context()
	r.until("create pod", func() (bool, string) { // once its account is there
		_, err := r.CoreV1().Pods("default").Create(ctx, &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"},
			Spec: v1.PodSpec{Containers: []v1.Container{{Name: "c", Image: "i"}}}}, metav1.CreateOptions{})
		return err == nil, fmt.Sprint(err)
	})
	pod := func() *v1.Pod {
		p, err := r.CoreV1().Pods("default").Get(ctx, "p", metav1.GetOptions{})
		r.must(err)
		return p
	}
	r.until("explain", func() (bool, string) {
		p := pod()
		for _, c := range p.Status.Conditions {
			if c.Type == v1.PodScheduled && c.Reason == v1.PodReasonUnschedulable && c.Message == "no nodes available to schedule pods" {
				return true, ""
			}
		}
		return false, fmt.Sprintf("%+v", p.Status)
	})
	r.addNode("n1")
	r.until("bind", func() (bool, string) { p := pod(); return p.Spec.NodeName == "n1", fmt.Sprintf("%+v", p.Status) })
	r.until("tell", func() (bool, string) {
		events, err := r.EventsV1().Events("default").List(ctx, metav1.ListOptions{})
		r.must(err)
		seen := map[string]bool{}
		for _, e := range events.Items {
			seen[e.Reason] = true
		}
		return seen["Scheduled"] && seen["FailedScheduling"], fmt.Sprint(seen)
	})
}
