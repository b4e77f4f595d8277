package standard

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apiserver/pkg/authentication/authenticatorfactory"
	informers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/podvine/podvine/agent/api"
	"github.com/podvine/podvine/agent/pki"
)

// trustName is the ConfigMap in kube-system from which aggregated API servers learn whom to trust.
const trustName = "extension-apiserver-authentication"

// trustQueue is how many changes of the ConfigMap may wait to be looked at; more are folded into one.
const trustQueue = 1

// Keys of the ConfigMap that hold certificates. All others hold a list of strings as JSON.
const (
	clientCAKey     = "client-ca-file"
	frontProxyCAKey = "requestheader-client-ca-file"
	// allowedNamesKey is a list of which an empty one stands for any name.
	allowedNamesKey = "requestheader-allowed-names"
)

// Trust keeps the ConfigMap kube-system/extension-apiserver-authentication: the authorities of client certificates and
// of front proxies, and the headers in which those pass on who a user is.
func Trust(keys *pki.PKI, proxies *FrontProxies) api.BootstrapHook {
	return api.BootstrapHook{Name: "start-cluster-authentication-info-controller", Run: func(hook api.HookContext) error {
		client, err := kubernetes.NewForConfig(hook.LoopbackClientConfig)
		if err != nil {
			return err
		}
		ensure := func(ctx context.Context) error {
			own, err := trustOf(keys.Cluster().CurrentCABundleContent(), proxies.all)
			if err != nil {
				return err
			}
			return ensureTrust(ctx, client, own, keys.Retired(), time.Now())
		}
		if err := untilDone(hook, ensure); err != nil {
			return err
		}
		changed := make(trigger, trustQueue)
		keys.Cluster().AddListener(changed)
		proxies.all.CAContentProvider.AddListener(changed)
		if err := followTrust(hook, client, changed); err != nil {
			return err
		}
		go keepTrust(hook, changed, ensure)
		return nil
	}}
}

// trigger has the ConfigMap looked at soon.
type trigger chan struct{}

// Enqueue implements dynamiccertificates.Listener.
func (t trigger) Enqueue() {
	select {
	case t <- struct{}{}:
	default: // a look is due already
	}
}

// followTrust has the ConfigMap looked at when somebody changes or deletes it, until ctx ends.
func followTrust(ctx context.Context, client kubernetes.Interface, changed trigger) error {
	informer := informers.NewFilteredConfigMapInformer(client, metav1.NamespaceSystem, 0, cache.Indexers{}, func(options *metav1.ListOptions) {
		options.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, trustName).String()
	})
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		UpdateFunc: func(any, any) { changed.Enqueue() },
		DeleteFunc: func(any) { changed.Enqueue() },
	}); err != nil {
		return fmt.Errorf("follow ConfigMap %s: %w", trustName, err)
	}
	go informer.RunWithContext(ctx)
	return nil
}

// keepTrust makes the ConfigMap right again whenever changed asks for it, until ctx ends.
func keepTrust(ctx context.Context, changed trigger, ensure func(context.Context) error) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
			if untilDone(ctx, ensure) != nil {
				return // the server ends
			}
		}
	}
}

// trustOf is what this member trusts, as the ConfigMap's data.
func trustOf(clientCA []byte, proxy *authenticatorfactory.RequestHeaderConfig) (map[string]string, error) {
	data := map[string]string{
		clientCAKey:     string(clientCA),
		frontProxyCAKey: string(proxy.CAContentProvider.CurrentCABundleContent()),
	}
	for key, list := range map[string][]string{
		allowedNamesKey:                      proxy.AllowedClientNames.Value(),
		"requestheader-username-headers":     proxy.UsernameHeaders.Value(),
		"requestheader-uid-headers":          proxy.UIDHeaders.Value(),
		"requestheader-group-headers":        proxy.GroupHeaders.Value(),
		"requestheader-extra-headers-prefix": proxy.ExtraHeaderPrefixes.Value(),
	} {
		encoded, err := json.Marshal(list)
		if err != nil {
			return nil, err
		}
		data[key] = string(encoded)
	}
	return data, nil
}

func ensureTrust(ctx context.Context, client kubernetes.Interface, own map[string]string, retired []string, now time.Time) error {
	objects := client.CoreV1().ConfigMaps(metav1.NamespaceSystem)
	object, err := objects.Get(ctx, trustName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		_, err = objects.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: trustName}, Data: own}, metav1.CreateOptions{})
		return err
	}
	if err != nil {
		return err
	}
	merged := mergeTrust(object.Data, own, retired, now)
	if maps.Equal(merged, object.Data) {
		return nil
	}
	object = object.DeepCopy()
	object.Data = merged
	_, err = objects.Update(ctx, object, metav1.UpdateOptions{})
	return err
}

// anyName is the list of allowed names that stands for any.
const anyName = "[]"

// mergeTrust adds what this member trusts to what others do, so that members whose authorities differ for a while (a
// rotation) do not undo each other's writes. Certificates that are retired or have expired, and what cannot be read, are dropped.
func mergeTrust(have, own map[string]string, retired []string, now time.Time) map[string]string {
	merged := maps.Clone(have)
	if merged == nil {
		merged = map[string]string{}
	}
	for key, value := range own {
		switch {
		case key == clientCAKey || key == frontProxyCAKey:
			merged[key] = mergeCertificates(have[key], value, retired, now)
		case key == allowedNamesKey && (value == anyName || have[key] == anyName):
			merged[key] = anyName
		default:
			merged[key] = mergeLists(have[key], value)
		}
	}
	return merged
}

// mergeCertificates joins two bundles in PEM, each certificate once.
func mergeCertificates(have, own string, retired []string, now time.Time) string {
	var bundle []byte
	for rest := []byte(have + "\n" + own); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return string(bundle)
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		encoded := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: block.Bytes})
		if err == nil && now.Before(certificate.NotAfter) && !slices.Contains(retired, pki.CertificateID(certificate)) && !bytes.Contains(bundle, encoded) {
			bundle = append(bundle, encoded...)
		}
	}
}

// mergeLists joins two lists in JSON, each string once.
func mergeLists(have, own string) string {
	var list, more []string
	if json.Unmarshal([]byte(have), &list) != nil || json.Unmarshal([]byte(own), &more) != nil {
		return own
	}
	all := joined(list, more)
	if len(all) == len(list) {
		return have
	}
	encoded, err := json.Marshal(all)
	if err != nil {
		return own
	}
	return string(encoded)
}
