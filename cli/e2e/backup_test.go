package e2e

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// TestBackupAndRestore loses records and gets them back, while a pod runs and a client watches.
func TestBackupAndRestore(t *testing.T) {
	namespace := newNamespace(t)
	kubectl(t, namespace, "create", "configmap", "kept", "--from-literal=a=b")
	kubectl(t, namespace, "create", "secret", "generic", "sealed", "--from-literal=word=xylophone-7")
	kubectl(t, namespace, "run", "runs", "--image="+appImage)
	kubectl(t, namespace, "wait", "--for=condition=Ready", "pod/runs", "--timeout=30s")
	container := containerOf(t, namespace, "runs")
	file := backUp(t)

	kubectl(t, namespace, "delete", "configmap", "kept")
	kubectl(t, namespace, "create", "configmap", "later", "--from-literal=a=b")
	later, err := client.CoreV1().ConfigMaps(namespace).Get(t.Context(), "later", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	watch, err := client.CoreV1().ConfigMaps(namespace).Watch(t.Context(), metav1.ListOptions{ResourceVersion: later.ResourceVersion})
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Stop()

	refuseRestores(t, file)
	restore(t, file)

	endsAsExpired(t, watch)
	again, err := client.CoreV1().ConfigMaps(namespace).Watch(t.Context(), metav1.ListOptions{ResourceVersion: later.ResourceVersion})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Stop()
	endsAsExpired(t, again)
	kubectl(t, namespace, "get", "configmap", "kept")
	if _, err := client.CoreV1().ConfigMaps(namespace).Get(t.Context(), "later", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("what was written after the backup: %v", err)
	}
	secretIsReadable(t, namespace)
	// What acts on the records goes on: a deployment of after the restore runs, and the pod of before was let alone.
	kubectl(t, namespace, "create", "deployment", "after", "--image="+appImage)
	kubectl(t, namespace, "rollout", "status", "deployment/after", "--timeout=60s")
	if now := containerOf(t, namespace, "runs"); now != container {
		t.Errorf("the pod's container was %s, now it is %s", container, now)
	}
}

// endsAsExpired wants the watch to tell its client to list anew.
func endsAsExpired(t *testing.T, watch watch.Interface) {
	t.Helper()
	select {
	case event, open := <-watch.ResultChan():
		if status, isStatus := event.Object.(*metav1.Status); open && (!isStatus || status.Code != http.StatusGone) {
			t.Errorf("the watch goes on with %+v", event)
		}
	case <-time.After(20 * time.Second):
		t.Error("the watch did not hear of the restore")
	}
}

// TestRestoreAfterTotalLoss founds a cluster with the keys of one that is gone, and takes its records.
func TestRestoreAfterTotalLoss(t *testing.T) {
	namespace := newNamespace(t)
	kubectl(t, namespace, "create", "secret", "generic", "sealed", "--from-literal=word=xylophone-7")
	file := backUp(t)
	lab := func(args ...string) {
		t.Helper()
		if out, err := command(append([]string{"lab", args[0], "--name", labName}, args[1:]...)...).CombinedOutput(); err != nil {
			t.Fatalf("lab %s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
	lab("kill", "--agent", "h1")
	lab("exec", "h1", "--", "sh", "-c", "cd /var/lib/podvine && rm -r raft node.json gossip-peers.json settings.json 2>/dev/null; true")
	lab("start", "--agent", "h1")
	eventually(t, time.Minute, "the new cluster to answer", func() (string, bool) {
		out, err := tryKubectl(t, "default", "", "get", "--raw", "/readyz")
		return out, err == nil
	})
	if out, err := command("restore", file, "--yes").CombinedOutput(); err == nil || !strings.Contains(string(out), "--other-cluster") {
		t.Errorf("another cluster's backup: %v: %s", err, out)
	}
	restore(t, file, "--other-cluster")
	secretIsReadable(t, namespace)
	kubectl(t, "default", "wait", "--for=condition=Ready", "node/h1", "--timeout=60s")
	kubectl(t, namespace, "create", "deployment", "after", "--image="+appImage)
	kubectl(t, namespace, "rollout", "status", "deployment/after", "--timeout=60s")
}

// backUp makes a backup, which nobody else may read and in which no secret can be read.
func backUp(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "backup")
	out, err := command("backup", file).CombinedOutput()
	if err != nil {
		t.Fatalf("back up: %v: %s", err, out)
	}
	wants(t, string(out), "objects at revision", "saved from cluster")
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the backup is %v, %v", info, err)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(content, []byte("xylophone-7")) {
		t.Error("a secret can be read in the backup")
	}
	return file
}

func refuseRestores(t *testing.T, file string) {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	content[len(content)/2] ^= 1
	damaged := filepath.Join(t.TempDir(), "damaged")
	if err := os.WriteFile(damaged, content, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		why  string
		args []string
	}{{"corrupt", []string{damaged, "--yes"}}, {"say --yes", []string{file}}, {"no backup of a Podvine cluster", []string{kubeconfig, "--yes"}}} {
		out, err := command(append([]string{"restore"}, c.args...)...).CombinedOutput()
		if err == nil {
			t.Errorf("%s: restored: %s", c.why, out)
		}
		wants(t, string(out), c.why)
	}
	// The server checks for itself, also who asks, whatever RBAC lets through.
	err = client.CoreV1().RESTClient().Post().AbsPath("/podvine/restore").Body(content).Do(t.Context()).Error()
	if err == nil || !strings.Contains(err.Error(), "corrupt") {
		t.Errorf("the server on a damaged backup: %v", err)
	}
	kubectl(t, "default", "create", "clusterrole", "all-paths", "--verb=*", "--non-resource-url=*")
	kubectl(t, "default", "create", "clusterrolebinding", "all-paths", "--clusterrole=all-paths", "--user=jane")
	for _, args := range [][]string{{"get", "--raw", "/podvine/backup"}, {"create", "--raw", "/podvine/restore", "-f", file}} {
		if out, err := tryKubectl(t, "default", "", append(args, "--as=jane")...); err == nil || !strings.Contains(out, "system:masters") {
			t.Errorf("%v as jane: %v: %.200s", args, err, out)
		}
	}
}

func restore(t *testing.T, file string, args ...string) {
	t.Helper()
	out, err := command(append([]string{"restore", file, "--yes"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("restore: %v: %s", err, out)
	}
	wants(t, string(out), "is lost", "restored; the revision is")
}

func secretIsReadable(t *testing.T, namespace string) {
	t.Helper()
	secret, err := client.CoreV1().Secrets(namespace).Get(t.Context(), "sealed", metav1.GetOptions{})
	if err != nil || string(secret.Data["word"]) != "xylophone-7" {
		t.Errorf("the secret is %v, %v", secret, err)
	}
}

func containerOf(t *testing.T, namespace, name string) string {
	t.Helper()
	pod, err := client.CoreV1().Pods(namespace).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if pod.Status.Phase != corev1.PodRunning {
		t.Errorf("pod %s is %s", name, pod.Status.Phase)
	}
	return pod.Status.ContainerStatuses[0].ContainerID
}
