package pods

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	authv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/utils/ptr"

	"github.com/podvine/podvine/agent/pods/internal/podtest"
)

// mustCreate stores objects that pods refer to.
func (n *node) mustCreate(objs ...runtime.Object) {
	n.t.Helper()
	for _, o := range objs {
		if err := n.client.Tracker().Add(o); err != nil {
			n.t.Fatal(err)
		}
	}
}

// finished runs a pod of one container to its end and returns its log.
func (n *node) finished(pod *corev1.Pod) string {
	n.t.Helper()
	pod.Spec.RestartPolicy = corev1.RestartPolicyNever
	n.create(pod)
	n.until(pod.Name, "ends", func(p *corev1.Pod) bool {
		return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
	})
	for _, s := range n.get(pod.Name).Status.ContainerStatuses {
		if s.State.Terminated == nil || s.State.Terminated.Reason == "StartError" {
			n.t.Errorf("%s did not run: %+v", s.Name, s.State)
		}
	}
	return n.log(pod.Name, pod.Spec.Containers[0].Name, 0)
}

func wantLines(t *testing.T, out string, lines ...string) {
	t.Helper()
	for _, l := range lines {
		if !strings.Contains("\n"+out, "\n"+l) {
			t.Errorf("no line %q in:\n%s", l, out)
		}
	}
}

func meta(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: "default", Name: name} }

func TestEnvironment(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.mustCreate(
		&corev1.ConfigMap{ObjectMeta: meta("cm"), Data: map[string]string{"a": "1", "b": "2"}},
		&corev1.Secret{ObjectMeta: meta("sec"), Data: map[string][]byte{"p": []byte("hidden")}},
		&corev1.Service{ObjectMeta: meta("my-db"), Spec: corev1.ServiceSpec{ClusterIP: "10.96.1.2", Ports: []corev1.ServicePort{{Name: "sql", Port: 5432, Protocol: corev1.ProtocolTCP}}}},
	)
	n.start()
	c := box("main", "env")
	field := func(p string) *corev1.EnvVarSource {
		return &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: p}}
	}
	c.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi")}
	c.EnvFrom = []corev1.EnvFromSource{{Prefix: "CM_", ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}}}}
	c.Env = []corev1.EnvVar{
		{Name: "NAME", ValueFrom: field("metadata.name")}, {Name: "IP", ValueFrom: field("status.podIP")}, {Name: "APP", ValueFrom: field("metadata.labels['app']")},
		{Name: "SECRET", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "sec"}, Key: "p"}}},
		{Name: "MEM", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.memory", Divisor: resource.MustParse("1Mi")}}},
		{Name: "JOINED", Value: "$(NAME)-$(CM_a)-$$(NAME)-$(NONE)"},
	}
	pod := newPod("envs", c)
	pod.Labels = map[string]string{"app": "demo"}
	wantLines(t, n.finished(pod), "FROM_IMAGE=yes\n", "NAME=envs\n", "IP=127.0.0.1\n", "APP=demo\n", "SECRET=hidden\n", "MEM=64\n", "CM_a=1\n", "CM_b=2\n",
		"JOINED=envs-1-$(NAME)-$(NONE)\n", "MY_DB_SERVICE_HOST=10.96.1.2\n", "MY_DB_PORT_5432_TCP_ADDR=10.96.1.2\n", "MY_DB_SERVICE_PORT_SQL=5432\n", "HOSTNAME=envs\n")
}

func TestFilesOfAPod(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.cfg.HostResolvConf = filepath.Join(n.dirs.Root, "resolv.conf")
	if err := os.WriteFile(n.cfg.HostResolvConf, []byte("nameserver 192.0.2.53\nsearch host.example\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	n.start()
	pod := newPod("files", box("main", "cat", "/etc/resolv.conf", "/etc/hosts", "/etc/hostname"))
	pod.Spec.Hostname, pod.Spec.Subdomain = "h1", "sub"
	pod.Spec.HostAliases = []corev1.HostAlias{{IP: "192.0.2.1", Hostnames: []string{"foo", "bar"}}}
	pod.Spec.DNSConfig = &corev1.PodDNSConfig{Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: ptr.To("2")}}}
	wantLines(t, n.finished(pod), "search default.svc.cluster.local svc.cluster.local cluster.local host.example\n", "nameserver 10.96.0.10\n", "options ndots:2\n",
		"127.0.0.1\th1.sub.default.svc.cluster.local\th1\n", "192.0.2.1\tfoo\tbar\n", "h1\n")
}

func TestVolumes(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.client.PrependReactor("create", "serviceaccounts", func(a clienttesting.Action) (bool, runtime.Object, error) {
		if a.GetSubresource() != "token" {
			return false, nil, nil
		}
		return true, &authv1.TokenRequest{Status: authv1.TokenRequestStatus{Token: "tok", ExpirationTimestamp: metav1.Now()}}, nil
	})
	n.mustCreate(
		&corev1.ConfigMap{ObjectMeta: meta("cm"), Data: map[string]string{"a": "1\n", "b": "2\n"}},
		&corev1.Secret{ObjectMeta: meta("sec"), Data: map[string][]byte{"p": []byte("hidden\n")}},
	)
	n.start()
	c := box("main", "ls", "/vol", "/etc/conf")
	vol := func(name string, s corev1.VolumeSource) corev1.Volume {
		return corev1.Volume{Name: name, VolumeSource: s}
	}
	pod := newPod("vols", c)
	pod.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: ptr.To(int64(3000))}
	pod.Spec.Volumes = []corev1.Volume{
		vol("cm", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}, DefaultMode: ptr.To(int32(0o400)),
			Items: []corev1.KeyToPath{{Key: "a", Path: "deep/a.txt"}}}}),
		vol("all", corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "sec"}}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{Path: "name", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}}}},
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: ptr.To(int64(600))}},
		}}}),
		vol("mem", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory, SizeLimit: ptr.To(resource.MustParse("1Mi"))}}),
	}
	pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{
		{Name: "cm", MountPath: "/vol/cm"}, {Name: "all", MountPath: "/vol/all"}, {Name: "mem", MountPath: "/vol/mem"},
		{Name: "cm", MountPath: "/etc/conf", SubPath: "deep/a.txt"}, {Name: "mem", MountPath: "/vol/sub", SubPathExpr: "of-$(HOSTNAME)"},
	}
	pod.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "HOSTNAME", Value: "x"}}
	out := n.finished(pod)
	wantLines(t, out, "/vol/all/p ", "/vol/all/token ", "/vol/all/name ", "/vol/mem dgrwxrwxrwx 0:3000", "/vol/sub dgrwxrwxrwx 0:3000", "/etc/conf -r--r----- 0:3000")
	n.delete("vols", 0)
	if left := n.dirs.Left(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestConfigMapUpdateReachesPod(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	cm := &corev1.ConfigMap{ObjectMeta: meta("cm"), Data: map[string]string{"k": "old"}}
	n.mustCreate(cm)
	n.start()
	pod := newPod("upd", box("main", "sleep"))
	pod.Spec.Volumes = []corev1.Volume{{Name: "cm", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}}}}}
	pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "cm", MountPath: "/cm"}}
	n.create(pod)
	n.until("upd", "is ready", ready)
	file := filepath.Join(n.cfg.KubeletDir, "pods", "uid-upd", "volumes", "kubernetes.io~configmap", "cm", "k")
	reads := func(want string) func() bool {
		return func() bool {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Errorf("a reader saw no file: %v", err)
			}
			return string(b) == want
		}
	}
	podtest.Wait(t, "the first value", reads("old"))
	cm = cm.DeepCopy()
	cm.Data["k"] = "new"
	if _, err := n.client.CoreV1().ConfigMaps("default").Update(context.Background(), cm, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	podtest.Wait(t, "the new value", reads("new"))
	n.delete("upd", 0)
}

func TestIdentityAndSecurity(t *testing.T) {
	t.Parallel()
	n := newNode(t).start()
	pod := newPod("ident", box("main", "id"))
	pod.Spec.SecurityContext = &corev1.PodSecurityContext{
		RunAsUser: ptr.To(int64(1000)), RunAsNonRoot: ptr.To(true), SupplementalGroups: []int64{4000}, FSGroup: ptr.To(int64(3000)),
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
	wantLines(t, n.finished(pod), "uid=1000 gid=1001 groups=[1001 2000 3000 4000] host=ident pid=1")

	ro := newPod("readonly", box("main", "write", "/bin/x", "y"))
	ro.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{ReadOnlyRootFilesystem: ptr.To(true)}
	wantLines(t, n.finished(ro), "open /bin/x: read-only file system")

	caps := newPod("caps", box("main", "cat", "/proc/self/status"))
	caps.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{
		Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}, Add: []corev1.Capability{"NET_ADMIN"}},
		AllowPrivilegeEscalation: ptr.To(false),
	}
	wantLines(t, n.finished(caps), "CapEff:\t0000000000001000", "NoNewPrivs:\t1")

	priv := newPod("priv", box("main", "ls", "/dev/kmsg"))
	priv.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{Privileged: ptr.To(true)}
	wantLines(t, n.finished(priv), "/dev/kmsg ")

	root := newPod("root", box("main", "id"))
	root.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsNonRoot: ptr.To(true)}
	n.create(root)
	n.until("root", "is refused", func(p *corev1.Pod) bool {
		s := status(p, "main")
		return s.State.Waiting != nil && s.State.Waiting.Reason == "CreateContainerConfigError" && strings.HasPrefix(s.State.Waiting.Message, "container has runAsNonRoot and image will run as root")
	})
}

func TestCgroupLimits(t *testing.T) {
	t.Parallel()
	n := newNode(t).start()
	c := box("main", "sleep")
	c.Resources = corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("250m")},
		Limits:   corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("500m"), corev1.ResourceMemory: resource.MustParse("64Mi")},
	}
	n.create(newPod("limited", c))
	pod := n.until("limited", "is ready", ready)
	id := strings.TrimPrefix(status(pod, "main").ContainerID, "containerd://")
	base := filepath.Join(n.dirs.Cgroup, "burstable", "poduid-limited")
	for file, want := range map[string]string{
		"memory/" + base + "/memory.limit_in_bytes":            "67108864",
		"memory/" + base + "/" + id + "/memory.limit_in_bytes": "67108864",
		"cpu/" + base + "/cpu.shares":                          "256",
		"cpu/" + base + "/" + id + "/cpu.shares":               "256",
		"cpu/" + base + "/" + id + "/cpu.cfs_quota_us":         "50000",
		"pids/" + base + "/pids.max":                           "4096",
	} {
		b, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", file))
		if err != nil || strings.TrimSpace(string(b)) != want {
			t.Errorf("%s is %q, %v; want %s", file, b, err, want)
		}
	}
	n.delete("limited", 0)
	if _, err := os.Stat(filepath.Join("/sys/fs/cgroup/memory", base)); !os.IsNotExist(err) {
		t.Errorf("pod cgroup is left: %v", err)
	}
}
