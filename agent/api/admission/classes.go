package admission

import (
	"context"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	networkinglisters "k8s.io/client-go/listers/networking/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
)

const (
	defaultStorageClass     = "storageclass.kubernetes.io/is-default-class"
	betaDefaultStorageClass = "storageclass.beta.kubernetes.io/is-default-class"
	// ingressClassAnnotation names an ingress's class the way before the field.
	ingressClassAnnotation = "kubernetes.io/ingress.class"
)

// newest returns the default class that was made last, of equals that with the least name; nil where there is none.
func newest[T metav1.Object](classes []T, isDefault func(T) bool) (found T, ok bool) {
	for _, c := range classes {
		if !isDefault(c) {
			continue
		}
		made, best := c.GetCreationTimestamp(), metav1.Time{}
		if ok {
			best = found.GetCreationTimestamp()
		}
		if !ok || best.Before(&made) || best.Equal(&made) && strings.Compare(c.GetName(), found.GetName()) < 0 {
			found, ok = c, true
		}
	}
	return found, ok
}

// storageClasses give each claim that names no class the default one, and let a claim grow only where its class allows it.
type storageClasses struct {
	*admission.Handler
	lister storagelisters.StorageClassLister
}

func newStorageClasses(config Config, operation admission.Operation) storageClasses {
	informer := config.Informers.Storage().V1().StorageClasses()
	p := storageClasses{Handler: admission.NewHandler(operation), lister: informer.Lister()}
	p.SetReadyFunc(informer.Informer().HasSynced)
	return p
}

// claimClasses is the plug-in DefaultStorageClass.
type claimClasses struct{ storageClasses }

var _ admission.MutationInterface = (*claimClasses)(nil)

// Admit gives a new claim its class.
func (p *claimClasses) Admit(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if !concerns(a, claims(), "") {
		return nil
	}
	claim, err := object[*corev1.PersistentVolumeClaim](a)
	if err != nil {
		return err
	}
	if _, named := claim.Annotations[corev1.BetaStorageClassAnnotation]; named || claim.Spec.StorageClassName != nil {
		return nil
	}
	if !p.WaitForReady() {
		return forbidden(a, "not yet ready to handle request")
	}
	classes, err := p.lister.List(labels.Everything())
	if err != nil {
		return forbidden(a, "%w", err)
	}
	class, ok := newest(classes, func(c *storagev1.StorageClass) bool {
		return c.Annotations[defaultStorageClass] == "true" || c.Annotations[betaDefaultStorageClass] == "true"
	})
	if ok {
		claim.Spec.StorageClassName = &class.Name
	}
	return nil
}

// claimGrowth is the plug-in PersistentVolumeClaimResize.
type claimGrowth struct{ storageClasses }

var _ admission.ValidationInterface = (*claimGrowth)(nil)

// Validate refuses to let a claim grow that cannot.
func (p *claimGrowth) Validate(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if !concerns(a, claims(), "") {
		return nil
	}
	claim, err := object[*corev1.PersistentVolumeClaim](a)
	if err != nil {
		return err
	}
	old, err := oldObject[*corev1.PersistentVolumeClaim](a)
	if err != nil {
		return err
	}
	size, before := claim.Spec.Resources.Requests[corev1.ResourceStorage], old.Spec.Resources.Requests[corev1.ResourceStorage]
	if size.Cmp(before) <= 0 {
		return nil
	}
	if old.Status.Phase != corev1.ClaimBound {
		return forbidden(a, "Only bound persistent volume claims can be expanded")
	}
	if name := className(claim); name != "" && name == className(old) {
		if class, err := p.lister.Get(name); err == nil && class.AllowVolumeExpansion != nil && *class.AllowVolumeExpansion {
			return nil
		}
	}
	return forbidden(a, "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize")
}

func className(claim *corev1.PersistentVolumeClaim) string {
	if name, ok := claim.Annotations[corev1.BetaStorageClassAnnotation]; ok {
		return name
	}
	if claim.Spec.StorageClassName != nil {
		return *claim.Spec.StorageClassName
	}
	return ""
}

// ingressClasses is the plug-in DefaultIngressClass.
type ingressClasses struct {
	*admission.Handler
	lister networkinglisters.IngressClassLister
}

var _ admission.MutationInterface = (*ingressClasses)(nil)

func newIngressClasses(config Config) *ingressClasses {
	informer := config.Informers.Networking().V1().IngressClasses()
	p := &ingressClasses{Handler: admission.NewHandler(admission.Create), lister: informer.Lister()}
	p.SetReadyFunc(informer.Informer().HasSynced)
	return p
}

func ingresses() schema.GroupResource {
	return schema.GroupResource{Group: "networking.k8s.io", Resource: "ingresses"}
}

// Admit gives a new ingress that names no class the default one.
func (p *ingressClasses) Admit(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if !concerns(a, ingresses(), "") {
		return nil
	}
	ingress, err := object[*networkingv1.Ingress](a)
	if err != nil {
		return err
	}
	if _, named := ingress.Annotations[ingressClassAnnotation]; named || ingress.Spec.IngressClassName != nil {
		return nil
	}
	if !p.WaitForReady() {
		return forbidden(a, "not yet ready to handle request")
	}
	classes, err := p.lister.List(labels.Everything())
	if err != nil {
		return forbidden(a, "%w", err)
	}
	class, ok := newest(classes, func(c *networkingv1.IngressClass) bool {
		return c.Annotations[networkingv1.AnnotationIsDefaultIngressClass] == "true"
	})
	if ok {
		ingress.Spec.IngressClassName = &class.Name
	}
	return nil
}
