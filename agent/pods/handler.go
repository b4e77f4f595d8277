package pods

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/podvine/podvine/agent/pods/nodeclient"
)

// defaultHandler is the one way in which this node runs containers; "" names it too.
const defaultHandler = "runc"

// runtimeHandlers are what a RuntimeClass may name, as the Node's status tells.
func runtimeHandlers() []corev1.NodeRuntimeHandler {
	features := corev1.NodeRuntimeHandlerFeatures{RecursiveReadOnlyMounts: ptr.To(true), UserNamespaces: ptr.To(true)}
	return []corev1.NodeRuntimeHandler{{Name: "", Features: &features}, {Name: defaultHandler, Features: features.DeepCopy()}}
}

// checkHandler refuses a pod whose RuntimeClass asks for a handler that this
// node does not have. What it found out is kept, for when nobody can be asked.
func (w *worker) checkHandler(ctx context.Context, pod *corev1.Pod) error {
	class := ptr.Deref(pod.Spec.RuntimeClassName, "")
	w.mu.Lock()
	known := w.rec.Handler
	w.mu.Unlock()
	if class == "" || known != nil {
		return nil
	}
	cctx, cancel := context.WithTimeout(ctx, nodeclient.CallTimeout)
	defer cancel()
	rc, err := w.agent.cfg.Client.NodeV1().RuntimeClasses().Get(cctx, class, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("RuntimeClass %q not found", class)
	}
	if err != nil {
		return fmt.Errorf("read RuntimeClass %q: %w", class, err)
	}
	if !slices.Contains([]string{"", defaultHandler}, rc.Handler) {
		return fmt.Errorf("no runtime for %q is configured; this node has %q", rc.Handler, defaultHandler)
	}
	w.mu.Lock()
	w.rec.Handler = &rc.Handler
	w.mu.Unlock()
	return nil
}
