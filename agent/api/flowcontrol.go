package api

import (
	"context"
	"slices"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap"
	"k8s.io/client-go/kubernetes"
	flowcontrolclient "k8s.io/client-go/kubernetes/typed/flowcontrol/v1"
)

// keepFlowControl makes the priority levels and flow schemas that every cluster has. Mandatory ones, and suggested ones
// whose auto-update annotation says so, are set to this version's; others belong to the user once they exist.
func (s *Server) keepFlowControl(hook HookContext) error {
	client, err := kubernetes.NewForConfig(hook.LoopbackClientConfig)
	if err != nil {
		return err
	}
	return s.retry(hook, "make priority levels and flow schemas", func(ctx context.Context) error {
		return ensureFlowControl(ctx, client.FlowcontrolV1())
	})
}

func ensureFlowControl(ctx context.Context, client flowcontrolclient.FlowcontrolV1Interface) error {
	takeLevel := func(have, wanted *flowcontrolv1.PriorityLevelConfiguration) (changed bool) {
		changed = !equality.Semantic.DeepEqual(have.Spec, wanted.Spec)
		have.Spec = wanted.Spec
		return changed
	}
	takeSchema := func(have, wanted *flowcontrolv1.FlowSchema) (changed bool) {
		changed = !equality.Semantic.DeepEqual(have.Spec, wanted.Spec)
		have.Spec = wanted.Spec
		return changed
	}
	mandatory := len(bootstrap.MandatoryPriorityLevelConfigurations)
	for i, level := range slices.Concat(bootstrap.MandatoryPriorityLevelConfigurations, bootstrap.SuggestedPriorityLevelConfigurations) {
		if err := ensureConfiguration(ctx, client.PriorityLevelConfigurations(), level.DeepCopy(), i < mandatory, takeLevel); err != nil {
			return err
		}
	}
	mandatory = len(bootstrap.MandatoryFlowSchemas)
	for i, schema := range slices.Concat(bootstrap.MandatoryFlowSchemas, bootstrap.SuggestedFlowSchemas) {
		if err := ensureConfiguration(ctx, client.FlowSchemas(), schema.DeepCopy(), i < mandatory, takeSchema); err != nil {
			return err
		}
	}
	return nil
}

// configurations is a client for one of the two kinds.
type configurations[T metav1.Object] interface {
	Get(ctx context.Context, name string, options metav1.GetOptions) (T, error)
	Create(ctx context.Context, object T, options metav1.CreateOptions) (T, error)
	Update(ctx context.Context, object T, options metav1.UpdateOptions) (T, error)
}

// ensureConfiguration makes the wanted object, or lets take bring its specification into the one that is there.
func ensureConfiguration[T metav1.Object](ctx context.Context, client configurations[T], wanted T, mandatory bool, take func(have, wanted T) (changed bool)) error {
	have, err := client.Get(ctx, wanted.GetName(), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		annotated(wanted, "true")
		_, err = client.Create(ctx, wanted, metav1.CreateOptions{})
		return ignoreExists(err)
	}
	if err != nil {
		return err
	}
	owned, annotation := ownedByServer(have, mandatory)
	changed := annotated(have, annotation)
	if owned && take(have, wanted) {
		changed = true
	}
	if !changed {
		return nil
	}
	_, err = client.Update(ctx, have, metav1.UpdateOptions{})
	return err
}

// ownedByServer says whether the server may overwrite the object, and which annotation says so from then on.
func ownedByServer(object metav1.Object, mandatory bool) (owned bool, annotation string) {
	if mandatory {
		return true, "true"
	}
	switch value := object.GetAnnotations()[flowcontrolv1.AutoUpdateAnnotationKey]; value {
	case "true", "false":
		return value == "true", value
	default:
		owned = object.GetGeneration() == 1 // untouched since it was made
		if owned {
			return true, "true"
		}
		return false, "false"
	}
}

func annotated(object metav1.Object, value string) (changed bool) {
	annotations := object.GetAnnotations()
	if annotations[flowcontrolv1.AutoUpdateAnnotationKey] == value {
		return false
	}
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[flowcontrolv1.AutoUpdateAnnotationKey] = value
	object.SetAnnotations(annotations)
	return true
}

func ignoreExists(err error) error {
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}
