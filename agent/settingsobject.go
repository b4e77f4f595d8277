package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/admission"
	informers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/podvine/podvine/agent/api"
)

// settingsName is the ConfigMap in kube-system that holds the settings, each under the name of its flag.
const settingsName = "podvine-settings"

// object is the settings as users see them.
func (s Settings) object() *corev1.ConfigMap {
	object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: settingsName, Namespace: metav1.NamespaceSystem}, Data: map[string]string{}}
	for _, one := range settingsTable() {
		object.Data[one.name] = one.get(s)
	}
	return object
}

// readSettings takes settings from their object and reports everything that is wrong with it.
func readSettings(object *corev1.ConfigMap) (Settings, field.ErrorList) {
	var settings Settings
	var errs field.ErrorList
	data := field.NewPath("data")
	table := settingsTable()
	for _, one := range table {
		text, ok := object.Data[one.name]
		if !ok && one.optional {
			continue
		}
		if !ok {
			errs = append(errs, field.Required(data.Key(one.name), ""))
		} else if err := one.set(&settings, text); err != nil {
			errs = append(errs, field.Invalid(data.Key(one.name), text, err.Error()))
		}
	}
	var names []string
	for _, one := range table {
		names = append(names, one.name)
	}
	for name := range object.Data {
		if !slices.Contains(names, name) {
			errs = append(errs, field.NotSupported(data.Key(name), name, names))
		}
	}
	if len(object.BinaryData) > 0 {
		errs = append(errs, field.Forbidden(field.NewPath("binaryData"), "settings are text"))
	}
	if object.Immutable != nil && *object.Immutable {
		errs = append(errs, field.Forbidden(field.NewPath("immutable"), "the cluster's settings must stay changeable"))
	}
	if len(errs) == 0 {
		settings.check(func(name, format string, args ...any) {
			errs = append(errs, field.Invalid(data.Key(name), object.Data[name], fmt.Sprintf(format, args...)))
		})
	}
	return settings, errs
}

// checkChange reports the changes of what was decided when the cluster was founded.
func checkChange(old, changed Settings) field.ErrorList {
	var errs field.ErrorList
	for _, one := range settingsTable() {
		if was, is := one.get(old), one.get(changed); !one.live && was != is {
			errs = append(errs, field.Forbidden(field.NewPath("data").Key(one.name),
				fmt.Sprintf("was decided when the cluster was founded (%s) and cannot be changed", was)))
		}
	}
	return errs
}

// settingsKeeper keeps this node's copy of the settings like their object. It is the one writer of that copy; anybody may
// read it at any time.
type settingsKeeper struct {
	path    string
	log     *slog.Logger
	current atomic.Pointer[Settings]
	// changed is called with what was and what is, once the copy on the disk is what is; nil is nobody. It is set before follow.
	changed func(was, is Settings)
}

func newSettingsKeeper(path string, settings Settings, log *slog.Logger) *settingsKeeper {
	k := &settingsKeeper{path: path, log: log}
	k.current.Store(&settings)
	return k
}

// get returns the settings; nobody may change their lists.
func (k *settingsKeeper) get() Settings { return *k.current.Load() }

// bootstrap makes the object where there is none, from this node's copy.
func (k *settingsKeeper) bootstrap() api.BootstrapHook {
	return api.BootstrapHook{Name: "podvine-settings", Run: func(hook api.HookContext) error {
		client, err := kubernetes.NewForConfig(hook.LoopbackClientConfig)
		if err != nil {
			return err
		}
		return retry(hook, func(ctx context.Context) error {
			_, err := client.CoreV1().ConfigMaps(metav1.NamespaceSystem).Create(ctx, k.get().object(), metav1.CreateOptions{})
			if apierrors.IsAlreadyExists(err) {
				return nil
			}
			return err
		})
	}}
}

// follow takes over every change of the object until ctx ends.
func (k *settingsKeeper) follow(ctx context.Context, client kubernetes.Interface) error {
	return followConfigMap(ctx, client, settingsName, k.take)
}

// followConfigMap calls take with a ConfigMap of kube-system as it is, and after each change, until ctx ends.
func followConfigMap(ctx context.Context, client kubernetes.Interface, name string, take func(*corev1.ConfigMap)) error {
	informer := informers.NewFilteredConfigMapInformer(client, metav1.NamespaceSystem, 0, cache.Indexers{}, func(options *metav1.ListOptions) {
		options.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()
	})
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { take(object.(*corev1.ConfigMap)) },
		UpdateFunc: func(_, object any) { take(object.(*corev1.ConfigMap)) },
	}); err != nil {
		return fmt.Errorf("follow ConfigMap %s: %w", name, err)
	}
	informer.RunWithContext(ctx)
	return nil
}

// take makes the object's settings the current ones. Admission lets no bad object pass; one that came around it is
// reported, and leaves the settings as they are.
func (k *settingsKeeper) take(object *corev1.ConfigMap) {
	settings, errs := readSettings(object)
	current := k.get()
	errs = append(errs, checkChange(current, settings)...)
	if len(errs) > 0 {
		k.log.Error("ignore bad settings of the cluster", "error", errs.ToAggregate())
		return
	}
	if settings.equal(current) {
		return
	}
	if err := writeJSON(k.path, settings); err != nil {
		// They act all the same; the next change, or start, writes them again.
		k.log.Error("keep the cluster's settings", "error", err)
		k.current.Store(&settings)
		return
	}
	k.current.Store(&settings)
	k.log.Info("settings of the cluster changed", "settings", settings.object().Data)
	if k.changed != nil {
		k.changed(current, settings)
	}
}

// settingsAdmission refuses settings that cannot be, and deleting them; and to write what agents alone write.
type settingsAdmission struct {
	*admission.Handler
	current func() Settings
}

var _ admission.ValidationInterface = settingsAdmission{}

func newSettingsAdmission(current func() Settings) settingsAdmission {
	return settingsAdmission{admission.NewHandler(admission.Create, admission.Update, admission.Delete), current}
}

// Validate implements admission.ValidationInterface.
func (p settingsAdmission) Validate(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if a.GetResource().GroupResource() != (schema.GroupResource{Resource: "configmaps"}) || a.GetNamespace() != metav1.NamespaceSystem {
		return nil
	}
	if err := guardRotation(a); err != nil {
		return err
	}
	if a.GetOperation() == admission.Delete {
		// A deletion of all of the namespace's config maps names none; each is there as the old object.
		old, ok := a.GetOldObject().(*corev1.ConfigMap)
		if a.GetName() == settingsName || ok && old.Name == settingsName {
			return admission.NewForbidden(a, errors.New("the cluster's settings cannot be deleted, only changed"))
		}
		return nil
	}
	object, ok := a.GetObject().(*corev1.ConfigMap)
	if !ok {
		return apierrors.NewBadRequest(fmt.Sprintf("unexpected type %T", a.GetObject()))
	}
	if object.Name != settingsName {
		return nil
	}
	settings, errs := readSettings(object)
	if len(errs) == 0 {
		errs = checkChange(p.current(), settings)
	}
	if len(errs) > 0 {
		return apierrors.NewInvalid(schema.GroupKind{Kind: "ConfigMap"}, settingsName, errs)
	}
	return nil
}
