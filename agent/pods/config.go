// Package pods runs this node's pods: it is the node agent.
//
// Role: it watches the pods bound to its node, and brings each from its spec to
// running containers, and its status to the API. One worker a pod asks
// lifecycle.Decide what to do and carries it out with the packages below this
// one; everything a decision needs is kept on disk, so that an agent that is
// killed, or a node that is cut off, goes on as if nothing had happened.
//
// Ownership: the Agent owns its data and state folders, its cgroup, the
// containers in its runtime, the status of its pods and of its Node object. It
// does not own the network: that is the Network given to it.
//
// Concurrency: one goroutine a pod decides; effects run on goroutines of their
// own and report back under the worker's mutex. Run joins them all. Ending Run
// ends no container.
package pods

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	"github.com/podvine/podvine/agent/pods/images"
	"github.com/podvine/podvine/agent/pods/kubeletapi"
	"github.com/podvine/podvine/agent/pods/lifecycle"
)

// PodRef identifies a pod to the network.
type PodRef struct {
	Namespace, Name string
	UID             types.UID
	Labels          map[string]string
	Annotations     map[string]string
}

// HostPort asks for a port of the host to lead to a port of the pod.
type HostPort struct {
	HostIP        string
	HostPort      int32
	ContainerPort int32
	Protocol      corev1.Protocol
}

// NetworkResult is what a pod got.
type NetworkResult struct {
	// IPs of the pod, the primary one first.
	IPs []net.IP
}

// Network connects pods. Every method may be repeated.
type Network interface {
	// Setup connects the network namespace at netnsPath. Repeated for a pod
	// that is connected, it returns what the pod has.
	Setup(ctx context.Context, pod PodRef, netnsPath string, ports []HostPort) (NetworkResult, error)
	// Teardown releases what Setup made; a pod it never saw is no error.
	Teardown(ctx context.Context, pod PodRef, netnsPath string) error
	// Check says whether the pod is still connected.
	Check(ctx context.Context, pod PodRef, netnsPath string) error
}

// Config is what an Agent needs. Fields without a default are required.
type Config struct {
	NodeName string
	// DataDir holds what outlives a reboot, StateDir what does not (the run
	// folder). Defaults: /var/lib/podvine/pods, /run/podvine/pods.
	DataDir, StateDir string
	// ImageDir holds images and snapshots; default DataDir/containerd.
	ImageDir string
	// KubeletDir holds the pods' volumes; default /var/lib/kubelet.
	KubeletDir string
	// LogDir and ContainerLogDir; default /var/log/pods, /var/log/containers.
	LogDir, ContainerLogDir string
	// SocketDir holds shim sockets, at most 60 characters; default StateDir/s.
	SocketDir string
	// ShimPath and RuncPath are absolute paths of the two programs.
	ShimPath, RuncPath string
	// Confirm asks the API, without any cache, whether a pod that was kept on disk is this node's still; see [Answer]. Without it pods start
	// at once.
	Confirm func(ctx context.Context, pod PodRef) (Confirmation, error)
	// Lease is for pods that stop when their node is cut off; without it they do not start.
	Lease Lease
	// CgroupParent is relative to the cgroup root; default podvine.
	CgroupParent string
	// Client reaches the API.
	Client kubernetes.Interface
	// Pods lists and watches the pods of this node; default: by Client with a
	// field selector.
	Pods cache.ListerWatcher
	// Services lists and watches all services, for environment variables;
	// default: by Client.
	Services cache.ListerWatcher
	// Network connects pods.
	Network Network
	// Recorder writes events; default: by Client.
	Recorder record.EventRecorder
	// ClusterDNS and ClusterDomain go into pods' resolv.conf; the domain
	// defaults to cluster.local.
	ClusterDNS    []string
	ClusterDomain string
	// HostResolvConf is the host's; default /etc/resolv.conf.
	HostResolvConf string
	// NodeIPs are the machine's addresses, the primary one first.
	NodeIPs []string
	// NodeLabels and NodeTaints are set when the Node object is first made.
	NodeLabels map[string]string
	NodeTaints []corev1.Taint
	// NodeAnnotations are kept on the Node object.
	NodeAnnotations map[string]string
	// KubeletVersion and KubeProxyVersion appear in the Node's info.
	KubeletVersion string
	// ManifestDir holds files of static pods; "" for none. CompletePod fills in
	// and checks what a file leaves open, as the API does for others; nil does
	// neither.
	ManifestDir string
	CompletePod func(*corev1.Pod) error
	// APIListen is the kubelet API's address; "" leaves it off. Port is what
	// the Node announces; default 10250.
	APIListen string
	APIPort   int32
	// Server secures and authorizes the kubelet API.
	Server kubeletapi.Security
	// MaxPods and PodPidsLimit bound pods; defaults 250 and 4096.
	MaxPods      int
	PodPidsLimit int64
	// Reserved is taken off capacity to give allocatable.
	Reserved corev1.ResourceList
	// MaxLogBytes and MaxLogFiles bound each container's log; defaults 10 MiB, 5.
	MaxLogBytes int64
	MaxLogFiles int
	// ImageGC thresholds; default images.DefaultThresholds.
	ImageGC *images.Thresholds
	// EvictionThresholds are how little may be left before pods are evicted;
	// default lifecycle.DefaultThresholds.
	EvictionThresholds []lifecycle.Threshold
	// PullStallTimeout is how long a pull may receive nothing; default
	// images.DefaultStallTimeout.
	PullStallTimeout time.Duration
	// ImagePeers are asked for images before registries, ImportedImages knows those that no registry has; both may be nil.
	ImagePeers     images.Peers
	ImportedImages images.Catalog
	// SkipNode leaves the Node object alone (tests, static runs).
	SkipNode bool
	// Log is quiet when idle.
	Log *slog.Logger
}

const (
	defaultMaxPods      = 250
	defaultPodPidsLimit = 4096
	defaultAPIPort      = 10250
	defaultMaxLogBytes  = 10 << 20
	defaultMaxLogFiles  = 5
	// shutdownWait bounds how long Run waits for effects under way.
	shutdownWait = 5 * time.Second
)

func (c *Config) complete() error {
	set := func(p *string, v string) {
		if *p == "" {
			*p = v
		}
	}
	set(&c.DataDir, "/var/lib/podvine/pods")
	set(&c.StateDir, "/run/podvine/pods")
	set(&c.ImageDir, filepath.Join(c.DataDir, "containerd"))
	set(&c.KubeletDir, "/var/lib/kubelet")
	set(&c.LogDir, "/var/log/pods")
	set(&c.ContainerLogDir, "/var/log/containers")
	set(&c.SocketDir, filepath.Join(c.StateDir, "s"))
	set(&c.CgroupParent, "podvine")
	set(&c.ClusterDomain, "cluster.local")
	set(&c.HostResolvConf, "/etc/resolv.conf")
	set(&c.KubeletVersion, "v1.37.2")
	setInt := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	setInt(&c.MaxPods, defaultMaxPods)
	setInt(&c.MaxLogFiles, defaultMaxLogFiles)
	if c.PodPidsLimit == 0 {
		c.PodPidsLimit = defaultPodPidsLimit
	}
	if c.MaxLogBytes == 0 {
		c.MaxLogBytes = defaultMaxLogBytes
	}
	if c.APIPort == 0 {
		c.APIPort = defaultAPIPort
	}
	if c.ImageGC == nil {
		t := images.DefaultThresholds()
		c.ImageGC = &t
	}
	if c.EvictionThresholds == nil {
		c.EvictionThresholds = lifecycle.DefaultThresholds()
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	switch {
	case c.NodeName == "":
		return fmt.Errorf("pods: NodeName is not set")
	case c.Client == nil:
		return fmt.Errorf("pods: Client is not set")
	case c.Network == nil:
		return fmt.Errorf("pods: Network is not set")
	}
	return nil
}
