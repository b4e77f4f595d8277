package admission

import (
	"context"
	"fmt"
	"sync"

	"k8s.io/apiserver/pkg/admission"
	mutatingwebhook "k8s.io/apiserver/pkg/admission/plugin/webhook/mutating"
	validatingwebhook "k8s.io/apiserver/pkg/admission/plugin/webhook/validating"
	"k8s.io/client-go/tools/cache"
)

// webhooks is one of the library's webhook plug-ins, made when there is a webhook: it holds compilers of expressions, which
// are several megabytes.
type webhooks[P admission.Interface] struct {
	*admission.Handler
	configured cache.Store
	plugin     func() (P, error)
}

// newWebhooks returns a plug-in that is made by create, once configured holds something.
func newWebhooks[P admission.Interface](configured cache.SharedIndexInformer, create func() (P, error)) webhooks[P] {
	w := webhooks[P]{Handler: admission.NewHandler(admission.Connect, admission.Create, admission.Delete, admission.Update),
		configured: configured.GetStore(), plugin: sync.OnceValues(create)}
	w.SetReadyFunc(configured.HasSynced)
	return w
}

// called returns the plug-in, false when there is no webhook.
func (w *webhooks[P]) called(a admission.Attributes) (plugin P, ok bool, err error) {
	if !w.WaitForReady() {
		return plugin, false, forbidden(a, "not yet ready to handle request")
	}
	if len(w.configured.ListKeys()) == 0 {
		return plugin, false, nil
	}
	if plugin, err = w.plugin(); err != nil {
		return plugin, false, fmt.Errorf("call webhooks: %w", err)
	}
	return plugin, true, nil
}

type mutatingWebhooks struct {
	webhooks[*mutatingwebhook.Plugin]
}

var _ admission.MutationInterface = (*mutatingWebhooks)(nil)

// Admit calls the webhooks that change objects.
func (w *mutatingWebhooks) Admit(ctx context.Context, a admission.Attributes, o admission.ObjectInterfaces) error {
	plugin, ok, err := w.called(a)
	if err != nil || !ok {
		return err
	}
	return plugin.Admit(ctx, a, o)
}

type validatingWebhooks struct {
	webhooks[*validatingwebhook.Plugin]
}

var _ admission.ValidationInterface = (*validatingWebhooks)(nil)

// Validate calls the webhooks that refuse objects.
func (w *validatingWebhooks) Validate(ctx context.Context, a admission.Attributes, o admission.ObjectInterfaces) error {
	plugin, ok, err := w.called(a)
	if err != nil || !ok {
		return err
	}
	return plugin.Validate(ctx, a, o)
}
