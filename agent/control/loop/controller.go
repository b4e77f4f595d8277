package loop

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"
)

// Wiring is what a controller is given.
type Wiring struct {
	// Client acts as the controller's service account. Required.
	Client kubernetes.Interface
	// Informers of what the controller looks at; the caller starts them. Required.
	Informers informers.SharedInformerFactory
	// Logger is required.
	Logger *slog.Logger
	// Recorder receives events; nil records through Client while a controller runs that tells any.
	Recorder record.EventRecorder
	// Metrics is a registry of the controller's own; nil registers nowhere.
	Metrics prometheus.Registerer
	// Workers is how many objects are worked on at once; 0 is [DefaultWorkers].
	Workers int
}

// Check says what of the wiring of the named loop is missing.
func (w Wiring) Check(name string) error {
	if w.Client == nil || w.Informers == nil || w.Logger == nil {
		return fmt.Errorf("make %s loop: Client, Informers and Logger are required", name)
	}
	return nil
}

// Controller is what the loops that keep objects and their dependents share: the wiring, what they did and informers do not
// show yet, and the driver. A loop embeds it and calls [Controller.Drive] once.
type Controller struct {
	Wiring
	// Pending is what the loop did and informers do not show yet.
	Pending *Pending

	component string
	driver    *Driver
}

// NewController makes a controller whose events come from component, which is empty for one that tells none. It drives nothing yet.
func NewController(w Wiring, component string) Controller {
	return Controller{Wiring: w, Pending: NewPending(), component: component}
}

// Drive sets what the controller does. Workers, Logger and Metrics of config are the wiring's.
func (c *Controller) Drive(config Config) error {
	metrics, err := OptionalMetrics(c.Metrics)
	if err != nil {
		return err
	}
	config.Workers, config.Logger, config.Metrics = c.Workers, c.Logger, metrics
	c.driver, err = New(config)
	return err
}

// Trigger is [Driver.Trigger].
func (c *Controller) Trigger(key string) { c.driver.Trigger(key) }

// Run works until ctx ends. It must not be called again before it returned.
func (c *Controller) Run(ctx context.Context) error {
	c.Pending.Reset()
	if c.Recorder == nil && c.component != "" {
		recorder, stop := NewRecorder(c.Client, c.component)
		c.Recorder = recorder
		defer func() {
			stop()
			c.Recorder = nil
		}()
	}
	return c.driver.Run(ctx)
}
