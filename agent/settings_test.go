package agent

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/client-go/kubernetes/fake"
)

func founded() Settings { return DefaultConfig().settings() }

// change makes the object of the founded cluster with some keys changed; "-" removes one.
func change(pairs ...string) *corev1.ConfigMap {
	object := founded().object()
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] == "-" {
			delete(object.Data, pairs[i])
			continue
		}
		object.Data[pairs[i]] = pairs[i+1]
	}
	return object
}

func TestSettingsSurviveTheirObject(t *testing.T) {
	want := founded()
	want.PodRanges, want.EvictionDelay.Duration = []string{"10.1.0.0/16", "fd00::/48"}, 90*time.Second
	got, errs := readSettings(want.object())
	if len(errs) > 0 || !got.equal(want) {
		t.Errorf("got %+v and %v, want %+v", got, errs, want)
	}
}

// request is one to the object as admission sees it.
func request(operation admission.Operation, namespace, name string, object, old *corev1.ConfigMap) admission.Attributes {
	var now, was runtime.Object
	if object != nil {
		now = object
	}
	if old != nil {
		was = old
	}
	return admission.NewAttributesRecord(now, was, schema.GroupVersionKind{Version: "v1", Kind: "ConfigMap"}, namespace, name,
		schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}, "", operation, nil, false, nil)
}

func TestAdmissionOfSettings(t *testing.T) {
	immutable := change()
	yes := true
	immutable.Immutable = &yes
	binary := change()
	binary.BinaryData = map[string][]byte{"pod-ranges": {1}}
	for name, c := range map[string]struct {
		object *corev1.ConfigMap
		want   []string
	}{
		"as they were":                {change(), nil},
		"an other eviction delay":     {change("eviction-delay", "1m30s"), nil},
		"the same, written otherwise": {change("pod-ranges", "10.244.0.0/16,"), nil},
		"no duration":                 {change("eviction-delay", "soon"), []string{"data[eviction-delay]"}},
		"negative":                    {change("eviction-delay", "-1s"), []string{"data[eviction-delay]"}},
		"missing":                     {change("eviction-delay", "-", "cluster-domain", "-"), []string{"data[eviction-delay]", "data[cluster-domain]"}},
		"unknown":                     {change("evictiondelay", "5s"), []string{"data[evictiondelay]"}},
		"other service ranges":        {change("service-ranges", "10.0.0.0/16"), []string{"data[service-ranges]"}},
		"another domain":              {change("cluster-domain", "example.org"), []string{"data[cluster-domain]"}},
		"no domain":                   {change("cluster-domain", "not a domain"), []string{"data[cluster-domain]"}},
		"overlapping":                 {change("pod-ranges", "10.96.0.0/16"), []string{"data[service-ranges]"}},
		"another tunnel":              {change("tunnel", "vxlan"), nil},
		"an unknown tunnel":           {change("tunnel", "ipsec"), []string{"data[tunnel]"}},
		"three voters":                {change("voters", "3"), nil},
		"an even number of voters":    {change("voters", "2"), []string{"data[voters]"}},
		"too many voters":             {change("voters", "11"), []string{"data[voters]"}},
		"no number of voters":         {change("voters", "all"), []string{"data[voters]"}},
		"rebalancing":                 {change("rebalance", "true"), nil},
		"from an older version":       {change("rebalance", "-"), nil},
		"rebalancing, perhaps":        {change("rebalance", "perhaps"), []string{"data[rebalance]"}},
		"security policies":           {change("pod-security-policies", "true"), nil},
		"made before there were some": {change("pod-security-policies", "-"), nil},
		"neither on nor off":          {change("pod-security-policies", "maybe"), []string{"data[pod-security-policies]"}},
		"immutable":                   {immutable, []string{"immutable"}},
		"binary":                      {binary, []string{"binaryData"}},
	} {
		plugin := newSettingsAdmission(founded)
		err := plugin.Validate(context.Background(), request(admission.Update, "kube-system", settingsName, c.object, change()), nil)
		var got []string
		var status apierrors.APIStatus
		if errors.As(err, &status) {
			for _, cause := range status.Status().Details.Causes {
				got = append(got, cause.Field)
			}
		}
		slices.Sort(got)
		slices.Sort(c.want)
		if !slices.Equal(got, c.want) || (err != nil) != (len(c.want) > 0) {
			t.Errorf("%s: errors at %q, want %q (%v)", name, got, c.want, err)
		}
	}
}

func TestAdmissionOfSettingsLooksAtNothingElse(t *testing.T) {
	plugin := newSettingsAdmission(founded)
	other := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "other", Namespace: "kube-system"}}
	settings := change()
	for name, c := range map[string]struct {
		attributes admission.Attributes
		refused    bool
	}{
		"another object":          {request(admission.Create, "kube-system", "other", other, nil), false},
		"another namespace":       {request(admission.Create, "ns", settingsName, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: settingsName}}, nil), false},
		"deletion of another":     {request(admission.Delete, "kube-system", "other", nil, other), false},
		"deletion":                {request(admission.Delete, "kube-system", settingsName, nil, settings), true},
		"deletion of all of them": {request(admission.Delete, "kube-system", "", nil, settings), true},
	} {
		if err := plugin.Validate(context.Background(), c.attributes, nil); (err != nil) != c.refused {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestKeeperFollowsTheObject(t *testing.T) {
	path := filepath.Join(t.TempDir(), "settings.json")
	var said strings.Builder
	keeper := newSettingsKeeper(path, founded(), slog.New(slog.NewTextHandler(&said, nil)))
	var changes []bool
	keeper.changed = func(was, is Settings) { changes = append(changes, was.PodSecurityPolicies != is.PodSecurityPolicies) }
	keeper.take(change())
	if said.Len() > 0 {
		t.Errorf("settings that are the same are no news: %s", said.String())
	}
	keeper.take(change("eviction-delay", "9s"))
	if got := keeper.get().evictionDelaySeconds(); got != 9 {
		t.Errorf("eviction delay is %d s, want 9", got)
	}
	kept, err := loadSettings(path, founded())
	if err != nil || !kept.equal(keeper.get()) {
		t.Errorf("the copy on disk is %+v (%v)", kept, err)
	}
	for _, bad := range []*corev1.ConfigMap{change("eviction-delay", "soon"), change("cluster-domain", "example.org")} {
		keeper.take(bad)
		if !keeper.get().equal(kept) {
			t.Errorf("bad settings were taken: %+v", keeper.get())
		}
	}
	if !strings.Contains(said.String(), "ignore bad settings") {
		t.Errorf("nothing was said of bad settings: %s", said.String())
	}
	keeper.take(change("eviction-delay", "9s", "pod-security-policies", "true"))
	if want := []bool{false, true}; !slices.Equal(changes, want) {
		t.Errorf("told of changes %v, want %v", changes, want)
	}
}

// settle lets an informer, which pauses between its tries, come to rest. Time is virtual.
func settle() {
	<-time.After(time.Minute)
	synctest.Wait()
}

// The whole way: an object that changes in the API, and a keeper that watches it.
func TestKeeperWatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset(change())
		keeper := newSettingsKeeper(filepath.Join(t.TempDir(), "settings.json"), founded(), slog.New(slog.NewTextHandler(io.Discard, nil)))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- keeper.follow(ctx, client) }()
		settle()
		if _, err := client.CoreV1().ConfigMaps("kube-system").Update(ctx, change("eviction-delay", "7s"), metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		settle()
		if got := keeper.get().evictionDelaySeconds(); got != 7 {
			t.Errorf("eviction delay is %d s, want 7", got)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
