package api

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/endpoints/discovery/aggregated"
)

// TestDiscoveredTells: once for a burst, once for what never rests, for a group that goes, and not for what is the same.
func TestDiscoveredTells(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDiscovered()
		manager := d.of(aggregated.NewResourceManager("apis")).WithSource(aggregated.CRDSource)
		told := 0
		d.listen(func() { told++ })
		ctx, stop := context.WithCancel(t.Context())
		go d.run(ctx)
		defer stop()
		after := func(what string, pause time.Duration, want int) {
			t.Helper()
			time.Sleep(pause)
			synctest.Wait()
			if told != want {
				t.Errorf("%s: told %d times, want %d", what, told, want)
			}
			told = 0
		}
		version := func(name string) apidiscoveryv2.APIVersionDiscovery {
			return apidiscoveryv2.APIVersionDiscovery{Version: name}
		}
		for _, name := range []string{"v1", "v2", "v3"} {
			manager.AddGroupVersion("example.com", version(name))
		}
		after("a burst", 2*discoveryRest, 1)
		manager.AddGroupVersion("example.com", version("v1"))
		after("the same again", 2*discoveryRestMost, 0)
		manager.RemoveGroupVersion(metav1.GroupVersion{Group: "example.com", Version: "v3"})
		after("a version goes", 2*discoveryRest, 1)
		manager.RemoveGroup("example.com")
		after("a group goes", 2*discoveryRest, 1)
		for i := range 2*int(discoveryRestMost/discoveryRest) + 2 {
			manager.SetGroupVersionPriority(metav1.GroupVersion{Group: "example.com", Version: "v1"}, 1, i)
			time.Sleep(discoveryRest / 2)
		}
		after("never at rest", 2*discoveryRest, 2)
	})
}
