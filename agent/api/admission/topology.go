package admission

import (
	"context"
	"maps"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"
	corelisters "k8s.io/client-go/listers/core/v1"
)

// topologyLabels is the plug-in PodTopologyLabels: a pod tells the zone and region of its node.
type topologyLabels struct {
	*admission.Handler
	nodes corelisters.NodeLister
}

var _ admission.MutationInterface = (*topologyLabels)(nil)

func newTopologyLabels(config Config) *topologyLabels {
	informer := config.Informers.Core().V1().Nodes()
	p := &topologyLabels{Handler: admission.NewHandler(admission.Create), nodes: informer.Lister()}
	p.SetReadyFunc(informer.Informer().HasSynced)
	return p
}

// Admit labels a binding, from which the pod gets them, or a pod that is made on a node.
func (p *topologyLabels) Admit(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	var node string
	var meta *metav1.ObjectMeta
	switch {
	case concerns(a, pods(), "binding"):
		binding, err := object[*corev1.Binding](a)
		if err != nil {
			return err
		}
		if kind := binding.Target.Kind; kind != "" && kind != "Node" {
			return nil // the registry refuses it
		}
		node, meta = binding.Target.Name, &binding.ObjectMeta
	case concerns(a, pods(), ""):
		pod, err := object[*corev1.Pod](a)
		if err != nil {
			return err
		}
		node, meta = pod.Spec.NodeName, &pod.ObjectMeta
	}
	if node == "" {
		return nil
	}
	if !p.WaitForReady() {
		return forbidden(a, "not yet ready to handle request")
	}
	found, err := p.nodes.Get(node)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return forbidden(a, "%w", err)
	}
	labels := map[string]string{}
	for _, key := range []string{corev1.LabelTopologyZone, corev1.LabelTopologyRegion} {
		if value, ok := found.Labels[key]; ok {
			labels[key] = value
		}
	}
	if len(labels) > 0 {
		if meta.Labels == nil {
			meta.Labels = map[string]string{}
		}
		maps.Copy(meta.Labels, labels)
	}
	return nil
}
