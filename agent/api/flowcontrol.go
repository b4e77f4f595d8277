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
	mandatory := len(bootstrap.MandatoryPriorityLevelConfigurations)
	for i, level := range slices.Concat(bootstrap.MandatoryPriorityLevelConfigurations, bootstrap.SuggestedPriorityLevelConfigurations) {
		if err := ensureLevel(ctx, client.PriorityLevelConfigurations(), level, i < mandatory); err != nil {
			return err
		}
	}
	mandatory = len(bootstrap.MandatoryFlowSchemas)
	for i, schema := range slices.Concat(bootstrap.MandatoryFlowSchemas, bootstrap.SuggestedFlowSchemas) {
		if err := ensureSchema(ctx, client.FlowSchemas(), schema, i < mandatory); err != nil {
			return err
		}
	}
	return nil
}

// ownedByServer says whether the server may overwrite the object, and which annotation says so from then on.
func ownedByServer(meta metav1.ObjectMeta, mandatory bool) (owned bool, annotation string) {
	if mandatory {
		return true, "true"
	}
	switch value := meta.Annotations[flowcontrolv1.AutoUpdateAnnotationKey]; value {
	case "true", "false":
		return value == "true", value
	default:
		owned = meta.Generation == 1 // untouched since it was made
		if owned {
			return true, "true"
		}
		return false, "false"
	}
}

func annotated(meta *metav1.ObjectMeta, value string) (changed bool) {
	if meta.Annotations[flowcontrolv1.AutoUpdateAnnotationKey] == value {
		return false
	}
	metav1.SetMetaDataAnnotation(meta, flowcontrolv1.AutoUpdateAnnotationKey, value)
	return true
}

func ensureLevel(ctx context.Context, client flowcontrolclient.PriorityLevelConfigurationInterface,
	wanted *flowcontrolv1.PriorityLevelConfiguration, mandatory bool) error {
	have, err := client.Get(ctx, wanted.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		wanted = wanted.DeepCopy()
		annotated(&wanted.ObjectMeta, "true")
		_, err = client.Create(ctx, wanted, metav1.CreateOptions{})
		return ignoreExists(err)
	}
	if err != nil {
		return err
	}
	owned, annotation := ownedByServer(have.ObjectMeta, mandatory)
	changed := annotated(&have.ObjectMeta, annotation)
	if owned && !equality.Semantic.DeepEqual(have.Spec, wanted.Spec) {
		have.Spec, changed = wanted.Spec, true
	}
	if !changed {
		return nil
	}
	_, err = client.Update(ctx, have, metav1.UpdateOptions{})
	return err
}

func ensureSchema(ctx context.Context, client flowcontrolclient.FlowSchemaInterface, wanted *flowcontrolv1.FlowSchema, mandatory bool) error {
	have, err := client.Get(ctx, wanted.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		wanted = wanted.DeepCopy()
		annotated(&wanted.ObjectMeta, "true")
		_, err = client.Create(ctx, wanted, metav1.CreateOptions{})
		return ignoreExists(err)
	}
	if err != nil {
		return err
	}
	owned, annotation := ownedByServer(have.ObjectMeta, mandatory)
	changed := annotated(&have.ObjectMeta, annotation)
	if owned && !equality.Semantic.DeepEqual(have.Spec, wanted.Spec) {
		have.Spec, changed = wanted.Spec, true
	}
	if !changed {
		return nil
	}
	_, err = client.Update(ctx, have, metav1.UpdateOptions{})
	return err
}

func ignoreExists(err error) error {
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}
