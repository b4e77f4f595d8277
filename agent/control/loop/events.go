package loop

import (
	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedv1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
)

// NewRecorder makes a recorder of events that name the component as their source. Equal events are folded into
// one with a count, and a component that floods is cut off, both by client-go's rules. stop ends its goroutines;
// events still queued then are dropped.
func NewRecorder(client kubernetes.Interface, component string) (recorder record.EventRecorder, stop func()) {
	broadcaster := record.NewBroadcaster()
	broadcaster.StartRecordingToSink(&typedv1.EventSinkImpl{Interface: client.CoreV1().Events("")})
	return broadcaster.NewRecorder(scheme.Scheme, v1.EventSource{Component: component}), broadcaster.Shutdown
}

// Event is what a decision has to tell of an object.
type Event struct{ Type, Reason, Message string }
