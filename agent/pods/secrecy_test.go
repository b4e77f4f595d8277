package pods

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestSecretsAreNotWorldReadable looks for a secret's value in every file of
// the node that an ordinary user could open.
func TestSecretsAreNotWorldReadable(t *testing.T) {
	t.Parallel()
	const secret = "a-treasure-nobody-else-may-see"
	n := newNode(t)
	n.mustCreate(&corev1.Secret{ObjectMeta: meta("sec"), Data: map[string][]byte{"p": []byte(secret)}})
	n.start()
	c := box("main", "sleep")
	c.Env = []corev1.EnvVar{{Name: "SECRET", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "sec"}, Key: "p"}}}}
	c.VolumeMounts = []corev1.VolumeMount{{Name: "sec", MountPath: "/sec"}}
	pod := newPod("secret", c)
	pod.Spec.Volumes = []corev1.Volume{{Name: "sec", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "sec"}}}}
	n.create(pod)
	n.until("secret", "is ready", ready)
	// Whether others can enter the root of the test's folders is the test's choice, not the node's.
	found := 0
	err := filepath.WalkDir(n.dirs.Root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil
		}
		raw, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(raw, []byte(secret)) {
			return nil
		}
		found++
		if open(t, n.dirs.Root, path) {
			t.Errorf("%s can be read by everyone", path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if found == 0 {
		t.Error("the secret is nowhere, so this test looks in the wrong place")
	}
}

// open tells whether someone who belongs to nothing can read a file.
func open(t *testing.T, root, path string) bool {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if st.Mode().Perm()&0o004 == 0 {
		return false
	}
	for dir := filepath.Dir(path); dir != root; dir = filepath.Dir(dir) {
		st, err := os.Stat(dir)
		if err != nil {
			t.Fatal(err)
		}
		if st.Mode().Perm()&0o001 == 0 {
			return false
		}
	}
	return true
}
