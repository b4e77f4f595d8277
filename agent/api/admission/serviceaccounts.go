package admission

import (
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/utils/ptr"
)

const (
	defaultAccount = "default"
	// enforceSecrets is an annotation of an account: its pods may use only the secrets that the account lists.
	enforceSecrets = "kubernetes.io/enforce-mountable-secrets"

	// rootCAName is the ConfigMap of every namespace that holds the certificates to verify the API with.
	rootCAName = "kube-root-ca.crt"

	tokenVolumePrefix = "kube-api-access-"
	tokenMountPath    = "/var/run/secrets/kubernetes.io/serviceaccount"
	// tokenSeconds is the lifetime of the tokens in the volumes added here; the issuer knows it and extends it.
	tokenSeconds = 3607

	// accountWaits times accountWaitMilliseconds is how long a pod in a new namespace waits for the account "default",
	// which a loop makes.
	accountWaits            = 20
	accountWaitMilliseconds = 50
)

// serviceAccounts gives each pod a service account, the account's token and its pull secrets.
type serviceAccounts struct {
	*admission.Handler
	client kubernetes.Interface
	lister corelisters.ServiceAccountLister
}

var (
	_ admission.MutationInterface   = (*serviceAccounts)(nil)
	_ admission.ValidationInterface = (*serviceAccounts)(nil)
)

func newServiceAccounts(client kubernetes.Interface, factory informers.SharedInformerFactory) *serviceAccounts {
	informer := factory.Core().V1().ServiceAccounts()
	p := &serviceAccounts{Handler: admission.NewHandler(admission.Create, admission.Update), client: client, lister: informer.Lister()}
	p.SetReadyFunc(informer.Informer().HasSynced)
	return p
}

// Admit fills in what a new pod left out.
func (p *serviceAccounts) Admit(ctx context.Context, a admission.Attributes, o admission.ObjectInterfaces) error {
	if !concerns(a, pods(), "") || a.GetOperation() != admission.Create {
		return nil
	}
	pod, err := object[*corev1.Pod](a)
	if err != nil {
		return err
	}
	if isMirror(pod) { // changing it would make it differ from the node's file
		return p.Validate(ctx, a, o)
	}
	if pod.Spec.ServiceAccountName == "" {
		pod.Spec.ServiceAccountName = pod.Spec.DeprecatedServiceAccount
	}
	if pod.Spec.ServiceAccountName == "" {
		pod.Spec.ServiceAccountName = defaultAccount
	}
	pod.Spec.DeprecatedServiceAccount = pod.Spec.ServiceAccountName
	account, err := p.account(ctx, a, pod.Spec.ServiceAccountName)
	if err != nil {
		return err
	}
	if automount(account, pod) {
		mountToken(pod)
	}
	if len(pod.Spec.ImagePullSecrets) == 0 {
		pod.Spec.ImagePullSecrets = append([]corev1.LocalObjectReference(nil), account.ImagePullSecrets...)
	}
	return nil
}

// Validate refuses pods whose account is absent or does not allow their secrets.
func (p *serviceAccounts) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	created := concerns(a, pods(), "") && a.GetOperation() == admission.Create
	debugged := concerns(a, pods(), "ephemeralcontainers") && a.GetOperation() == admission.Update
	if !created && !debugged {
		return nil
	}
	pod, err := object[*corev1.Pod](a)
	if err != nil {
		return err
	}
	switch {
	case created && isMirror(pod):
		return validateMirror(a, pod)
	case created && pod.Spec.ServiceAccountName == "":
		return forbidden(a, "no service account specified for pod %s/%s", a.GetNamespace(), pod.Name)
	}
	account, err := p.account(ctx, a, pod.Spec.ServiceAccountName)
	if err != nil {
		return err
	}
	if account.Annotations[enforceSecrets] != "true" {
		return nil
	}
	check := limitSecrets
	if debugged {
		check = limitDebugSecrets
	}
	if err := check(account, pod); err != nil {
		return admission.NewForbidden(a, err)
	}
	return nil
}

func isMirror(pod *corev1.Pod) bool {
	_, ok := pod.Annotations[corev1.MirrorPodAnnotationKey]
	return ok
}

// account finds a service account of the request's namespace.
func (p *serviceAccounts) account(ctx context.Context, a admission.Attributes, name string) (*corev1.ServiceAccount, error) {
	found, err := p.lister.ServiceAccounts(a.GetNamespace()).Get(name)
	if err == nil {
		return found, nil
	}
	waits := 1
	if name == defaultAccount {
		waits = accountWaits
	}
	for i := range waits {
		if i > 0 {
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(accountWaitMilliseconds * time.Millisecond):
			}
		}
		found, err = p.client.CoreV1().ServiceAccounts(a.GetNamespace()).Get(ctx, name, metav1.GetOptions{})
		if err == nil {
			return found, nil
		}
		if !apierrors.IsNotFound(err) && !apierrors.IsBadRequest(err) && !apierrors.IsInvalid(err) {
			break
		}
		err = apierrors.NewNotFound(schema.GroupResource{Resource: "serviceaccount"}, name)
	}
	return nil, forbidden(a, "error looking up service account %s/%s: %w", a.GetNamespace(), name, err)
}

func automount(account *corev1.ServiceAccount, pod *corev1.Pod) bool {
	switch {
	case pod.Spec.AutomountServiceAccountToken != nil:
		return *pod.Spec.AutomountServiceAccountToken
	case account.AutomountServiceAccountToken != nil:
		return *account.AutomountServiceAccountToken
	}
	return true
}

// mountToken adds the volume of the account's token, and mounts it where a container has nothing at its path.
func mountToken(pod *corev1.Pod) {
	name, exists := "", false
	for _, v := range pod.Spec.Volumes {
		if strings.HasPrefix(v.Name, tokenVolumePrefix) {
			name, exists = v.Name, true
			break
		}
	}
	if !exists {
		name = tokenVolumePrefix + rand.String(5)
	}
	mounted := false
	mount := func(containers []corev1.Container) {
		for i := range containers {
			c := &containers[i]
			if !hasMount(c, tokenMountPath) {
				c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: name, ReadOnly: true, MountPath: tokenMountPath})
				mounted = true
			}
		}
	}
	mount(pod.Spec.InitContainers)
	mount(pod.Spec.Containers)
	if mounted && !exists {
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{Projected: tokenVolume()}})
	}
}

func hasMount(c *corev1.Container, path string) bool {
	for _, m := range c.VolumeMounts {
		if m.MountPath == path {
			return true
		}
	}
	return false
}

// tokenVolume is the token, the cluster's CA and the namespace.
func tokenVolume() *corev1.ProjectedVolumeSource {
	return &corev1.ProjectedVolumeSource{
		DefaultMode: ptr.To(corev1.ProjectedVolumeSourceDefaultMode),
		Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: ptr.To[int64](tokenSeconds)}},
			{ConfigMap: &corev1.ConfigMapProjection{
				LocalObjectReference: corev1.LocalObjectReference{Name: rootCAName},
				Items:                []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}},
			}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{
				{Path: "namespace", FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.namespace"}},
			}}},
		},
	}
}

func validateMirror(a admission.Attributes, pod *corev1.Pod) error {
	if pod.Spec.ServiceAccountName != "" {
		return forbidden(a, "a mirror pod may not reference service accounts")
	}
	if used := referencesOf(pod); used.secrets {
		return forbidden(a, "a mirror pod may not reference secrets")
	}
	for _, v := range pod.Spec.Volumes {
		if v.Projected == nil {
			continue
		}
		for _, s := range v.Projected.Sources {
			if s.ServiceAccountToken != nil {
				return forbidden(a, "a mirror pod may not use ServiceAccountToken volume projections")
			}
		}
	}
	return nil
}

// limitSecrets keeps a pod to the secrets that its account lists.
func limitSecrets(account *corev1.ServiceAccount, pod *corev1.Pod) error {
	listed := listedSecrets(account)
	for _, v := range pod.Spec.Volumes {
		if v.Secret != nil && !listed.Has(v.Secret.SecretName) {
			return fmt.Errorf(`volume with secret.secretName="%s" is not allowed because service account %s does not reference that secret`,
				v.Secret.SecretName, account.Name)
		}
	}
	for _, c := range pod.Spec.InitContainers {
		if err := limitEnv("init container", c.Name, c.Env, listed, account.Name); err != nil {
			return err
		}
	}
	for _, c := range pod.Spec.Containers {
		if err := limitEnv("container", c.Name, c.Env, listed, account.Name); err != nil {
			return err
		}
	}
	pull := sets.New[string]()
	for _, s := range account.ImagePullSecrets {
		pull.Insert(s.Name)
	}
	for i, s := range pod.Spec.ImagePullSecrets {
		if !pull.Has(s.Name) {
			return fmt.Errorf(`imagePullSecrets[%d].name="%s" is not allowed because service account %s does not reference that imagePullSecret`, i, s.Name, account.Name)
		}
	}
	return nil
}

// limitDebugSecrets is limitSecrets for the ephemeral containers of a running pod.
func limitDebugSecrets(account *corev1.ServiceAccount, pod *corev1.Pod) error {
	for _, c := range pod.Spec.EphemeralContainers {
		if err := limitEnv("ephemeral container", c.Name, c.Env, listedSecrets(account), account.Name); err != nil {
			return err
		}
	}
	return nil
}

func listedSecrets(account *corev1.ServiceAccount) sets.Set[string] {
	listed := sets.New[string]()
	for _, s := range account.Secrets {
		listed.Insert(s.Name)
	}
	return listed
}

func limitEnv(what, container string, env []corev1.EnvVar, listed sets.Set[string], account string) error {
	for _, e := range env {
		if e.ValueFrom == nil || e.ValueFrom.SecretKeyRef == nil || listed.Has(e.ValueFrom.SecretKeyRef.Name) {
			continue
		}
		return fmt.Errorf(`%s %s with envVar %s referencing secret.secretName="%s" is not allowed because service account %s does not reference that secret`,
			what, container, e.Name, e.ValueFrom.SecretKeyRef.Name, account)
	}
	return nil
}
