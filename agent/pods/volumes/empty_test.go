package volumes

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/podvine/podvine/agent/pods/environ"
)

// A database gives its folder a mode of its own and refuses to start with another.
func TestEmptyDirKeepsTheModeThatItsUserGaveIt(t *testing.T) {
	for medium, group := range map[corev1.StorageMedium]*int64{corev1.StorageMediumDefault: nil, corev1.StorageMediumMemory: ptr.To(int64(4242))} {
		pod := &corev1.Pod{Spec: corev1.PodSpec{SecurityContext: &corev1.PodSecurityContext{FSGroup: group}, Volumes: []corev1.Volume{
			{Name: "data", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: medium}}},
		}}}
		p := Pod{Dir: filepath.Join(t.TempDir(), "pod"), Facts: environ.Facts{Pod: pod}}
		t.Cleanup(func() {
			if err := Teardown(p.Dir); err != nil {
				t.Error(err)
			}
		})
		set := func() os.FileMode {
			if _, err := Setup(context.Background(), p); err != nil {
				t.Fatal(err)
			}
			dir, err := p.path(&pod.Spec.Volumes[0])
			must(t, err)
			st, err := os.Stat(dir)
			must(t, err)
			return st.Mode()
		}
		want := os.ModeDir | 0o777
		if group != nil {
			want |= os.ModeSetgid
		}
		if got := set(); got != want {
			t.Errorf("medium %q: a new volume has mode %v, not %v", medium, got, want)
		}
		dir, err := p.path(&pod.Spec.Volumes[0])
		must(t, err)
		must(t, os.Chmod(dir, 0o700))
		if got := set(); got != os.ModeDir|0o700 {
			t.Errorf("medium %q: the next look made it %v", medium, got)
		}
	}
}
