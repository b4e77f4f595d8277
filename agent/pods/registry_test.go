package pods

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/podvine/podvine/agent/pods/images"
	"github.com/podvine/podvine/agent/pods/internal/podtest"
)

// pulled is a container of an image of a registry.
func pulled(image string, policy corev1.PullPolicy) corev1.Container {
	c := box("main", "sleep")
	c.Image, c.ImagePullPolicy = image, policy
	return c
}

func waiting(reason, message string) func(*corev1.Pod) bool {
	return func(p *corev1.Pod) bool {
		w := status(p, "main").State.Waiting
		return w != nil && w.Reason == reason && strings.Contains(w.Message, message)
	}
}

// push stores the test's image in a registry, with a configuration of its own.
func push(t *testing.T, r *podtest.Registry, repository string) string {
	t.Helper()
	img, err := podtest.NewImage(programs.Box, func(c *v1.Config) { c.Env = append(c.Env, "ORIGIN="+r.Host+"/"+repository) })
	if err != nil {
		t.Fatal(err)
	}
	return r.Push(t, img, repository, "1")
}

func TestPullPolicies(t *testing.T) {
	t.Parallel()
	reg := podtest.NewRegistry(t)
	n := newNode(t).start()
	image := push(t, reg, "team/app")
	absent := newPod("never", pulled(image, corev1.PullNever))
	n.create(absent)
	n.until("never", "is not pulled", waiting("ErrImageNeverPull", fmt.Sprintf("Container image %q is not present with pull policy of Never", image)))
	n.wantEvents(fmt.Sprintf("Warning ErrImageNeverPull Container image %q is not present with pull policy of Never", image), "Warning Failed Error: ErrImageNeverPull")
	if got := reg.Pulls(); got != 0 {
		t.Errorf("%d pulls with the policy Never", got)
	}

	n.create(newPod("first", pulled(image, corev1.PullIfNotPresent)))
	got := n.until("first", "is ready", ready)
	if s := status(got, "main"); s.Image != image || !strings.HasPrefix(s.ImageID, "sha256:") {
		t.Errorf("image %s, ID %s", s.Image, s.ImageID)
	}
	n.wantEvents(fmt.Sprintf("Normal Pulling Pulling image %q", image), fmt.Sprintf("Normal Pulled Successfully pulled image %q in ", image))
	first := reg.Pulls()
	n.create(newPod("second", pulled(image, corev1.PullIfNotPresent)))
	n.until("second", "is ready", ready)
	if got := reg.Pulls(); got != first {
		t.Errorf("an image that is there was fetched %d times more", got-first)
	}
	n.wantEvents(fmt.Sprintf("Normal Pulled Container image %q already present on machine", image))
	n.create(newPod("always", pulled(image, corev1.PullAlways)))
	n.until("always", "is ready", ready)
	n.wantEvents(fmt.Sprintf("Successfully pulled image %q", image))
	n.until("never", "finds the image in the end", ready)
}

func TestPullProblemsAsUsersSeeThem(t *testing.T) {
	t.Parallel()
	reg := podtest.NewRegistry(t)
	n := newNode(t).start()
	push(t, reg, "team/app")
	missing := reg.Host + "/team/absent:1"
	n.create(newPod("missing", pulled(missing, corev1.PullIfNotPresent)))
	n.until("missing", "says why", waiting("ErrImagePull", fmt.Sprintf("failed to pull and unpack image %q", missing)))
	n.until("missing", "backs off", waiting("ImagePullBackOff", fmt.Sprintf("Back-off pulling image %q", missing)))
	n.wantEvents(fmt.Sprintf("Warning Failed Failed to pull image %q: ", missing), "not found", "Warning Failed Error: ErrImagePull",
		fmt.Sprintf("Normal BackOff Back-off pulling image %q", missing), "Warning Failed Error: ImagePullBackOff")
	n.create(newPod("bad", pulled("NOT A NAME", corev1.PullIfNotPresent)))
	n.until("bad", "says why", waiting("InvalidImageName", `couldn't parse image name "NOT A NAME": invalid reference format`))
	n.wantEvents(`Warning InspectFailed Failed to apply default image tag "NOT A NAME"`, "Warning Failed Error: InvalidImageName")
}

func TestPullSecrets(t *testing.T) {
	t.Parallel()
	reg := podtest.NewRegistry(t)
	reg.User, reg.Password = "robot", "hunter2"
	n := newNode(t)
	login := map[string]any{"auths": map[string]any{reg.Host: map[string]string{"username": "robot", "password": "hunter2"}}}
	raw, err := json.Marshal(login)
	if err != nil {
		t.Fatal(err)
	}
	n.mustCreate(&corev1.Secret{ObjectMeta: meta("login"), Type: corev1.SecretTypeDockerConfigJson, Data: map[string][]byte{corev1.DockerConfigJsonKey: raw}})
	n.start()
	image := push(t, reg, "team/private")
	n.create(newPod("anonymous", pulled(image, corev1.PullIfNotPresent)))
	n.until("anonymous", "is refused", waiting("ImagePullBackOff", "pull access denied, repository does not exist or may require authorization"))
	named := newPod("named", pulled(image, corev1.PullIfNotPresent))
	named.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "login"}, {Name: "absent"}}
	n.create(named)
	n.until("named", "is ready", ready)
	n.wantEvents("Warning FailedToRetrieveImagePullSecret Unable to retrieve some image pull secrets (absent)")
	for _, e := range n.seen {
		if strings.Contains(e, "hunter2") {
			t.Errorf("an event tells the password: %s", e)
		}
	}
}

// A registry that stops sending holds up neither its own pulls for ever nor
// those from others at all.
func TestStalledRegistry(t *testing.T) {
	t.Parallel()
	stalled, good, slow := podtest.NewRegistry(t), podtest.NewRegistry(t), podtest.NewRegistry(t)
	n := newNode(t)
	n.cfg.PullStallTimeout = 2 * time.Second
	slow.Drip = n.cfg.PullStallTimeout / 4
	n.start()
	const pods = images.MaxParallelRegistryPulls + 1
	names := make([]string, pods)
	all := make([]string, pods)
	for i := range pods {
		names[i] = fmt.Sprintf("stalled%d", i)
		all[i] = push(t, stalled, names[i])
	}
	stalled.Stall()
	for i, name := range names {
		n.create(newPod(name, pulled(all[i], corev1.PullIfNotPresent)))
	}
	n.create(newPod("good", pulled(push(t, good, "app"), corev1.PullIfNotPresent)))
	n.until("good", "is ready beside them", ready)
	n.create(newPod("slow", pulled(push(t, slow, "app"), corev1.PullIfNotPresent)))
	for _, name := range names {
		n.until(name, "gives up", func(p *corev1.Pod) bool {
			return waiting("ErrImagePull", images.ErrStalled.Error())(p) || waiting("ImagePullBackOff", images.ErrStalled.Error())(p)
		})
	}
	n.until("slow", "is ready, though it took longer than a stall", ready)
}
