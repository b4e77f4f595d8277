package admission

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	"k8s.io/apiserver/pkg/util/compatibility"
	"k8s.io/apiserver/pkg/util/webhook"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
)

// BenchmarkChain is what admission costs a request for which nobody has configured anything: with a server's whole chain,
// and without what users may add to it.
func BenchmarkChain(b *testing.B) {
	for _, extended := range []bool{true, false} {
		name := map[bool]string{true: "extended", false: "usual"}[extended]
		b.Run(name, func(b *testing.B) {
			client := fake.NewClientset(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}})
			factory := informers.NewSharedInformerFactory(client, 0)
			config := Config{Client: client, Informers: factory, Authorizer: authorizerfactory.NewAlwaysAllowAuthorizer(),
				Serves: func(schema.GroupVersionResource) bool { return true }}
			if extended {
				config.Extensions = &Extensions{Dynamic: dynamicfake.NewSimpleDynamicClient(runtime.NewScheme()), Mapper: meta.NewDefaultRESTMapper(nil),
					Services: webhook.NewDefaultServiceResolver(), Version: compatibility.DefaultBuildEffectiveVersion()}
			}
			c, err := New(config)
			if err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			if err := c.Start(ctx); err != nil {
				b.Fatal(err)
			}
			factory.Start(ctx.Done())
			factory.WaitForCacheSync(ctx.Done())
			objects := admission.NewObjectInterfacesFromScheme(scheme.Scheme)
			configMaps := corev1.SchemeGroupVersion.WithResource("configmaps")
			for b.Loop() {
				a := admission.NewAttributesRecord(&corev1.ConfigMap{}, nil, corev1.SchemeGroupVersion.WithKind("ConfigMap"), "ns", "c", configMaps, "",
					admission.Create, nil, false, &user.DefaultInfo{Name: "alice"})
				if err := c.Admit(ctx, a, objects); err != nil {
					b.Fatal(err)
				}
				if err := c.Validate(ctx, a, objects); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
