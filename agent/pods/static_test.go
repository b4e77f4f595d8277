package pods

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clienttesting "k8s.io/client-go/testing"

	"github.com/podvine/podvine/agent/pods/internal/podtest"
)

// static makes a node with a manifests folder, whose API gives out UIDs.
func staticNode(t *testing.T) *node {
	t.Helper()
	n := newNode(t)
	n.cfg.SkipNode, n.cfg.ManifestDir = false, filepath.Join(n.dirs.Root, "manifests")
	if err := os.MkdirAll(n.cfg.ManifestDir, 0o755); err != nil {
		t.Fatal(err)
	}
	var made atomic.Int64
	n.client.PrependReactor("create", "*", func(a clienttesting.Action) (bool, runtime.Object, error) {
		if c, ok := a.(clienttesting.CreateAction); ok {
			if m, err := apimeta.Accessor(c.GetObject()); err == nil && m.GetUID() == "" {
				m.SetUID(types.UID(fmt.Sprintf("made-%d", made.Add(1))))
			}
		}
		return false, nil, nil
	})
	return n
}

func (n *node) manifest(name, args string) {
	n.t.Helper()
	text := fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  terminationGracePeriodSeconds: 2
  restartPolicy: Always
  containers: [{name: main, image: %s, imagePullPolicy: IfNotPresent, args: [%s]}]
`, podtest.Image, args)
	if err := os.WriteFile(filepath.Join(n.cfg.ManifestDir, name), []byte(text), 0o644); err != nil {
		n.t.Fatal(err)
	}
}

func TestStaticPods(t *testing.T) {
	t.Parallel()
	n := staticNode(t)
	n.manifest("web.yaml", "sleep")
	n.start()
	shown := func(p *corev1.Pod) bool { return ready(p) }
	podtest.Wait(t, "the API has a picture", func() bool {
		_, err := n.client.CoreV1().Pods("default").Get(context.Background(), "web-n1", metav1.GetOptions{})
		return err == nil
	})
	first := n.until("web-n1", "is ready", shown)
	hash := first.Annotations[corev1.MirrorPodAnnotationKey]
	if hash == "" || first.Annotations[annotationSource] != "file" || first.Annotations[annotationHash] != hash || first.Labels["app"] != "web" ||
		len(first.OwnerReferences) != 1 || first.OwnerReferences[0].Kind != "Node" || first.Spec.NodeName != "n1" {
		t.Errorf("picture %+v", first.ObjectMeta)
	}
	// A picture that a user deletes comes back, and the pod runs on.
	if err := n.client.CoreV1().Pods("default").Delete(context.Background(), "web-n1", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	var again *corev1.Pod
	podtest.Wait(t, "the picture is back", func() bool {
		var err error
		again, err = n.client.CoreV1().Pods("default").Get(context.Background(), "web-n1", metav1.GetOptions{})
		return err == nil && again.UID != first.UID && ready(again)
	})
	if was, is := status(first, "main"), status(again, "main"); was.ContainerID != is.ContainerID {
		t.Errorf("the container was replaced: %s, %s", was.ContainerID, is.ContainerID)
	}
	// Half a file changes nothing, another file replaces the pod.
	if err := os.WriteFile(filepath.Join(n.cfg.ManifestDir, "web.yaml"), []byte("apiVersion: v1\nkind: Po"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := n.agent.syncStatic(context.Background()); err != nil {
		t.Fatal(err)
	}
	if w := n.agent.worker(types.UID(hash)); w == nil || w.pod().DeletionTimestamp != nil {
		t.Error("a file that cannot be read ended its pod")
	}
	n.manifest("web.yaml", "sleep, 24h")
	podtest.Wait(t, "the picture is of the new file", func() bool {
		p, err := n.client.CoreV1().Pods("default").Get(context.Background(), "web-n1", metav1.GetOptions{})
		return err == nil && p.Annotations[corev1.MirrorPodAnnotationKey] != hash && ready(p)
	})
	if err := os.Remove(filepath.Join(n.cfg.ManifestDir, "web.yaml")); err != nil {
		t.Fatal(err)
	}
	podtest.Wait(t, "pod and picture are gone", func() bool {
		_, err := n.client.CoreV1().Pods("default").Get(context.Background(), "web-n1", metav1.GetOptions{})
		return apierrors.IsNotFound(err) && len(n.agent.all()) == 0
	})
	podtest.Wait(t, "nothing is left", func() bool { return len(n.dirs.Left()) == 0 })
}

// A static pod needs no API, and outlives its agent like any other.
func TestStaticPodWithoutAPI(t *testing.T) {
	t.Parallel()
	n := staticNode(t)
	n.manifest("web.yaml", "sleep")
	n.cfg.Client = unreachable(n.client)
	n.start()
	id := ""
	runs := func() bool {
		for _, w := range n.agent.all() {
			if w.allRunning(1) {
				w.mu.Lock()
				defer w.mu.Unlock()
				c := w.rec.Containers["main"].ID
				same := id == "" || id == c
				id = c
				return same && w.rec.Static
			}
		}
		return false
	}
	podtest.Wait(t, "the pod runs", runs)
	n.stop()
	n.again()
	podtest.Wait(t, "the next agent has the same container", runs)
}

func TestReadManifests(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"good.yaml": "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: c, image: i}]}\n",
		"good.json": `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"b","namespace":"kube-system"},"spec":{"containers":[{"name":"c","image":"i"}]}}`,
		"typo.yaml": "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {container: []}\n",
		"kind.yaml": "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n",
		"sec.yaml":  "apiVersion: v1\nkind: Pod\nmetadata: {name: s}\nspec: {containers: [], volumes: [{name: v, secret: {secretName: x}}]}\n",
		".hidden":   "nonsense",
		"backup~":   "nonsense",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	pods, failed, err := readManifests(dir, "N1", nil)
	if err != nil || len(pods) != 2 || len(failed) != 3 {
		t.Fatalf("pods %d, failed %v, %v", len(pods), failed, err)
	}
	if keyOf(pods[0]) != "kube-system/b-n1" || keyOf(pods[1]) != "default/a-n1" || pods[0].UID == pods[1].UID {
		t.Errorf("pods %s, %s", keyOf(pods[0]), keyOf(pods[1]))
	}
	if !strings.Contains(failed["sec.yaml"].Error(), "static pods may refer to no Secret") {
		t.Errorf("secrets: %v", failed["sec.yaml"])
	}
	other, _, err := readManifests(dir, "N2", nil)
	if err != nil || other[0].UID == pods[0].UID {
		t.Errorf("two nodes' pods share a UID, %v", err)
	}
}
