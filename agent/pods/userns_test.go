package pods

import (
	"fmt"
	"os"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/podvine/podvine/agent/pods/internal/podtest"
)

func TestUserNamespace(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	// Mapped users have to reach what is below.
	if err := os.Chmod(n.dirs.Root, 0o711); err != nil {
		t.Fatal(err)
	}
	n.mustCreate(&corev1.Secret{ObjectMeta: meta("sec"), Data: map[string][]byte{"p": []byte("hidden\n")}})
	n.start()
	c := box("main", "write", "/work/made", "x")
	show := box("show", "ls", "/work", "/sec", "/bin/box")
	maps := box("maps", "cat", "/proc/self/uid_map", "/sec/p")
	host := box("host", "id")
	mounts := []corev1.VolumeMount{{Name: "work", MountPath: "/work"}, {Name: "sec", MountPath: "/sec"}}
	c.VolumeMounts, show.VolumeMounts, maps.VolumeMounts = mounts, mounts, mounts
	pod := newPod("users", maps, show, host)
	pod.Spec.InitContainers = []corev1.Container{c}
	pod.Spec.HostUsers = ptr.To(false)
	pod.Spec.Volumes = []corev1.Volume{
		{Name: "work", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
		{Name: "sec", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "sec", DefaultMode: ptr.To(int32(0o400))}}},
	}
	out := n.finished(pod)
	if f := strings.Fields(out); len(f) != 4 || f[0] != "0" || f[2] != fmt.Sprint(idsPerPod) || f[1] == "0" || f[3] != "hidden" {
		t.Errorf("the map of users and the secret: %q", out)
	}
	// Root's own, inside: the image, the volume and what was made there.
	wantLines(t, n.log("users", "show", 0), "/work/made -rw-r--r-- 0:0", "/bin/box -rwxr-xr-x 0:0", "/work drwxrwxrwx 0:0")
	wantLines(t, n.log("users", "host", 0), "uid=0 gid=0 groups=[0] host=users pid=1")
	n.delete("users", 0)
	podtest.Wait(t, "nothing is left", func() bool { return len(n.dirs.Left()) == 0 })
}

// Two pods never share users, and an agent that comes anew keeps what pods have.
func TestUserNamespacesAreApart(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	if err := os.Chmod(n.dirs.Root, 0o711); err != nil {
		t.Fatal(err)
	}
	n.start()
	for _, name := range []string{"a", "b"} {
		pod := newPod(name, box("main", "sleep"))
		pod.Spec.HostUsers, pod.Spec.ShareProcessNamespace = ptr.To(false), ptr.To(name == "b")
		n.create(pod)
		n.until(name, "is ready", ready)
	}
	first := func(name string) uint32 {
		w := n.agent.worker(types.UID("uid-" + name))
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.rec.FirstID
	}
	a, b := first("a"), first("b")
	if a == b || a < firstHostID || b < firstHostID {
		t.Errorf("ranges begin at %d and %d", a, b)
	}
	n.stop()
	n.again()
	podtest.Wait(t, "the agent knows them", func() bool { return n.agent.worker("uid-a") != nil && n.agent.worker("uid-b") != nil })
	if first("a") != a || first("b") != b {
		t.Errorf("ranges moved to %d and %d", first("a"), first("b"))
	}
	pod := newPod("c", box("main", "sleep"))
	pod.Spec.HostUsers = ptr.To(false)
	n.create(pod)
	n.until("c", "is ready", ready)
	if c := first("c"); c == a || c == b {
		t.Errorf("a third pod shares the range at %d", c)
	}
	for _, name := range []string{"a", "b", "c"} {
		n.delete(name, 0)
	}
}

func TestIDRanges(t *testing.T) {
	r := idRanges{limit: 2}
	one, err1 := r.claim("one", 0)
	two, err2 := r.claim("two", 0)
	if err1 != nil || err2 != nil || one == two {
		t.Fatalf("%d, %d, %v, %v", one, two, err1, err2)
	}
	if _, err := r.claim("three", 0); err == nil {
		t.Error("a third range of two")
	}
	if again, err := r.claim("one", one); again != one || err != nil {
		t.Errorf("claimed again: %d, %v", again, err)
	}
	r.release(two)
	if three, err := r.claim("three", one); three != two || err != nil {
		t.Errorf("the free range: %d, %v; wanted another's", three, err)
	}
}

func TestRuntimeClass(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.mustCreate(&nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: "plain"}, Handler: "runc"}, &nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: "boxed"}, Handler: "kata"})
	n.start()
	for name, class := range map[string]string{"plain": "plain", "boxed": "boxed", "absent": "absent"} {
		pod := newPod(name, box("main", "sleep"))
		pod.Spec.RuntimeClassName = &class
		n.create(pod)
	}
	n.until("plain", "is ready", ready)
	n.wantEvents(`Failed to create pod sandbox: no runtime for "kata" is configured`, `Failed to create pod sandbox: RuntimeClass "absent" not found`)
	for _, name := range []string{"boxed", "absent"} {
		if p := n.get(name); p.Status.Phase == corev1.PodRunning {
			t.Errorf("%s runs", name)
		}
	}
}

func TestHugePagesVolume(t *testing.T) {
	t.Parallel()
	n := newNode(t).start()
	c := box("main", "cat", "/proc/self/mountinfo")
	c.VolumeMounts = []corev1.VolumeMount{{Name: "huge", MountPath: "/huge"}}
	pod := newPod("huge", c)
	pod.Spec.Volumes = []corev1.Volume{{Name: "huge", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: "HugePages-2Mi"}}}}
	out := n.finished(pod)
	found := false
	for line := range strings.Lines(out) {
		found = found || strings.Contains(line, " /huge ") && strings.Contains(line, "hugetlbfs") && strings.Contains(line, "pagesize=2M")
	}
	if !found {
		t.Errorf("no huge pages are mounted:\n%s", out)
	}
	n.delete("huge", 0)
	if left := n.dirs.Left(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
