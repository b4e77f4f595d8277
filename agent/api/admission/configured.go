package admission

import (
	"context"
	"fmt"
	"sync"

	"k8s.io/apiserver/pkg/admission"
	"k8s.io/client-go/tools/cache"
)

// configured is one of the library's plug-ins for webhooks or policies, asked only when there are some: a request for which
// nobody has configured anything pays nothing for it, and what the plug-in needs (compilers of expressions take several
// megabytes) is made when it is asked first.
type configured[P admission.Interface] struct {
	*admission.Handler
	objects cache.Store
	// synced is asked before the handler, whose wait begins with a timer.
	synced func() bool
	plugin func() (P, error)
}

// whenConfigured returns a plug-in that is made by create, once the informer shows something.
func whenConfigured[P admission.Interface](informer cache.SharedIndexInformer, create func() (P, error), operations ...admission.Operation) configured[P] {
	c := configured[P]{Handler: admission.NewHandler(operations...), objects: informer.GetStore(), synced: informer.HasSynced, plugin: sync.OnceValues(create)}
	c.SetReadyFunc(informer.HasSynced)
	return c
}

// asked returns the plug-in, false when there is nothing to ask it for.
func (c *configured[P]) asked(a admission.Attributes) (plugin P, ok bool, err error) {
	if !c.synced() && !c.WaitForReady() {
		return plugin, false, forbidden(a, "not yet ready to handle request")
	}
	if len(c.objects.ListKeys()) == 0 {
		return plugin, false, nil
	}
	if plugin, err = c.plugin(); err != nil {
		return plugin, false, fmt.Errorf("make admission plug-in: %w", err)
	}
	return plugin, true, nil
}

// mutators are webhooks or policies that change objects.
type mutators struct {
	configured[admission.MutationInterface]
}

// Admit changes the object.
func (m *mutators) Admit(ctx context.Context, a admission.Attributes, o admission.ObjectInterfaces) error {
	plugin, ok, err := m.asked(a)
	if err != nil || !ok {
		return err
	}
	return plugin.Admit(ctx, a, o)
}

// validators are webhooks or policies that refuse objects.
type validators struct {
	configured[admission.ValidationInterface]
}

// Validate refuses the object.
func (v *validators) Validate(ctx context.Context, a admission.Attributes, o admission.ObjectInterfaces) error {
	plugin, ok, err := v.asked(a)
	if err != nil || !ok {
		return err
	}
	return plugin.Validate(ctx, a, o)
}
