// Package lifecycle decides what is to happen to a pod next, and what its
// status says.
//
// Role: Decide takes what the pod asks for, what is observed of it and the time,
// and returns actions and a status. It is pure: it reads no clock, calls nobody
// and keeps nothing, so each behaviour of a pod is a table row in a test. Who
// carries the actions out (agent/pods) reports back by a new View.
package lifecycle

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Phase of one container, as observed.
type Phase string

// A container has not been made, runs, or has ended.
const (
	Absent  Phase = ""
	Running Phase = "running"
	Exited  Phase = "exited"
)

// Busy says which effect is under way for a container; while it is, no other
// is asked for.
type Busy string

// The effects that take time.
const (
	Idle     Busy = ""
	Starting Busy = "starting"
	Stopping Busy = "stopping"
	Resizing Busy = "resizing"
)

// Container is what is known of one container of a pod. It is kept on disk as
// JSON, so that back-off and restart counts survive the agent.
type Container struct {
	Name  string `json:"name"`
	ID    string `json:"id,omitempty"`
	Phase Phase  `json:"phase,omitempty"`
	Busy  Busy   `json:"-"`
	// SpecImage is what the spec asked for when the container was made.
	SpecImage string `json:"specImage,omitempty"`
	// Image and ImageID as the status shows them.
	Image   string `json:"image,omitempty"`
	ImageID string `json:"imageID,omitempty"`
	// Attempts counts the containers made so far; Restarts is what users see.
	Attempts   int       `json:"attempts,omitempty"`
	Restarts   int32     `json:"restarts,omitempty"`
	StartedAt  time.Time `json:"startedAt,omitzero"`
	FinishedAt time.Time `json:"finishedAt,omitzero"`
	ExitCode   int32     `json:"exitCode,omitempty"`
	Signal     int32     `json:"signal,omitempty"`
	Reason     string    `json:"reason,omitempty"`
	Message    string    `json:"message,omitempty"`
	// Last is how the container before this one ended.
	Last *corev1.ContainerStateTerminated `json:"last,omitempty"`
	// Delay must pass between FinishedAt and the next start.
	Delay time.Duration `json:"delay,omitempty"`
	// Problem keeps the container from starting; it is tried again at RetryAt.
	Problem *corev1.ContainerStateWaiting `json:"problem,omitempty"`
	RetryAt time.Time                     `json:"retryAt,omitzero"`
	// RetryDelay is the wait that led to RetryAt.
	RetryDelay time.Duration `json:"retryDelay,omitempty"`
	// Started and Ready are the probes' verdicts on the running container.
	Started bool `json:"started,omitempty"`
	Ready   bool `json:"ready,omitempty"`
	// Unhealthy is set when a probe asks for a restart.
	Unhealthy *Unhealthy `json:"unhealthy,omitempty"`
	// Applied is the size that the running container has; nil for one whose size
	// is not known.
	Applied *corev1.ResourceRequirements `json:"applied,omitempty"`
	// ResizeError is why the last resize failed; it is tried again at ResizeAt.
	ResizeError string    `json:"resizeError,omitempty"`
	ResizeAt    time.Time `json:"resizeAt,omitzero"`
	// Replace is set while a container is stopped only to be made anew.
	Replace bool `json:"replace,omitempty"`
	// Mounts that the running container was made with.
	Mounts []corev1.VolumeMountStatus `json:"mounts,omitempty"`
	User   *corev1.ContainerUser      `json:"user,omitempty"`
}

// Unhealthy is a probe's order to restart a container.
type Unhealthy struct {
	// Message of the Killing event.
	Message string `json:"message"`
	// GraceSeconds overrides the pod's grace period when set.
	GraceSeconds *int64 `json:"graceSeconds,omitempty"`
}

// Sandbox is what is known of what the containers share.
type Sandbox struct {
	// Ready: namespaces, volumes and network are there.
	Ready bool
	// Busy while it is made or released.
	Busy bool
	// Released once everything of the pod is gone from the node.
	Released bool
	// RetryAt after a failure to make it.
	RetryAt time.Time
	// IPs of the pod, the primary one first.
	IPs []string
}

// View is everything Decide looks at.
type View struct {
	Pod *corev1.Pod
	// Given is the pod with the sizes that the node has room for; nil for those
	// that it asks for. Resize is why the two differ.
	Given   *corev1.Pod
	Resize  Verdict
	Now     time.Time
	Sandbox Sandbox
	// Containers by name; a missing one is Absent.
	Containers map[string]Container
	// Rejected ends the pod before it starts (admission), with a reason.
	Rejected *Rejection
	// Standing is the status that was last reported; phases never go back.
	Standing corev1.PodStatus
	// StartTime is when this node first saw the pod.
	StartTime time.Time
	HostIPs   []string
	// Shutdown asks for the end of the pod for another reason than deletion.
	Shutdown *Rejection
	// ShutdownGraceSeconds is what the pod's containers get then; nil for what
	// the pod asks for.
	ShutdownGraceSeconds *int64
	// Held keeps containers from being started: the pod stops when its node is cut off, and the node holds no lease for it.
	Held bool
	// Finished is set once the API was told to forget the pod.
	Finished bool
}

// Rejection is why a node does not run a pod.
type Rejection struct{ Reason, Message string }

// RejectedPrefix begins the message of a pod that the node did not let in.
const RejectedPrefix = "Pod was rejected: "

// Kind of an action.
type Kind string

// What may be asked for. Every action is safe to repeat.
const (
	// Prepare makes the sandbox: namespaces, volumes, network.
	Prepare Kind = "Prepare"
	// Start pulls, makes and starts a container.
	Start Kind = "Start"
	// Stop ends a running container: preStop hook, signal, grace, kill.
	Stop Kind = "Stop"
	// Resize gives a running container another size.
	Resize Kind = "Resize"
	// Hurry shortens a Stop that is under way to GraceSeconds from now, and gives
	// a start up that has made no container yet.
	Hurry Kind = "Hurry"
	// Release takes the sandbox down.
	Release Kind = "Release"
	// Finish removes the pod's record from the API.
	Finish Kind = "Finish"
)

// Action is one effect to carry out.
type Action struct {
	Kind         Kind
	Container    string
	GraceSeconds int64
	// Message explains a Stop to users; "" for the usual words.
	Message string
	// Replace marks a Stop after which the container starts again whatever its
	// restart policy.
	Replace bool
}

// Plan is what Decide wants.
type Plan struct {
	Actions []Action
	Status  corev1.PodStatus
	// WakeAt is when to decide again although nothing happens; zero for never.
	WakeAt time.Time
	// BackingOff names the containers that wait for their next start, for events.
	BackingOff []string
	// PullBackingOff names those that wait for their next pull.
	PullBackingOff []string
}

func (p *Plan) do(a Action) { p.Actions = append(p.Actions, a) }

func (p *Plan) wake(t time.Time) {
	if p.WakeAt.IsZero() || t.Before(p.WakeAt) {
		p.WakeAt = t
	}
}
