package protection

import (
	"testing"
	"testing/synctest"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podvine/podvine/agent/control/loop"
	"github.com/podvine/podvine/agent/control/loop/looptest"
)

func claimOf(name string) *v1.PersistentVolumeClaim {
	return &v1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Finalizers: []string{Finalizer, "other.example.com/f"}}}
}

func podOf(node string, volume v1.VolumeSource) *v1.Pod {
	return &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p", UID: "p"},
		Spec: v1.PodSpec{NodeName: node, Volumes: []v1.Volume{{Name: "v", VolumeSource: volume}}}}
}

func byClaim(name string) v1.VolumeSource {
	return v1.VolumeSource{PersistentVolumeClaim: &v1.PersistentVolumeClaimVolumeSource{ClaimName: name}}
}

func TestInUse(t *testing.T) {
	for name, test := range map[string]struct {
		claim string
		pod   *v1.Pod
		want  bool
	}{
		"by a pod on a node":        {"c", podOf("n", byClaim("c")), true},
		"by a pod without a node":   {"c", podOf("", byClaim("c")), false},
		"another claim":             {"d", podOf("n", byClaim("c")), false},
		"as an ephemeral volume":    {"p-v", podOf("n", v1.VolumeSource{Ephemeral: &v1.EphemeralVolumeSource{}}), true},
		"not a volume of that kind": {"p-v", podOf("n", v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}), false},
	} {
		if got := InUse(claimOf(test.claim), []*v1.Pod{test.pod}); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestAClaimGoesAfterItsPod: the finalizer of a deleted claim stays while the pod is there, and goes then; a claim that is
// not deleted keeps it.
func TestAClaimGoesAfterItsPod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone := claimOf("gone")
		gone.DeletionTimestamp = &metav1.Time{Time: metav1.Now().Time}
		c := looptest.New(t, gone, claimOf("kept"), podOf("n", byClaim("gone")))
		defer c.Stop()
		l, err := New(loop.Wiring{Client: c.Client, Informers: c.Informers, Logger: c.Logger()})
		c.Must(err)
		c.Start(l)
		finalizers := func(name string) int {
			claim, err := c.Client.CoreV1().PersistentVolumeClaims("default").Get(t.Context(), name, metav1.GetOptions{})
			c.Must(err)
			return len(claim.Finalizers)
		}
		if got := finalizers("gone"); got != 2 {
			t.Errorf("%d finalizers while a pod uses the claim", got)
		}
		c.Must(c.Client.CoreV1().Pods("default").Delete(t.Context(), "p", metav1.DeleteOptions{}))
		c.Settle()
		if got := finalizers("gone"); got != 1 {
			t.Errorf("%d finalizers after the pod, want the other one", got)
		}
		if got := finalizers("kept"); got != 2 {
			t.Errorf("%d finalizers of a claim that is not deleted", got)
		}
	})
}
