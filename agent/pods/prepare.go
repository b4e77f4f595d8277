package pods

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/podvine/podvine/agent/pods/environ"
	"github.com/podvine/podvine/agent/pods/lifecycle"
	"github.com/podvine/podvine/agent/pods/nodeclient"
	"github.com/podvine/podvine/agent/pods/ocispec"
	"github.com/podvine/podvine/agent/pods/sandbox"
	"github.com/podvine/podvine/agent/pods/volumes"
)

// prepare makes what the pod's containers share.
func (w *worker) prepare(ctx context.Context) {
	reason, err := w.makeSandbox(ctx)
	if err != nil && ctx.Err() == nil {
		w.agent.event(w.pod(), "", corev1.EventTypeWarning, reason, err.Error())
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sandbox.Busy = false
	if err != nil {
		w.sandbox.RetryAt = time.Now().Add(lifecycle.PrepareRetryDelay)
		return
	}
	w.sandbox.Ready, w.rec.Prepared, w.sandbox.Released = true, true, false
}

func (w *worker) makeSandbox(ctx context.Context) (reason string, err error) {
	pod := w.pod()
	if lack := unsupported(pod); lack != "" {
		return "FailedCreatePodSandBox", fmt.Errorf("Failed to create pod sandbox: %s", lack) //nolint:staticcheck // users know these words
	}
	if err := w.checkHandler(ctx, pod); err != nil {
		return "FailedCreatePodSandBox", fmt.Errorf("Failed to create pod sandbox: %w", err) //nolint:staticcheck // users know these words
	}
	if err := w.claimIDs(pod); err != nil {
		return "FailedCreatePodSandBox", fmt.Errorf("Failed to create pod sandbox: %w", err) //nolint:staticcheck // users know these words
	}
	w.track()
	w.noteServices()
	// Volumes of secrets have modes for those inside; nobody outside gets here.
	if err := os.MkdirAll(filepath.Dir(w.dir()), 0o750); err != nil {
		return "FailedCreatePodSandBox", fmt.Errorf("make folder of all pods: %w", err)
	}
	if err := os.Chmod(filepath.Dir(w.dir()), 0o750); err != nil {
		return "FailedCreatePodSandBox", fmt.Errorf("close folder of all pods: %w", err)
	}
	for _, dir := range []string{w.dir(), filepath.Join(w.dir(), "containers"), w.logDir(), w.agent.cfg.ContainerLogDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return "FailedCreatePodSandBox", fmt.Errorf("make pod folder: %w", err)
		}
	}
	if err := w.agent.cgroups.Make(w.cgroup(), ocispec.PodLimits(pod, w.agent.cfg.PodPidsLimit)); err != nil {
		return "FailedCreatePodContainer", fmt.Errorf("unable to ensure pod container exists: %w", err)
	}
	hostname := ocispec.Hostname(pod)
	if fqdn := environ.FQDN(pod, hostname, w.agent.cfg.ClusterDomain); fqdn != "" && ptr.Deref(pod.Spec.SetHostnameAsFQDN, false) {
		hostname = fqdn
	}
	w.mu.Lock()
	firstID := w.rec.FirstID
	w.mu.Unlock()
	paths, fresh, err := sandbox.Make(w.sandboxOptions(pod, filepath.Join(w.stateDir(), "ns"), hostname, firstID))
	if err != nil {
		return "FailedCreatePodSandBox", fmt.Errorf("Failed to create pod sandbox: %w", err) //nolint:staticcheck // users know these words
	}
	var ips []string
	if !pod.Spec.HostNetwork {
		res, err := w.agent.cfg.Network.Setup(ctx, w.ref(), paths.Net, hostPorts(pod))
		if err != nil {
			return "FailedCreatePodSandBox", fmt.Errorf("Failed to create pod sandbox: %w", err) //nolint:staticcheck // users know these words
		}
		for _, ip := range res.IPs {
			ips = append(ips, ip.String())
		}
	}
	w.mu.Lock()
	w.paths, w.rec.IPs = paths, ips
	if fresh {
		w.rec.InitID, w.rec.InitPid = "", 0
	}
	w.mu.Unlock()
	refresh, err := volumes.Setup(ctx, w.volumes())
	if err != nil {
		return "FailedMount", err
	}
	w.mu.Lock()
	w.refreshAt = refresh
	w.mu.Unlock()
	if err := w.writeFiles(); err != nil {
		return "FailedCreatePodSandBox", err
	}
	if err := w.sharePIDs(ctx, paths); err != nil {
		return "FailedCreatePodSandBox", err
	}
	return "", nil
}

// unsupported names a guarantee that the pod asks for and that this version
// cannot give; such a pod waits rather than run without it.
func unsupported(pod *corev1.Pod) string {
	psc := pod.Spec.SecurityContext
	if psc != nil && psc.AppArmorProfile != nil && psc.AppArmorProfile.Type == corev1.AppArmorProfileTypeLocalhost {
		return "AppArmor profiles of type Localhost are not supported by this version"
	}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if lack := lacking(&list[i]); lack != "" {
				return lack
			}
		}
	}
	if len(pod.Spec.ResourceClaims) > 0 {
		return "resource claims are not supported by this version"
	}
	return ""
}

// lacking is unsupported for one container.
func lacking(c *corev1.Container) string {
	sc := c.SecurityContext
	if sc != nil && sc.AppArmorProfile != nil && sc.AppArmorProfile.Type == corev1.AppArmorProfileTypeLocalhost {
		return "AppArmor profiles of type Localhost are not supported by this version"
	}
	return ""
}

func hostPorts(pod *corev1.Pod) []HostPort {
	var out []HostPort
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			for _, p := range list[i].Ports {
				if p.HostPort == 0 {
					continue
				}
				proto := p.Protocol
				if proto == "" {
					proto = corev1.ProtocolTCP
				}
				out = append(out, HostPort{HostIP: p.HostIP, HostPort: p.HostPort, ContainerPort: p.ContainerPort, Protocol: proto})
			}
		}
	}
	return out
}

// writeFiles makes the pod's hosts, hostname and resolv.conf.
func (w *worker) writeFiles() error {
	f := w.facts()
	hostname := ocispec.Hostname(f.Pod)
	host := ""
	if f.Pod.Spec.HostNetwork {
		raw, err := os.ReadFile("/etc/hosts")
		if err != nil && !os.IsNotExist(err) {
			return fmt.Errorf("read host's hosts file: %w", err)
		}
		host = string(raw) + "\n"
	}
	raw, err := os.ReadFile(w.agent.cfg.HostResolvConf)
	if err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("read host's resolv.conf: %w", err)
	}
	resolver := environ.Resolve(f.Pod, w.agent.cfg.ClusterDNS, w.agent.cfg.ClusterDomain, environ.ParseResolver(string(raw)))
	for name, text := range map[string]string{
		"etc-hosts":   environ.HostsFile(f, hostname, w.agent.cfg.ClusterDomain, host),
		"hostname":    hostname + "\n",
		"resolv.conf": resolver.String(),
	} {
		if err := os.WriteFile(filepath.Join(w.dir(), name), []byte(text), 0o644); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	return nil
}

// noteServices keeps the services that the pod's environment is made from, for
// a time when nobody can be asked.
func (w *worker) noteServices() {
	list, synced := w.agent.servicesFor(w.pod().Namespace)
	if !synced {
		return
	}
	w.mu.Lock()
	w.rec.Services = list
	w.mu.Unlock()
}

// release takes down what the containers shared; logs stay until the pod is
// deleted.
func (w *worker) release(ctx context.Context) {
	err := w.tearDown(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		if ctx.Err() == nil {
			w.agent.log.Error("release pod", "pod", w.uid, "err", err)
		}
		w.agent.later(lifecycle.PrepareRetryDelay, func() {
			w.mu.Lock()
			w.sandbox.Busy = false
			w.mu.Unlock()
			w.nudge()
		})
		return
	}
	w.sandbox.Busy = false
	w.sandbox.Ready, w.sandbox.Released, w.rec.Prepared = false, true, false
}

func (w *worker) tearDown(ctx context.Context) error {
	w.mu.Lock()
	initID, paths := w.rec.InitID, w.paths
	var ids []string
	for _, c := range w.rec.Containers {
		if c.ID != "" {
			ids = append(ids, c.ID)
		}
	}
	w.mu.Unlock()
	if initID != "" {
		ids = append(ids, initID)
	}
	var errs []error
	for _, id := range ids {
		errs = append(errs, w.agent.rt.Remove(ctx, id))
	}
	if !w.pod().Spec.HostNetwork {
		errs = append(errs, w.agent.cfg.Network.Teardown(ctx, w.ref(), paths.Net))
	}
	errs = append(errs, sandbox.Remove(filepath.Join(w.stateDir(), "ns")), os.RemoveAll(w.stateDir()))
	w.agent.objects.Track(w.uid, nil)
	errs = append(errs, volumes.Teardown(w.dir()), w.agent.cgroups.Remove(w.cgroup()))
	err := errors.Join(errs...)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil && w.rec.FirstID != 0 {
		w.agent.ids.release(w.rec.FirstID)
		w.rec.FirstID = 0
	}
	return err
}

// finishLocked tells the API to forget the pod, once its last status is there.
func (w *worker) finishLocked(ctx context.Context) {
	if w.rec.Static {
		// Its picture goes when the pod is gone.
		w.effect(w.forget)
		return
	}
	if w.reporting || !w.reportedLocked() {
		return
	}
	pod := w.rec.Pod
	w.reporting = true
	w.effect(func() {
		err := nodeclient.Finish(ctx, w.agent.cfg.Client, pod)
		w.mu.Lock()
		w.reporting = false
		if err == nil {
			w.fails = 0
			w.mu.Unlock()
			w.forget()
			return
		}
		w.failedLocked()
		w.mu.Unlock()
		if ctx.Err() == nil {
			w.agent.log.Warn("delete finished pod from the API", "pod", pod.Namespace+"/"+pod.Name, "err", err)
		}
	})
}

// forget removes the last traces of a pod from this node.
func (w *worker) forget() {
	w.mu.Lock()
	if w.finished {
		w.mu.Unlock()
		return
	}
	w.finished = true
	pod := w.rec.Pod
	w.mu.Unlock()
	w.agent.forgetPod(w, pod)
	w.nudge()
}

func (w *worker) logDir() string { return w.agent.podLogDir(w.pod()) }

func (a *Agent) podLogDir(p *corev1.Pod) string {
	return filepath.Join(a.cfg.LogDir, p.Namespace+"_"+p.Name+"_"+string(p.UID))
}

func (a *Agent) podDir(uid types.UID) string {
	return filepath.Join(a.cfg.KubeletDir, "pods", string(uid))
}
