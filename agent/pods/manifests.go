package pods

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/yaml"

	"github.com/podvine/podvine/agent/pods/lifecycle"
	"github.com/podvine/podvine/agent/pods/objects"
)

// Annotations of static pods and of their pictures in the API.
const (
	annotationSource = "kubernetes.io/config.source"
	annotationHash   = "kubernetes.io/config.hash"
	annotationFile   = "podvine.io/manifest"
)

const (
	// maxManifestBytes bounds one file of the manifests folder, maxManifests their number.
	maxManifestBytes = 1 << 20
	maxManifests     = 100
	// staticUIDBytes is how much of a file's digest is its pod's UID.
	staticUIDBytes = 16
)

// readManifests reads the folder's pods by their hash, in the order of the
// files; a file that is no pod is in failed.
func readManifests(dir, nodeName string, complete func(*corev1.Pod) error) (pods []*corev1.Pod, failed map[string]error, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read manifests folder: %w", err)
	}
	failed = map[string]error{}
	for _, e := range entries {
		name := e.Name()
		if e.IsDir() || strings.HasPrefix(name, ".") || strings.HasSuffix(name, "~") {
			continue
		}
		if len(pods)+len(failed) >= maxManifests {
			failed[name] = fmt.Errorf("the folder holds more than %d manifests", maxManifests)
			continue
		}
		pod, err := readManifest(filepath.Join(dir, name), nodeName, complete)
		if err != nil {
			failed[name] = err
			continue
		}
		pods = append(pods, pod)
	}
	return pods, failed, nil
}

func readManifest(path, nodeName string, complete func(*corev1.Pod) error) (*corev1.Pod, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("look at manifest: %w", err)
	}
	if st.Size() > maxManifestBytes {
		return nil, fmt.Errorf("manifest has %d bytes, the limit is %d", st.Size(), maxManifestBytes)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	pod := &corev1.Pod{}
	if err := yaml.UnmarshalStrict(raw, pod); err != nil {
		return nil, fmt.Errorf("decode manifest: %w", err)
	}
	if pod.Kind != "Pod" || pod.APIVersion != "v1" || pod.Name == "" {
		return nil, fmt.Errorf("manifest is a %s %s %q, not a v1 Pod with a name", pod.APIVersion, pod.Kind, pod.Name)
	}
	if len(objects.Refs(pod)) > 0 || pod.Spec.ServiceAccountName != "" {
		return nil, errors.New("static pods may refer to no Secret, ConfigMap or service account")
	}
	if len(pod.Spec.EphemeralContainers) > 0 {
		return nil, errors.New("static pods do not support ephemeral containers")
	}
	sum := sha256.Sum256(append([]byte(nodeName+"\x00"+filepath.Base(path)+"\x00"), raw...))
	hash := hex.EncodeToString(sum[:staticUIDBytes])
	pod.UID, pod.Name, pod.Spec.NodeName = types.UID(hash), pod.Name+"-"+strings.ToLower(nodeName), nodeName
	if pod.Namespace == "" {
		pod.Namespace = metav1.NamespaceDefault
	}
	metav1.SetMetaDataAnnotation(&pod.ObjectMeta, annotationSource, "file")
	metav1.SetMetaDataAnnotation(&pod.ObjectMeta, annotationHash, hash)
	metav1.SetMetaDataAnnotation(&pod.ObjectMeta, annotationFile, filepath.Base(path))
	pod.Spec.Tolerations = append(pod.Spec.Tolerations, corev1.Toleration{Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute})
	pod.Status = corev1.PodStatus{Phase: corev1.PodPending}
	if complete != nil {
		if err := complete(pod); err != nil {
			return nil, err
		}
	}
	return pod, nil
}

// picture is what the API is shown of a static pod.
func picture(pod *corev1.Pod, nodeUID types.UID) *corev1.Pod {
	yes := true
	out := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: pod.Namespace, Name: pod.Name, Labels: pod.Labels, Annotations: map[string]string{},
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: pod.Spec.NodeName, UID: nodeUID, Controller: &yes}},
	}, Spec: *pod.Spec.DeepCopy()}
	for k, v := range pod.Annotations {
		out.Annotations[k] = v
	}
	out.Annotations[corev1.MirrorPodAnnotationKey] = pod.Annotations[annotationHash]
	return out
}

// isMirror tells whether the API's pod is only the picture of one.
func isMirror(pod *corev1.Pod) bool {
	_, ok := pod.Annotations[corev1.MirrorPodAnnotationKey]
	return ok
}

func keyOf(pod *corev1.Pod) string { return cache.NewObjectName(pod.Namespace, pod.Name).String() }

// staticView gathers what DecideStatic looks at.
func staticView(wanted []*corev1.Pod, failed map[string]error, running []*worker, mirrors []*corev1.Pod, synced bool) lifecycle.StaticView {
	v := lifecycle.StaticView{Synced: synced, Unreadable: map[string]bool{}}
	for name := range failed {
		v.Unreadable[name] = true
	}
	for _, p := range wanted {
		v.Wanted = append(v.Wanted, lifecycle.Static{Key: keyOf(p), Hash: string(p.UID), File: p.Annotations[annotationFile]})
	}
	for _, w := range running {
		p := w.pod()
		v.Running = append(v.Running, lifecycle.Static{Key: keyOf(p), Hash: string(p.UID), File: p.Annotations[annotationFile], Ending: p.DeletionTimestamp != nil})
	}
	for _, m := range mirrors {
		v.Mirrors = append(v.Mirrors, lifecycle.Mirror{Key: keyOf(m), Hash: m.Annotations[corev1.MirrorPodAnnotationKey], Deleting: m.DeletionTimestamp != nil})
	}
	return v
}

// byHash finds pods by their UIDs.
func byHash(pods []*corev1.Pod, hashes []string) []*corev1.Pod {
	want := sets.New(hashes...)
	var out []*corev1.Pod
	for _, p := range pods {
		if want.Has(string(p.UID)) {
			out = append(out, p)
		}
	}
	return out
}
