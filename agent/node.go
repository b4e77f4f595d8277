package agent

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/authentication/authenticatorfactory"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	"k8s.io/apiserver/pkg/server/options"
	"k8s.io/client-go/kubernetes"

	"github.com/podvine/podvine/agent/pki"
	"github.com/podvine/podvine/agent/pods/images"
	"github.com/podvine/podvine/agent/pods/kubeletapi"
	"github.com/podvine/podvine/dataplane/dns"
	"github.com/podvine/podvine/dataplane/netd"
)

// How long the kubelet API believes an answer of the API about a caller, as kubelet does.
const (
	tokenCache       = 2 * time.Minute
	allowedCache     = 5 * time.Minute
	deniedCache      = 30 * time.Second
	reviewTimeout    = 10 * time.Second
	renewRetry       = time.Minute
	kubeconfigPeriod = 24 * time.Hour
)

// kubeletSecurity lets in whom the cluster's CA or the API knows, to what the API allows.
func (n *node) kubeletSecurity(client kubernetes.Interface) (kubeletapi.Security, error) {
	authenticates := authenticatorfactory.DelegatingAuthenticatorConfig{
		Anonymous:                          &apiserver.AnonymousAuthConfig{Enabled: false},
		TokenAccessReviewClient:            client.AuthenticationV1(),
		TokenAccessReviewTimeout:           reviewTimeout,
		CacheTTL:                           tokenCache,
		ClientCertificateCAContentProvider: n.keys.Cluster(),
		WebhookRetryBackoff:                options.DefaultAuthWebhookRetryBackoff(),
	}
	authenticator, _, err := authenticates.New()
	if err != nil {
		return kubeletapi.Security{}, fmt.Errorf("secure the kubelet API: %w", err)
	}
	authorizes := authorizerfactory.DelegatingAuthorizerConfig{
		SubjectAccessReviewClient: client.AuthorizationV1(), AllowCacheTTL: allowedCache, DenyCacheTTL: deniedCache,
		WebhookRetryBackoff: options.DefaultAuthWebhookRetryBackoff(),
	}
	authorizer, err := authorizes.New()
	if err != nil {
		return kubeletapi.Security{}, fmt.Errorf("secure the kubelet API: %w", err)
	}
	routes := imageRoutes(func() *images.Store { return n.pods.Images() })
	routes["GET "+proxyMetricsPath] = serveMetrics(n.proxyMetrics)
	return kubeletapi.Security{
		TLS: &tls.Config{
			MinVersion: tls.VersionTLS12,
			GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
				return &tls.Config{
					MinVersion: tls.VersionTLS12, ClientAuth: tls.RequestClientCert, ClientCAs: n.keys.Cluster().Pool(), NextProtos: []string{"h2", "http/1.1"},
					GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return n.keys.NodeServing().TLS() },
				}, nil
			},
		},
		Authenticator: authenticator, Authorizer: authorizer,
		Routes: routes,
	}, nil
}

// nodeMarks parses the labels and taints with which the Node object is made.
func (c Config) nodeMarks() (map[string]string, []corev1.Taint, error) {
	labels := map[string]string{}
	for _, text := range c.NodeLabels {
		key, value, ok := strings.Cut(text, "=")
		if !ok {
			return nil, nil, fmt.Errorf("--node-labels: %q is not key=value", text)
		}
		labels[key] = value
	}
	var taints []corev1.Taint
	for _, text := range c.NodeTaints {
		name, effect, ok := strings.Cut(text, ":")
		switch corev1.TaintEffect(effect) {
		case corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute:
		default:
			ok = false
		}
		if !ok {
			return nil, nil, fmt.Errorf("--node-taints: %q is not key=value:effect, with effect NoSchedule, PreferNoSchedule or NoExecute", text)
		}
		key, value, _ := strings.Cut(name, "=")
		taints = append(taints, corev1.Taint{Key: key, Value: value, Effect: corev1.TaintEffect(effect)})
	}
	return labels, taints, nil
}

// podRanges returns this node's pod ranges: those of its Node object, which are remembered on disk because pods must get
// their network back when there is nobody to ask.
func (n *node) podRanges(ctx context.Context) ([]netip.Prefix, error) {
	type remembered struct {
		Ranges []netip.Prefix `json:"ranges"`
	}
	path := n.dir.join("pod-ranges.json")
	var known remembered
	if err := readJSON(path, &known); err != nil {
		return nil, err
	}
	if len(known.Ranges) > 0 {
		return known.Ranges, nil
	}
	err := retry(ctx, func(ctx context.Context) error {
		watch, err := n.client(pki.NodeUserStart+n.dir.NodeName, pki.NodesGroup).CoreV1().Nodes().Watch(ctx, metav1.ListOptions{
			FieldSelector: fields.OneTermEqualSelector("metadata.name", n.dir.NodeName).String(),
		})
		if err != nil {
			return err
		}
		defer watch.Stop()
		for event := range watch.ResultChan() {
			node, ok := event.Object.(*corev1.Node)
			if !ok || len(node.Spec.PodCIDRs) == 0 {
				continue
			}
			for _, text := range node.Spec.PodCIDRs {
				prefix, err := netip.ParsePrefix(text)
				if err != nil {
					return fmt.Errorf("read the pod range of %s: %w", n.dir.NodeName, err)
				}
				known.Ranges = append(known.Ranges, prefix)
			}
			return nil
		}
		return fmt.Errorf("the watch of node %s ended", n.dir.NodeName)
	})
	if err != nil {
		return nil, err
	}
	return known.Ranges, writeJSON(path, known)
}

// runKeys renews certificates before they expire, and with them the administrator's kubeconfig.
func (n *node) runKeys(ctx context.Context) error {
	for {
		next, err := n.keys.Renew(time.Now())
		if err != nil {
			n.log.Error("renew certificates", "error", err)
			next = time.Now().Add(renewRetry)
		}
		if !n.dir.Edge { // an edge has no administrator's credentials
			if err := n.writeKubeconfig(); err != nil {
				n.log.Error("renew the administrator's kubeconfig", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(min(time.Until(next), kubeconfigPeriod)):
		}
	}
}

func (n *node) writeKubeconfig() error {
	if err := os.MkdirAll(n.config.ConfigDir, 0o755); err != nil {
		return fmt.Errorf("make the configuration folder: %w", err)
	}
	return n.keys.WriteAdminKubeconfig(n.kubeconfigFile(), n.apiURL(), time.Now())
}

func (n *node) kubeconfigFile() string { return filepath.Join(n.config.ConfigDir, "admin.kubeconfig") }

// podNamespaces lists the pinned network namespaces of this node's pods.
func podNamespaces() []string {
	paths, err := filepath.Glob(filepath.Join(runDir, "pods", "pods", "*", "ns", "net"))
	if err != nil {
		return nil // only a bad pattern is an error
	}
	return paths
}

// lateNames hands names on to the netd of now, which is started after the source of names was made, before that runs, and anew whenever
// the data plane is fed anew. It is safe for concurrent use.
type lateNames struct{ client atomic.Pointer[netd.Client] }

func (l *lateNames) use(client *netd.Client) { l.client.Store(client) }

// Set implements kube.Names.
func (l *lateNames) Set(all []dns.Service) { l.client.Load().Set(all) }

// Apply implements kube.Names.
func (l *lateNames) Apply(update dns.Update) { l.client.Load().Apply(update) }
