package disruption

import (
	"context"
	"encoding/json"
	"fmt"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

const strategic = types.StrategicMergePatchType

// scales finds what the controllers of the pods want. A controller that is gone is left out.
func (l *Loop) scales(ctx context.Context, of []*v1.Pod) (map[types.UID]Scale, error) {
	scales := map[types.UID]Scale{}
	asked := map[types.UID]bool{}
	for _, pod := range of {
		controller := metav1.GetControllerOfNoCopy(pod)
		if controller == nil || asked[controller.UID] {
			continue
		}
		asked[controller.UID] = true
		scale, found, err := l.scale(ctx, pod.Namespace, controller)
		if err != nil {
			return nil, err
		}
		if found {
			scales[controller.UID] = scale
		}
	}
	return scales, nil
}

func (l *Loop) scale(ctx context.Context, namespace string, ref *metav1.OwnerReference) (Scale, bool, error) {
	version, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		return Scale{}, false, err
	}
	kind := version.WithKind(ref.Kind)
	switch kind.GroupKind() {
	case schema.GroupKind{Kind: "ReplicationController"}:
		return cached(ref, func() (metav1.Object, error) { return l.controllers.ReplicationControllers(namespace).Get(ref.Name) })
	case schema.GroupKind{Group: "apps", Kind: "StatefulSet"}:
		return cached(ref, func() (metav1.Object, error) { return l.stateful.StatefulSets(namespace).Get(ref.Name) })
	case schema.GroupKind{Group: "apps", Kind: "ReplicaSet"}:
		set, err := l.sets.ReplicaSets(namespace).Get(ref.Name)
		if err != nil {
			return Scale{}, false, ignoreMissing(err)
		}
		if above := metav1.GetControllerOfNoCopy(set); set.UID == ref.UID && above != nil && above.Kind == "Deployment" {
			return cached(above, func() (metav1.Object, error) { return l.deployments.Deployments(namespace).Get(above.Name) })
		}
		return cached(ref, func() (metav1.Object, error) { return set, nil })
	}
	return l.custom(ctx, namespace, kind, ref)
}

// cached is the scale of a built-in controller, if it is still the one that is referred to.
func cached(ref *metav1.OwnerReference, get func() (metav1.Object, error)) (Scale, bool, error) {
	controller, err := get()
	if err != nil {
		return Scale{}, false, ignoreMissing(err)
	}
	return Scale{UID: ref.UID, Replicas: wants(controller)}, controller.GetUID() == ref.UID, nil
}

func ignoreMissing(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// custom asks the scale sub-resource of any other kind.
func (l *Loop) custom(ctx context.Context, namespace string, kind schema.GroupVersionKind, ref *metav1.OwnerReference) (Scale, bool, error) {
	resource, err := l.kinds.ResourceOf(kind)
	if err != nil {
		return Scale{}, false, err
	}
	object := []string{"/apis", resource.Group, resource.Version, "namespaces", namespace, resource.Resource, ref.Name}
	if resource.Group == "" {
		object = append([]string{"/api"}, object[2:]...)
	}
	answer, err := l.Client.Discovery().RESTClient().Get().AbsPath(append(object, "scale")...).SetHeader("Accept", "application/json").DoRaw(ctx)
	if apierrors.IsNotFound(err) {
		return Scale{}, false, l.without(resource)
	}
	if err != nil {
		return Scale{}, false, fmt.Errorf("read scale of %s %s/%s: %w", resource.GroupResource(), namespace, ref.Name, err)
	}
	var scale autoscalingv1.Scale
	if err := json.Unmarshal(answer, &scale); err != nil {
		return Scale{}, false, fmt.Errorf("read scale of %s %s/%s: %w", resource.GroupResource(), namespace, ref.Name, err)
	}
	return Scale{UID: scale.UID, Replicas: scale.Spec.Replicas}, scale.UID == ref.UID, nil
}

// without is why there is no scale: nil where the object is gone, an error where its kind has none.
func (l *Loop) without(resource schema.GroupVersionResource) error {
	served, err := l.Client.Discovery().ServerResourcesForGroupVersion(resource.GroupVersion().String())
	if err != nil {
		return fmt.Errorf("read which sub-resources %s has: %w", resource.GroupResource(), err)
	}
	for i := range served.APIResources {
		if served.APIResources[i].Name == resource.Resource+"/scale" {
			return nil
		}
	}
	return fmt.Errorf("%s does not implement the scale subresource", resource.GroupResource())
}
