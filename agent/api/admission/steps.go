package admission

import (
	"context"
	"fmt"
	"io"
	"time"

	"k8s.io/apiserver/pkg/admission"
)

// Types of steps, as metrics call them.
const (
	admitStep    = "admit"
	validateStep = "validate"
)

// operations are those that there are, in the order of their index.
var operations = [4]admission.Operation{admission.Create, admission.Update, admission.Delete, admission.Connect}

// indexOf returns an operation's place in operations, -1 for one that there is not.
func indexOf(operation admission.Operation) int {
	for i, o := range operations {
		if o == operation {
			return i
		}
	}
	return -1
}

// steps are the plug-ins in their order, sorted by what they handle once and not at each request, each with what measures
// how long it took. One reading of the clock is the end of a step and the beginning of the next.
type steps struct {
	began      time.Time // readings of the clock count from here
	mutating   [len(operations)][]step[admission.MutationInterface]
	validating [len(operations)][]step[admission.ValidationInterface]
	whole      struct{ mutating, validating [len(operations)]*durations }
}

type step[P any] struct {
	plugin P
	took   *durations
}

// newSteps makes the chain of plug-ins in their order.
func newSteps(plugins []Named, to *histograms) (*steps, error) {
	s := &steps{began: time.Now()}
	for i, operation := range operations {
		s.whole.mutating[i] = to.whole(admitStep, operation)
		s.whole.validating[i] = to.whole(validateStep, operation)
		for _, p := range plugins {
			if !p.Plugin.Handles(operation) {
				continue
			}
			if m, ok := p.Plugin.(admission.MutationInterface); ok {
				s.mutating[i] = append(s.mutating[i], step[admission.MutationInterface]{m, to.plugin(p.Name, admitStep, operation)})
			}
			if v, ok := p.Plugin.(admission.ValidationInterface); ok {
				s.validating[i] = append(s.validating[i], step[admission.ValidationInterface]{v, to.plugin(p.Name, validateStep, operation)})
			}
		}
	}
	for _, p := range plugins {
		if err := admission.ValidateInitialization(p.Plugin); err != nil {
			return nil, fmt.Errorf("make admission plug-in %s: %w", p.Name, err)
		}
	}
	return s, nil
}

// Handles implements admission.Interface.
func (s *steps) Handles(operation admission.Operation) bool {
	i := indexOf(operation)
	return i >= 0 && len(s.mutating[i])+len(s.validating[i]) > 0
}

// Admit asks those who may change the object, until one refuses.
func (s *steps) Admit(ctx context.Context, a admission.Attributes, o admission.ObjectInterfaces) error {
	i := indexOf(a.GetOperation())
	if i < 0 {
		return nil
	}
	last := time.Since(s.began)
	for _, p := range s.mutating[i] {
		err := p.plugin.Admit(ctx, a, o)
		now := time.Since(s.began)
		p.took.observe(now-last, err != nil)
		if err != nil {
			return err
		}
		last = now
	}
	return nil
}

// Validate asks those who may refuse it, until one does.
func (s *steps) Validate(ctx context.Context, a admission.Attributes, o admission.ObjectInterfaces) error {
	i := indexOf(a.GetOperation())
	if i < 0 {
		return nil
	}
	first := time.Since(s.began)
	for last, list := first, s.validating[i]; len(list) > 0; list = list[1:] {
		err := list[0].plugin.Validate(ctx, a, o)
		now := time.Since(s.began)
		list[0].took.observe(now-last, err != nil)
		if err != nil {
			s.whole.validating[i].observe(now-first, true)
			return err
		}
		last = now
	}
	s.whole.validating[i].observe(time.Since(s.began)-first, false)
	return nil
}

// again is the chain that runs its plug-ins once more where a webhook or policy changed an object that an earlier one had seen
// already, and measures all of that as one.
type again struct {
	*steps
	library admission.MutationInterface
}

// rerun makes it: the library, which alone may tell whether a second run is asked for, is given the chain as its only plug-in.
func (s *steps) rerun() (*again, error) {
	const name = "chain"
	registry := admission.NewPlugins()
	registry.Register(name, func(io.Reader) (admission.Interface, error) { return s, nil })
	linked, err := registry.NewFromPlugins([]string{name}, unconfigured{}, admission.PluginInitializers{}, nil)
	if err != nil {
		return nil, fmt.Errorf("make admission chain: %w", err)
	}
	return &again{s, linked.(admission.MutationInterface)}, nil
}

// Admit changes the object, in one run or two.
func (c *again) Admit(ctx context.Context, a admission.Attributes, o admission.ObjectInterfaces) error {
	i := indexOf(a.GetOperation())
	if i < 0 {
		return nil
	}
	began := time.Since(c.began)
	err := c.library.Admit(ctx, a, o)
	c.whole.mutating[i].observe(time.Since(c.began)-began, err != nil)
	return err
}

// unconfigured says that no plug-in has a file of configuration.
type unconfigured struct{}

// ConfigFor implements admission.ConfigProvider.
func (unconfigured) ConfigFor(string) (io.Reader, error) { return nil, nil }
