// Package environ works out what a container sees of the cluster as text: its
// environment variables, /etc/hosts and /etc/resolv.conf.
//
// Role: pure functions of the pod and of a Source of other objects; nothing is
// kept. Concurrency: everything is safe for use by many goroutines.
package environ

import (
	"errors"
	"fmt"
	"net"
	"regexp"
	"sort"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"
)

// Source finds the objects that a pod refers to. A missing object is an
// apierrors NotFound.
type Source interface {
	ConfigMap(namespace, name string) (*corev1.ConfigMap, error)
	Secret(namespace, name string) (*corev1.Secret, error)
}

// Facts are what the downward API can tell.
type Facts struct {
	Pod     *corev1.Pod
	HostIPs []string
	PodIPs  []string
	// Allocatable stands in for limits that a container does not set.
	Allocatable corev1.ResourceList
	// Services of the pod's namespace, and the default namespace's kubernetes.
	Services []*corev1.Service
}

// Var is one variable.
type Var struct{ Name, Value string }

// Build returns the container's variables in the order in which Kubernetes
// defines them: service links, envFrom, env.
func Build(c *corev1.Container, f Facts, src Source) ([]Var, error) {
	vars := newOrdered()
	links := f.Pod.Spec.EnableServiceLinks == nil || *f.Pod.Spec.EnableServiceLinks
	for _, v := range serviceVars(f.Services, f.Pod.Namespace, links) {
		vars.set(v.Name, v.Value)
	}
	for i := range c.EnvFrom {
		if err := addFrom(vars, &c.EnvFrom[i], f.Pod.Namespace, src); err != nil {
			return nil, err
		}
	}
	for i := range c.Env {
		e := &c.Env[i]
		if e.ValueFrom == nil {
			vars.set(e.Name, Expand(e.Value, vars.get))
			continue
		}
		v, skip, err := valueFrom(e.ValueFrom, c, f, src)
		if err != nil {
			return nil, err
		}
		if !skip {
			vars.set(e.Name, v)
		}
	}
	return vars.list, nil
}

type ordered struct {
	list  []Var
	index map[string]int
}

func newOrdered() *ordered { return &ordered{index: map[string]int{}} }

func (o *ordered) set(name, value string) {
	if i, ok := o.index[name]; ok {
		o.list[i].Value = value
		return
	}
	o.index[name] = len(o.list)
	o.list = append(o.list, Var{name, value})
}

func (o *ordered) get(name string) (string, bool) {
	i, ok := o.index[name]
	if !ok {
		return "", false
	}
	return o.list[i].Value, true
}

// Expand replaces $(NAME) by its value; $$ is a literal dollar, and a name that
// is not known stays as it is.
func Expand(s string, get func(string) (string, bool)) string {
	if !strings.Contains(s, "$") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '$' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		switch s[i+1] {
		case '$':
			b.WriteByte('$')
			i++
		case '(':
			end := strings.IndexByte(s[i+2:], ')')
			if end < 0 {
				b.WriteString("$(")
				i++
				continue
			}
			name := s[i+2 : i+2+end]
			if v, ok := get(name); ok {
				b.WriteString(v)
			} else {
				b.WriteString("$(" + name + ")")
			}
			i += 2 + end
		default:
			b.WriteByte('$')
		}
	}
	return b.String()
}

// Lookup makes a getter for Expand from variables.
func Lookup(vars []Var) func(string) (string, bool) {
	m := make(map[string]string, len(vars))
	for _, v := range vars {
		m[v.Name] = v.Value
	}
	return func(n string) (string, bool) {
		v, ok := m[n]
		return v, ok
	}
}

func addFrom(vars *ordered, from *corev1.EnvFromSource, ns string, src Source) error {
	values := map[string]string{}
	switch {
	case from.ConfigMapRef != nil:
		cm, err := src.ConfigMap(ns, from.ConfigMapRef.Name)
		if err != nil {
			if apierrors.IsNotFound(err) && isTrue(from.ConfigMapRef.Optional) {
				return nil
			}
			return err
		}
		for k, v := range cm.Data {
			values[k] = v
		}
	case from.SecretRef != nil:
		s, err := src.Secret(ns, from.SecretRef.Name)
		if err != nil {
			if apierrors.IsNotFound(err) && isTrue(from.SecretRef.Optional) {
				return nil
			}
			return err
		}
		for k, v := range s.Data {
			values[k] = string(v)
		}
	}
	keys := make([]string, 0, len(values))
	for k := range values {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for _, k := range keys {
		if name := from.Prefix + k; len(validation.IsRelaxedEnvVarName(name)) == 0 {
			vars.set(name, values[k])
		}
	}
	return nil
}

func isTrue(b *bool) bool { return b != nil && *b }

func valueFrom(from *corev1.EnvVarSource, c *corev1.Container, f Facts, src Source) (v string, skip bool, err error) {
	ns := f.Pod.Namespace
	switch {
	case from.FieldRef != nil:
		v, err = Field(f, from.FieldRef.FieldPath)
	case from.ResourceFieldRef != nil:
		v, err = Resource(f, from.ResourceFieldRef, c)
	case from.ConfigMapKeyRef != nil:
		ref := from.ConfigMapKeyRef
		cm, err := src.ConfigMap(ns, ref.Name)
		if err != nil {
			return "", true, optional(err, ref.Optional)
		}
		if v, ok := cm.Data[ref.Key]; ok {
			return v, false, nil
		}
		if isTrue(ref.Optional) {
			return "", true, nil
		}
		return "", false, fmt.Errorf("couldn't find key %v in ConfigMap %v/%v", ref.Key, ns, ref.Name)
	case from.SecretKeyRef != nil:
		ref := from.SecretKeyRef
		s, err := src.Secret(ns, ref.Name)
		if err != nil {
			return "", true, optional(err, ref.Optional)
		}
		if v, ok := s.Data[ref.Key]; ok {
			return string(v), false, nil
		}
		if isTrue(ref.Optional) {
			return "", true, nil
		}
		return "", false, fmt.Errorf("couldn't find key %v in Secret %v/%v", ref.Key, ns, ref.Name)
	case from.FileKeyRef != nil:
		return "", false, errors.New("fileKeyRef is not supported by this version")
	}
	return v, false, err
}

func optional(err error, opt *bool) error {
	if apierrors.IsNotFound(err) && isTrue(opt) {
		return nil
	}
	return err
}

// Field is one value of the downward API.
func Field(f Facts, path string) (string, error) {
	if base, key, ok := subscript(path); ok {
		switch base {
		case "metadata.labels":
			return f.Pod.Labels[key], nil
		case "metadata.annotations":
			return f.Pod.Annotations[key], nil
		}
	}
	switch path {
	case "metadata.name":
		return f.Pod.Name, nil
	case "metadata.namespace":
		return f.Pod.Namespace, nil
	case "metadata.uid":
		return string(f.Pod.UID), nil
	case "metadata.labels":
		return formatMap(f.Pod.Labels), nil
	case "metadata.annotations":
		return formatMap(f.Pod.Annotations), nil
	case "spec.nodeName":
		return f.Pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return f.Pod.Spec.ServiceAccountName, nil
	case "status.hostIP":
		return first(f.HostIPs), nil
	case "status.hostIPs":
		return strings.Join(f.HostIPs, ","), nil
	case "status.podIP":
		return first(f.PodIPs), nil
	case "status.podIPs":
		return strings.Join(f.PodIPs, ","), nil
	}
	return "", fmt.Errorf("unsupported fieldPath: %v", path)
}

func first(s []string) string {
	if len(s) == 0 {
		return ""
	}
	return s[0]
}

// subscript splits metadata.labels['key'].
func subscript(path string) (base, key string, ok bool) {
	base, rest, ok := strings.Cut(path, "['")
	if !ok {
		return "", "", false
	}
	return base, strings.TrimSuffix(rest, "']"), strings.HasSuffix(rest, "']")
}

func formatMap(m map[string]string) string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	var b strings.Builder
	for i, k := range keys {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%s=%q", k, m[k])
	}
	return b.String()
}

// Resource is a container's request or limit in units of the divisor, rounded
// up. c is the container asking; the reference may name another.
func Resource(f Facts, ref *corev1.ResourceFieldSelector, c *corev1.Container) (string, error) {
	if ref.ContainerName != "" {
		if c = findContainer(f.Pod, ref.ContainerName); c == nil {
			return "", fmt.Errorf("container %s not found", ref.ContainerName)
		}
	}
	kind, name, ok := strings.Cut(ref.Resource, ".")
	if !ok || c == nil {
		return "", fmt.Errorf("unsupported container resource : %v", ref.Resource)
	}
	var q resource.Quantity
	switch kind {
	case "limits":
		var set bool
		if q, set = c.Resources.Limits[corev1.ResourceName(name)]; !set || q.IsZero() {
			q = f.Allocatable[corev1.ResourceName(name)]
		}
	case "requests":
		q = c.Resources.Requests[corev1.ResourceName(name)]
	default:
		return "", fmt.Errorf("unsupported container resource : %v", ref.Resource)
	}
	div := ref.Divisor
	if div.IsZero() {
		div = resource.MustParse("1")
	}
	if name == "cpu" {
		return strconv.FormatInt(ceil(q.MilliValue(), div.MilliValue()), 10), nil
	}
	return strconv.FormatInt(ceil(q.Value(), max(div.Value(), 1)), 10), nil
}

func ceil(a, b int64) int64 { return (a + b - 1) / b }

func findContainer(pod *corev1.Pod, name string) *corev1.Container {
	for i := range pod.Spec.Containers {
		if pod.Spec.Containers[i].Name == name {
			return &pod.Spec.Containers[i]
		}
	}
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == name {
			return &pod.Spec.InitContainers[i]
		}
	}
	return nil
}

// masterService is linked into every pod.
const masterService = "kubernetes"

func serviceVars(all []*corev1.Service, ns string, links bool) []Var {
	chosen := map[string]*corev1.Service{}
	for _, s := range all {
		if s.Spec.ClusterIP == "" || s.Spec.ClusterIP == corev1.ClusterIPNone || len(s.Spec.Ports) == 0 {
			continue
		}
		isMaster := s.Namespace == metav1Default && s.Name == masterService
		if (s.Namespace == ns && links) || (isMaster && chosen[s.Name] == nil) {
			chosen[s.Name] = s
		}
	}
	names := make([]string, 0, len(chosen))
	for n := range chosen {
		names = append(names, n)
	}
	sort.Strings(names)
	var out []Var
	for _, n := range names {
		out = append(out, linkVars(chosen[n])...)
	}
	return out
}

const metav1Default = "default"

func linkVars(s *corev1.Service) []Var {
	name := envName(s.Name)
	out := []Var{
		{name + "_SERVICE_HOST", s.Spec.ClusterIP},
		{name + "_SERVICE_PORT", strconv.Itoa(int(s.Spec.Ports[0].Port))},
	}
	for _, p := range s.Spec.Ports {
		if p.Name != "" {
			out = append(out, Var{name + "_SERVICE_PORT_" + envName(p.Name), strconv.Itoa(int(p.Port))})
		}
	}
	for i, p := range s.Spec.Ports {
		proto := strings.ToLower(string(p.Protocol))
		if proto == "" {
			proto = "tcp"
		}
		port := strconv.Itoa(int(p.Port))
		url := proto + "://" + net.JoinHostPort(s.Spec.ClusterIP, port)
		if i == 0 {
			out = append(out, Var{name + "_PORT", url})
		}
		prefix := name + "_PORT_" + port + "_" + strings.ToUpper(proto)
		out = append(out, Var{prefix, url}, Var{prefix + "_PROTO", proto}, Var{prefix + "_PORT", port}, Var{prefix + "_ADDR", s.Spec.ClusterIP})
	}
	return out
}

func envName(s string) string {
	return strings.ToUpper(regexp.MustCompile(`[-.]`).ReplaceAllString(s, "_"))
}
