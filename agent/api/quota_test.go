package api_test

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podvine/podvine/agent/api/apitest"
	"github.com/podvine/podvine/agent/api/apitest/kubectl"
)

// No control loop runs here: the test writes what the loop would.
func testQuotas(t *testing.T, c *apitest.Cluster, k *kubectl.Kubectl) {
	const (
		ns, writers, allowed = "quotas", 40, 7
	)
	namespace(t, k, ns)
	client := c.Client(t)
	quota := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "few"}, Spec: corev1.ResourceQuotaSpec{
		Hard: corev1.ResourceList{"secrets": resource.MustParse(fmt.Sprint(allowed)), "requests.storage": resource.MustParse("10Gi")}}}
	made, err := client.CoreV1().ResourceQuotas(ns).Create(t.Context(), quota, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	create := func(name string, dryRun ...string) error {
		_, err := client.CoreV1().Secrets(ns).Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{DryRun: dryRun})
		return err
	}
	made.Status = corev1.ResourceQuotaStatus{Hard: quota.Spec.Hard, Used: corev1.ResourceList{"secrets": resource.MustParse("0"), "requests.storage": resource.MustParse("0")}}
	if _, err := client.CoreV1().ResourceQuotas(ns).UpdateStatus(t.Context(), made, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	apitest.Eventually(t, "the quota is known", func() error {
		_, err := c.Server.Informers().Core().V1().ResourceQuotas().Lister().ResourceQuotas(ns).Get("few")
		return err
	})
	used := func() corev1.ResourceList {
		t.Helper()
		q, err := client.CoreV1().ResourceQuotas(ns).Get(t.Context(), "few", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return q.Status.Used
	}
	t.Run("a dry run is charged to nobody", func(t *testing.T) {
		if err := create("dry", metav1.DryRunAll); err != nil {
			t.Error(err)
		}
		if n := used()["secrets"]; n.Value() != 0 {
			t.Errorf("used %s", n.String())
		}
	})
	t.Run("many writers never pass it", func(t *testing.T) {
		var group sync.WaitGroup
		var done, refused atomic.Int32
		for i := range writers {
			group.Go(func() {
				switch err := create(fmt.Sprintf("s%d", i)); {
				case err == nil:
					done.Add(1)
				case apierrors.IsForbidden(err) && strings.Contains(err.Error(), "exceeded quota: few, requested: secrets=1, used: secrets=7, limited: secrets=7"):
					refused.Add(1)
				default:
					t.Errorf("create: %v", err)
				}
			})
		}
		group.Wait()
		there, err := client.CoreV1().Secrets(ns).List(t.Context(), metav1.ListOptions{})
		if n := used()["secrets"]; err != nil || done.Load() != allowed || refused.Load() != writers-allowed || len(there.Items) != allowed || n.Value() != allowed {
			t.Errorf("%d made, %d refused, %d there, %s used, %v", done.Load(), refused.Load(), len(there.Items), n.String(), err)
		}
	})
	t.Run("what is not created is not charged", func(t *testing.T) {
		if err := client.CoreV1().Secrets(ns).Delete(t.Context(), "nobody", metav1.DeleteOptions{}); !apierrors.IsNotFound(err) {
			t.Error(err)
		}
		q, err := client.CoreV1().ResourceQuotas(ns).Get(t.Context(), "few", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		q.Status.Used["secrets"] = resource.MustParse("3")
		if _, err := client.CoreV1().ResourceQuotas(ns).UpdateStatus(t.Context(), q, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		there, err := client.CoreV1().Secrets(ns).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := create(there.Items[0].Name); !apierrors.IsAlreadyExists(err) {
			t.Errorf("create again: %v", err)
		}
		if n := used()["secrets"]; n.Value() != 3 {
			t.Errorf("used %s", n.String())
		}
	})
	t.Run("growth of an object is charged", func(t *testing.T) { testClaimGrows(t, c, used) })
}

func testClaimGrows(t *testing.T, c *apitest.Cluster, used func() corev1.ResourceList) {
	claims := c.Client(t).CoreV1().PersistentVolumeClaims("quotas")
	claim := func(size string) *corev1.PersistentVolumeClaim {
		return &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "c"}, Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{"storage": resource.MustParse(size)}}}}
	}
	if _, err := claims.Create(t.Context(), claim("11Gi"), metav1.CreateOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("too large a claim: %v", err)
	}
	if _, err := claims.Create(t.Context(), claim("4Gi"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if n := used()["requests.storage"]; n.String() != "4Gi" {
		t.Errorf("used %s", n.String())
	}
}

const limitRange = `
apiVersion: v1
kind: LimitRange
metadata: {name: l}
spec:
  limits:
  - {type: Container, default: {cpu: 500m}, defaultRequest: {cpu: 100m}, max: {cpu: "1"}, min: {cpu: 50m}, maxLimitRequestRatio: {cpu: "10"}}
  - {type: Pod, max: {memory: 1Gi}}
  - {type: PersistentVolumeClaim, min: {storage: 1Gi}, max: {storage: 2Gi}}
`

func testLimitRanges(t *testing.T, c *apitest.Cluster, k *kubectl.Kubectl) {
	ns := namespace(t, k, "limits")
	client := c.Client(t)
	if _, err := client.CoreV1().ServiceAccounts("limits").Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	k.Run(t, limitRange, "create", ns, "-f", "-")
	create := func(requests, limits corev1.ResourceList) (*corev1.Pod, error) {
		return client.CoreV1().Pods("limits").Create(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: corev1.PodSpec{
			Containers: []corev1.Container{{Name: "c", Image: "i", Resources: corev1.ResourceRequirements{Requests: requests, Limits: limits}}}}},
			metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	}
	list := func(cpu, memory string) corev1.ResourceList {
		l := corev1.ResourceList{"memory": resource.MustParse(memory)}
		if cpu != "" {
			l["cpu"] = resource.MustParse(cpu)
		}
		return l
	}
	apitest.Eventually(t, "the limit range counts", func() error {
		pod, err := create(nil, list("", "1Mi"))
		if err != nil {
			return err
		}
		r := pod.Spec.Containers[0].Resources
		if r.Requests.Cpu().String() != "100m" || r.Limits.Cpu().String() != "500m" ||
			pod.Annotations["kubernetes.io/limit-ranger"] != "LimitRanger plugin set: cpu request for container c; cpu limit for container c" {
			return fmt.Errorf("resources %v, annotations %v", r, pod.Annotations)
		}
		return nil
	})
	for want, try := range map[string][2]corev1.ResourceList{
		"maximum cpu usage per Container is 1, but limit is 2":                         {list("1", "1Mi"), list("2", "1Mi")},
		"minimum cpu usage per Container is 50m, but request is 10m":                   {list("10m", "1Mi"), list("100m", "1Mi")},
		"cpu max limit to request ratio per Container is 10, but provided ratio is 20": {list("50m", "1Mi"), list("1", "1Mi")},
		"maximum memory usage per Pod is 1Gi, but limit is 2Gi":                        {list("100m", "1Mi"), list("100m", "2Gi")},
		"maximum memory usage per Pod is 1Gi.  No limit is specified":                  {list("100m", "1Mi"), nil},
	} {
		if _, err := create(try[0], try[1]); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	claim := "{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: c}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 3Gi}}}}"
	k.Fail(t, claim, []string{"create", ns, "-f", "-"}, "maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi")
}
