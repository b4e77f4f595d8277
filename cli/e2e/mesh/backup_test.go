package mesh

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Any member gives a backup and takes it; all replicas have its records afterwards, and whoever watches one that does not lead is told to
// list anew.
func TestBackupAndRestoreThroughAnyMember(t *testing.T) {
	healthy(t)
	leader := quorumOf(t, "h1").Leader.Name
	others := slices.DeleteFunc(slices.Clone(hosts), func(host string) bool { return host == leader })
	one, other := others[0], others[1]
	run(t, one, "kubectl", "create", "configmap", "kept", "--from-literal=a=b")
	t.Cleanup(func() { run(t, "h1", "kubectl", "delete", "configmap", "kept") })
	run(t, one, "kubectl", "create", "secret", "generic", "old", "--from-literal=a=b")
	t.Cleanup(func() { run(t, "h1", "kubectl", "delete", "secret", "old") })
	file := filepath.Join(t.TempDir(), "backup")
	run(t, one, "backup", file)
	// What the backup holds is sealed with a key that no longer seals when it is restored.
	before := keysOf(t, one)
	run(t, one, "keys", "rotate", "data")
	eventually(t, 30*time.Second, "the new key to seal", func() (string, bool) {
		now := keysOf(t, one)
		return fmt.Sprintf("%+v", now), now.seals() != before.seals()
	})
	resealed := func() (lines int) {
		for _, host := range hosts {
			lines += strings.Count(agentLog(t, host), "sealed Secrets anew")
		}
		return lines
	}
	eventually(t, 30*time.Second, "the Secrets to be sealed with it", func() (string, bool) { return "", resealed() > 0 })
	sealed := resealed()
	run(t, one, "kubectl", "create", "configmap", "later", "--from-literal=a=b")
	client, _ := clientOf(t, one)
	later, err := client.CoreV1().ConfigMaps("default").Get(t.Context(), "later", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	watch, err := client.CoreV1().ConfigMaps("default").Watch(t.Context(), metav1.ListOptions{ResourceVersion: later.ResourceVersion})
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Stop()
	if out := run(t, other, "restore", file, "--yes"); !strings.Contains(out, "restored; the revision is") {
		t.Errorf("restore: %s", out)
	}
	eventually(t, 30*time.Second, "the restored Secrets to be sealed anew", func() (string, bool) { return "", resealed() > sealed })
	run(t, other, "kubectl", "get", "secret", "old")
	select {
	case event, open := <-watch.ResultChan():
		if status, isStatus := event.Object.(*metav1.Status); open && (!isStatus || status.Code != 410) {
			t.Errorf("the watch goes on with %+v", event)
		}
	case <-time.After(20 * time.Second):
		t.Error("the watch did not hear of the restore")
	}
	for _, host := range hosts {
		run(t, host, "kubectl", "get", "configmap", "kept")
		if out, err := try(t, host, "", "kubectl", "get", "configmap", "later"); err == nil || !strings.Contains(out, "NotFound") {
			t.Errorf("what was written after the backup, at %s: %v: %s", host, err, out)
		}
	}
	healthy(t)
	equalAnswers(t)
	for _, host := range hosts {
		run(t, "h1", "kubectl", "wait", "--for=condition=Ready", "node/"+host, "--timeout=30s")
	}
}
