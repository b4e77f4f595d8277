package podspec

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
)

// Warnings says what a user should know about a specification that is accepted: deprecated fields, and values that
// do not do what they look like. at is the path of the object that holds spec and metadata; old is nil for a new one.
func Warnings(spec *corev1.PodSpec, meta *metav1.ObjectMeta, old *corev1.PodSpec, at *field.Path) []string {
	w := &warner{spec: spec, old: old, path: child(at, "spec")}
	w.deprecatedSelectors()
	w.volumes()
	w.duplicates()
	w.containers()
	w.odds()
	w.annotations(meta, child(at, "metadata"))
	return w.out
}

// child is a field below a path, nil for the object itself.
func child(at *field.Path, name string) *field.Path {
	if at == nil {
		return field.NewPath(name)
	}
	return at.Child(name)
}

// warner collects warnings about one specification.
type warner struct {
	spec, old *corev1.PodSpec
	path      *field.Path
	out       []string
}

func (w *warner) add(format string, args ...any) { w.out = append(w.out, fmt.Sprintf(format, args...)) }

// deprecatedLabels are labels of nodes that have newer names.
func deprecatedLabels() map[string]string {
	return map[string]string{
		"beta.kubernetes.io/arch":                  `deprecated since v1.14; use "kubernetes.io/arch" instead`,
		"beta.kubernetes.io/os":                    `deprecated since v1.14; use "kubernetes.io/os" instead`,
		"failure-domain.beta.kubernetes.io/region": `deprecated since v1.17; use "topology.kubernetes.io/region" instead`,
		"failure-domain.beta.kubernetes.io/zone":   `deprecated since v1.17; use "topology.kubernetes.io/zone" instead`,
		"beta.kubernetes.io/instance-type":         `deprecated since v1.17; use "node.kubernetes.io/instance-type" instead`,
	}
}

func (w *warner) deprecatedSelectors() {
	labels := deprecatedLabels()
	for _, key := range slices.Sorted(maps.Keys(w.spec.NodeSelector)) {
		if msg, ok := labels[key]; ok {
			w.add("%s: %s", w.path.Child("nodeSelector").Key(key), msg)
		}
	}
	if a, at := w.spec.Affinity, w.path.Child("affinity"); a != nil {
		w.nodeAffinity(a.NodeAffinity, at.Child("nodeAffinity"))
		if a.PodAffinity != nil {
			w.podTerms(a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution, a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution, at.Child("podAffinity"))
		}
		if a.PodAntiAffinity != nil {
			w.podTerms(a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution, a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution, at.Child("podAntiAffinity"))
		}
	}
	for i, t := range w.spec.TopologySpreadConstraints {
		at := w.path.Child("topologySpreadConstraints").Index(i)
		if msg, ok := labels[t.TopologyKey]; ok {
			w.add("%s: %s is %s", at.Child("topologyKey"), t.TopologyKey, msg)
		}
		if t.LabelSelector == nil {
			w.add("%s: a null labelSelector results in matching no pod", at.Child("labelSelector"))
		}
	}
}

func (w *warner) nodeAffinity(n *corev1.NodeAffinity, at *field.Path) {
	if n == nil {
		return
	}
	if r := n.RequiredDuringSchedulingIgnoredDuringExecution; r != nil {
		for i := range r.NodeSelectorTerms {
			w.nodeTerm(&r.NodeSelectorTerms[i], at.Child("requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms").Index(i), false)
		}
	}
	for i := range n.PreferredDuringSchedulingIgnoredDuringExecution {
		preferred := at.Child("preferredDuringSchedulingIgnoredDuringExecution").Index(i)
		w.nodeTerm(&n.PreferredDuringSchedulingIgnoredDuringExecution[i].Preference, preferred.Child("preference"), true)
	}
}

func (w *warner) nodeTerm(t *corev1.NodeSelectorTerm, at *field.Path, preferred bool) {
	labels := deprecatedLabels()
	for i, e := range t.MatchExpressions {
		own := at.Child("matchExpressions").Index(i)
		if msg, ok := labels[e.Key]; ok {
			w.add("%s: %s is %s", own.Child("key"), e.Key, msg)
		}
		if !preferred {
			continue
		}
		for j, value := range e.Values {
			for _, msg := range validation.IsValidLabelValue(value) {
				w.add("%s: %s is invalid, %s", own.Child("values").Index(j), value, msg)
			}
		}
	}
}

func (w *warner) podTerms(required []corev1.PodAffinityTerm, preferred []corev1.WeightedPodAffinityTerm, at *field.Path) {
	for i := range required {
		if required[i].LabelSelector == nil {
			w.add("%s: a null labelSelector results in matching no pod", at.Child("requiredDuringSchedulingIgnoredDuringExecution").Index(i).Child("labelSelector"))
		}
	}
	for i := range preferred {
		if preferred[i].PodAffinityTerm.LabelSelector == nil {
			w.add("%s: a null labelSelector results in matching no pod", at.Child("preferredDuringSchedulingIgnoredDuringExecution").Index(i).Child("podAffinityTerm", "labelSelector"))
		}
	}
}

func (w *warner) volumes() {
	for i := range w.spec.Volumes {
		v, at := &w.spec.Volumes[i], w.path.Child("volumes").Index(i)
		for _, d := range []struct {
			set       bool
			name, msg string
		}{
			{v.PhotonPersistentDisk != nil, "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"},
			{v.GitRepo != nil, "gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"},
			{v.ScaleIO != nil, "scaleIO", "deprecated in v1.16, non-functional in v1.22+"},
			{v.Flocker != nil, "flocker", "deprecated in v1.22, non-functional in v1.25+"},
			{v.StorageOS != nil, "storageOS", "deprecated in v1.22, non-functional in v1.25+"},
			{v.Quobyte != nil, "quobyte", "deprecated in v1.22, non-functional in v1.25+"},
			{v.Glusterfs != nil, "glusterfs", "deprecated in v1.25, non-functional in v1.26+"},
			{v.CephFS != nil, "cephfs", "deprecated in v1.28, non-functional in v1.31+"},
			{v.RBD != nil, "rbd", "deprecated in v1.28, non-functional in v1.31+"},
		} {
			if d.set {
				w.add("%s: %s", at.Child(d.name), d.msg)
			}
		}
		if v.Ephemeral != nil && v.Ephemeral.VolumeClaimTemplate != nil {
			w.fractions(v.Ephemeral.VolumeClaimTemplate.Spec.Resources.Limits, at.Child("ephemeral", "volumeClaimTemplate", "spec", "resources", "limits"), corev1.ResourceStorage)
			w.fractions(v.Ephemeral.VolumeClaimTemplate.Spec.Resources.Requests, at.Child("ephemeral", "volumeClaimTemplate", "spec", "resources", "requests"), corev1.ResourceStorage)
		}
		w.overlaps(v)
	}
}

func (w *warner) duplicates() {
	aliases := sets.New[string]()
	for i, a := range w.spec.HostAliases {
		at := w.path.Child("hostAliases").Index(i).Child("ip")
		if aliases.Has(a.IP) {
			w.add("%s: duplicate ip %q", at, a.IP)
		}
		aliases.Insert(a.IP)
		w.address(a.IP, at)
	}
	secrets := sets.New[string]()
	for i, s := range w.spec.ImagePullSecrets {
		at := w.path.Child("imagePullSecrets").Index(i).Child("name")
		if s.Name == "" {
			w.add("%s: invalid empty name %q", at, s.Name)
		} else if secrets.Has(s.Name) {
			w.add("%s: duplicate name %q", at, s.Name)
		}
		secrets.Insert(s.Name)
	}
	if d := w.spec.DNSConfig; d != nil {
		for i, ns := range d.Nameservers {
			w.address(ns, w.path.Child("dnsConfig", "nameservers").Index(i))
		}
	}
}

// address warns of an address that is written in an ambiguous way; what is none at all is an error elsewhere.
func (w *warner) address(text string, at *field.Path) {
	if netutils.ParseIPSloppy(text) != nil {
		w.out = append(w.out, validation.GetWarningsForIP(at, text)...)
	}
}

// odds are single values that work otherwise than they look.
func (w *warner) odds() {
	if s := w.spec.TerminationGracePeriodSeconds; s != nil && *s < 0 {
		w.add("%s: must be >= 0; negative values are invalid and will be treated as 1", w.path.Child("terminationGracePeriodSeconds"))
	}
	w.fractions(w.spec.Overhead, w.path.Child("overhead"), corev1.ResourceMemory, corev1.ResourceEphemeralStorage)
}

// fractions warns of bytes that are no whole number.
func (w *warner) fractions(list corev1.ResourceList, at *field.Path, names ...corev1.ResourceName) {
	for _, name := range names {
		if q, ok := list[name]; ok && q.MilliValue()%1000 != 0 {
			w.add("%s: fractional byte value %q is invalid, must be an integer", at.Key(string(name)), q.String())
		}
	}
}

func (w *warner) containers() {
	for i := range w.spec.InitContainers {
		w.container(&w.spec.InitContainers[i], w.path.Child("initContainers").Index(i))
	}
	for i := range w.spec.Containers {
		w.container(&w.spec.Containers[i], w.path.Child("containers").Index(i))
	}
	w.duplicatePorts()
}

func (w *warner) container(c *corev1.Container, at *field.Path) {
	bytes := []corev1.ResourceName{corev1.ResourceMemory, corev1.ResourceEphemeralStorage}
	w.fractions(c.Resources.Limits, at.Child("resources", "limits"), bytes...)
	w.fractions(c.Resources.Requests, at.Child("resources", "requests"), bytes...)
	names := sets.New[string]()
	for j, e := range c.Env {
		// A later value that uses the earlier one is meant so.
		if names.Has(e.Name) && !strings.Contains(e.Value, "$("+e.Name+")") {
			w.add("%s: hides previous definition of %q, which may be dropped when using apply", at.Child("env").Index(j), e.Name)
		}
		names.Insert(e.Name)
	}
	for j, p := range c.Ports {
		own := at.Child("ports").Index(j)
		if p.HostIP == "" {
			continue
		}
		if p.HostPort == 0 {
			w.add("%s: hostIP set without hostPort: %+v", own, p)
		}
	}
}

// duplicatePorts warns of a port that a container, or two of a pod, declare twice.
func (w *warner) duplicatePorts() {
	type declared struct {
		at   *field.Path
		port corev1.ContainerPort
	}
	var all []declared
	collect := func(list []corev1.Container, at *field.Path) {
		for i := range list {
			for j, p := range list[i].Ports {
				own := at.Index(i).Child("ports").Index(j)
				for _, other := range all {
					if other.port.ContainerPort == p.ContainerPort && other.port.Protocol == p.Protocol && other.port.HostPort == p.HostPort && other.port.HostIP == p.HostIP {
						w.add("%s: duplicate port definition with %s", own, other.at)
						break
					}
				}
				all = append(all, declared{own, p})
			}
		}
	}
	collect(w.spec.Containers, w.path.Child("containers"))
	collect(w.spec.InitContainers, w.path.Child("initContainers"))
}

func (w *warner) annotations(meta *metav1.ObjectMeta, at *field.Path) {
	if meta == nil {
		return
	}
	for _, key := range slices.Sorted(maps.Keys(meta.Annotations)) {
		own := at.Child("annotations").Key(key)
		if name, ok := strings.CutPrefix(key, appArmorPrefix); ok && w.old == nil {
			for _, c := range slices.Concat(w.spec.InitContainers, w.spec.Containers) {
				if c.Name == name && (c.SecurityContext == nil || c.SecurityContext.AppArmorProfile == nil) {
					w.add("%s: deprecated since v1.30; use the \"appArmorProfile\" field instead", own)
				}
			}
		}
		if key == "seccomp.security.alpha.kubernetes.io/pod" {
			w.add("%s: non-functional in v1.27+; use the \"seccompProfile\" field instead", own)
		}
		if strings.HasPrefix(key, "container.seccomp.security.alpha.kubernetes.io/") {
			w.add("%s: non-functional in v1.27+; use the \"seccompProfile\" field instead", own)
		}
	}
}

// overlaps warns of files of one volume that hide each other, and of projections of nothing.
func (w *warner) overlaps(v *corev1.Volume) {
	o := &overlap{warner: w}
	switch {
	case v.ConfigMap != nil:
		o.from = fmt.Sprintf("volume %q (ConfigMap %q)", v.Name, v.ConfigMap.Name)
		o.keys(v.ConfigMap.Items, "")
	case v.Secret != nil:
		o.from = fmt.Sprintf("volume %q (Secret %q)", v.Name, v.Secret.SecretName)
		o.keys(v.Secret.Items, "")
	case v.DownwardAPI != nil:
		o.from = fmt.Sprintf("volume %q (DownwardAPI)", v.Name)
		o.files(v.DownwardAPI.Items, "")
	case v.Projected != nil:
		o.projected(v)
	}
}

// overlap is the files of one volume so far.
type overlap struct {
	*warner
	from string
	seen []claimed
}

type claimed struct{ path, source string }

func (o *overlap) claim(file, source string) {
	clean := path.Clean(file)
	for _, c := range o.seen {
		if clean == c.path || strings.HasPrefix(clean, c.path+"/") || strings.HasPrefix(c.path, clean+"/") {
			other := fmt.Sprintf("%q", c.path)
			if c.source != "" {
				other = fmt.Sprintf("%q (%s)", c.path, c.source)
			}
			mine := fmt.Sprintf("%q", clean)
			if source != "" {
				mine = fmt.Sprintf("%q (%s)", clean, source)
			}
			o.add("%s: overlapping paths: %s with %s", o.from, mine, other)
		}
	}
	o.seen = append(o.seen, claimed{clean, source})
}

func (o *overlap) keys(items []corev1.KeyToPath, source string) {
	for _, item := range items {
		o.claim(item.Path, source)
	}
}

func (o *overlap) files(items []corev1.DownwardAPIVolumeFile, source string) {
	for _, item := range items {
		o.claim(item.Path, source)
	}
}

func (o *overlap) projected(v *corev1.Volume) {
	o.from = fmt.Sprintf("volume %q (Projected)", v.Name)
	for _, s := range v.Projected.Sources {
		switch {
		case s.ConfigMap != nil:
			o.keys(s.ConfigMap.Items, fmt.Sprintf("ConfigMap %q", s.ConfigMap.Name))
		case s.Secret != nil:
			o.keys(s.Secret.Items, fmt.Sprintf("Secret %q", s.Secret.Name))
		case s.DownwardAPI != nil:
			o.files(s.DownwardAPI.Items, "DownwardAPI")
		case s.ServiceAccountToken != nil:
			o.claim(s.ServiceAccountToken.Path, "ServiceAccountToken")
		case s.ClusterTrustBundle != nil:
			o.claim(s.ClusterTrustBundle.Path, "ClusterTrustBundle")
		case s.PodCertificate != nil:
			for _, file := range []string{s.PodCertificate.CredentialBundlePath, s.PodCertificate.KeyPath, s.PodCertificate.CertificateChainPath} {
				if file != "" {
					o.claim(file, "PodCertificate")
				}
			}
		default:
			o.add("%s has no sources provided", o.from)
		}
	}
}
