package software

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/conversion"
)

const (
	siteGroup = "web.example.com"
	// siteFinalizer keeps a Site until its operator has seen it go.
	siteFinalizer = siteGroup + "/farewell"
)

// siteTypes registers both versions of Site.
func siteTypes(scheme *runtime.Scheme) error {
	for version, types := range map[string][]runtime.Object{
		"v1": {&Site{}, &SiteList{}}, "v1beta1": {&OldSite{}, &OldSiteList{}},
	} {
		gv := schema.GroupVersion{Group: siteGroup, Version: version}
		scheme.AddKnownTypeWithName(gv.WithKind("Site"), types[0])
		scheme.AddKnownTypeWithName(gv.WithKind("SiteList"), types[1])
		metav1.AddToGroupVersion(scheme, gv)
	}
	return nil
}

// Site is version v1, which is stored, and to and from which others are converted.
type Site struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              SiteSpec   `json:"spec"`
	Status            SiteStatus `json:"status,omitempty"`
}

type SiteSpec struct {
	Replicas *int32 `json:"replicas,omitempty"` // the webhook's default is 1
	Owner    string `json:"owner"`              // the webhook's default is the user who creates it; never changes
}

type SiteStatus struct {
	ObservedGeneration int64              `json:"observedGeneration,omitempty"`
	ReadyReplicas      int32              `json:"readyReplicas,omitempty"`
	Conditions         []metav1.Condition `json:"conditions,omitempty"`
}

// Hub implements conversion.Hub.
func (*Site) Hub() {}

func (s *Site) DeepCopyObject() runtime.Object {
	out := *s
	out.ObjectMeta = *s.ObjectMeta.DeepCopy()
	if s.Spec.Replicas != nil {
		replicas := *s.Spec.Replicas
		out.Spec.Replicas = &replicas
	}
	out.Status.Conditions = nil
	for _, condition := range s.Status.Conditions {
		out.Status.Conditions = append(out.Status.Conditions, *condition.DeepCopy())
	}
	return &out
}

type SiteList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Site `json:"items"`
}

func (l *SiteList) DeepCopyObject() runtime.Object {
	out := &SiteList{TypeMeta: l.TypeMeta, ListMeta: *l.ListMeta.DeepCopy()}
	for i := range l.Items {
		out.Items = append(out.Items, *l.Items[i].DeepCopyObject().(*Site))
	}
	return out
}

// OldSite is version v1beta1, in which replicas have another name and the owner stands in an annotation.
type OldSite struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              OldSiteSpec `json:"spec"`
	Status            SiteStatus  `json:"status,omitempty"`
}

type OldSiteSpec struct {
	Instances *int32 `json:"instances,omitempty"`
}

// ownerAnnotation is where version v1beta1 has the owner.
const ownerAnnotation = siteGroup + "/owner"

// ConvertTo implements conversion.Convertible.
func (s *OldSite) ConvertTo(hub conversion.Hub) error {
	to := hub.(*Site)
	to.ObjectMeta = *s.ObjectMeta.DeepCopy()
	to.Spec = SiteSpec{Replicas: s.Spec.Instances, Owner: s.Annotations[ownerAnnotation]}
	to.Status = s.Status
	delete(to.Annotations, ownerAnnotation)
	return nil
}

// ConvertFrom implements conversion.Convertible.
func (s *OldSite) ConvertFrom(hub conversion.Hub) error {
	from := hub.(*Site)
	s.ObjectMeta = *from.ObjectMeta.DeepCopy()
	s.Spec = OldSiteSpec{Instances: from.Spec.Replicas}
	s.Status = from.Status
	if from.Spec.Owner != "" {
		metav1.SetMetaDataAnnotation(&s.ObjectMeta, ownerAnnotation, from.Spec.Owner)
	}
	return nil
}

func (s *OldSite) DeepCopyObject() runtime.Object {
	hub := &Site{}
	if err := s.ConvertTo(hub); err != nil {
		panic(err)
	}
	out := &OldSite{TypeMeta: s.TypeMeta}
	if err := out.ConvertFrom(hub.DeepCopyObject().(*Site)); err != nil {
		panic(err)
	}
	return out
}

type OldSiteList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []OldSite `json:"items"`
}

func (l *OldSiteList) DeepCopyObject() runtime.Object {
	out := &OldSiteList{TypeMeta: l.TypeMeta, ListMeta: *l.ListMeta.DeepCopy()}
	for i := range l.Items {
		out.Items = append(out.Items, *l.Items[i].DeepCopyObject().(*OldSite))
	}
	return out
}
