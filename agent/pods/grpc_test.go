package pods

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/podvine/podvine/agent/pods/internal/podtest"
)

const healthImage = "podvine.test/health:1"

func TestGRPCProbes(t *testing.T) {
	t.Parallel()
	n := newNode(t).start()
	archive, err := podtest.Archive(programs.Health, healthImage, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.agent.Images().Import(context.Background(), archive); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(n.dirs.Root, "health")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	set := func(service, health string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, service), []byte(health), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	set("default", "well")
	set("started", "ill")
	set("app", "ill")
	probe := func(service *string, failures int32) *corev1.Probe {
		return &corev1.Probe{PeriodSeconds: 1, TimeoutSeconds: 5, FailureThreshold: failures, ProbeHandler: corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: 9090, Service: service}}}
	}
	c := box("main", ":9090", "/health")
	c.Image = healthImage
	c.VolumeMounts = []corev1.VolumeMount{{Name: "health", MountPath: "/health"}}
	c.StartupProbe, c.ReadinessProbe, c.LivenessProbe = probe(ptr.To("started"), 600), probe(ptr.To("app"), 1), probe(nil, 1)
	pod := newPod("grpc", c)
	pod.Spec.Volumes = []corev1.Volume{{Name: "health", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: dir}}}}
	n.create(pod)
	n.wantEvents(`Startup probe failed: service unhealthy (responded with "NOT_SERVING")`)
	if s := status(n.get("grpc"), "main"); s.Started == nil || *s.Started {
		t.Errorf("started although the service says no: %+v", s)
	}
	set("started", "well")
	n.until("grpc", "has started but is not ready", func(p *corev1.Pod) bool {
		s := status(p, "main")
		return s.Started != nil && *s.Started && !s.Ready
	})
	n.wantEvents(`Readiness probe failed: service unhealthy (responded with "NOT_SERVING")`)
	set("app", "well")
	n.until("grpc", "is ready", ready)
	if err := os.Remove(filepath.Join(dir, "app")); err != nil {
		t.Fatal(err)
	}
	n.until("grpc", "is not ready while nobody knows its service", func(p *corev1.Pod) bool { return !ready(p) && status(p, "main").RestartCount == 0 })
	n.wantEvents("Readiness probe failed: error: health rpc probe failed: unknown service")
	set("default", "ill")
	n.until("grpc", "is restarted", func(p *corev1.Pod) bool { return status(p, "main").RestartCount > 0 })
	n.wantEvents("Liveness probe failed: service unhealthy", "Container main failed liveness probe, will be restarted")
	set("default", "well")
	set("app", "well")
	n.until("grpc", "is ready again", ready)
	n.delete("grpc", 0)
}
