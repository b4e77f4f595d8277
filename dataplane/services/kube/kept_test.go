package kube

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

// disk keeps values as a node's does.
type disk struct {
	mu     sync.Mutex
	values map[string][]byte
	kept   chan struct{} // closed with the first
}

func (d *disk) Put(kind, key string, value any) error {
	content, err := json.Marshal(value)
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.values) == 0 {
		close(d.kept)
	}
	d.values[kind+"/"+key] = content
	return err
}

func (d *disk) Get(kind, key string, value any) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	content, ok := d.values[kind+"/"+key]
	if !ok {
		return fs.ErrNotExist
	}
	return json.Unmarshal(content, value)
}

// A node that starts while the cluster is silent serves what it knew, and what is so once the cluster speaks.
func TestServicesOutliveASilentCluster(t *testing.T) {
	disk := &disk{values: map[string][]byte{}, kept: make(chan struct{})}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "here"}}
	start := func(client *fake.Clientset, r *recorder) (stop func()) {
		t.Helper()
		factory := informers.NewSharedInformerFactory(client, 0)
		source, err := New(Config{Informers: factory, NodeName: "here", Proxy: r, Names: nameRecorder{r}, Keep: disk, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		factory.StartWithContext(ctx)
		done := make(chan error, 1)
		go func() { done <- source.Run(ctx) }()
		return sync.OnceFunc(func() {
			cancel()
			if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			factory.Shutdown()
		})
	}
	before := newRecorder(0)
	stop := start(fake.NewClientset(webObject(), webSlice("here", "10.244.0.5"), node), before)
	defer stop()
	before.eventually(t, "served", func() bool { return before.sets == 1 })
	select {
	case <-disk.kept:
	case <-time.After(patience):
		t.Fatal("what is served was not kept")
	}
	stop()

	silent := fake.NewClientset(webObject(), webSlice("here", "10.244.0.6"), node)
	speaks := make(chan struct{})
	silent.PrependReactor("list", "*", func(clienttesting.Action) (bool, runtime.Object, error) {
		select {
		case <-speaks:
			return false, nil, nil
		default:
			return true, nil, errors.New("nobody is there")
		}
	})
	after := newRecorder(0)
	stop = start(silent, after)
	defer stop()
	endpoint := func() string {
		service, ok := after.services["default/web"]
		if !ok || len(service.Ports) == 0 || len(service.Ports[0].Endpoints) == 0 {
			return ""
		}
		return service.Ports[0].Endpoints[0].Addr.String()
	}
	after.eventually(t, "served as kept", func() bool { return endpoint() == "10.244.0.5:8080" && len(after.names) == 1 })
	close(speaks)
	after.eventually(t, "served as it is", func() bool { return endpoint() == "10.244.0.6:8080" })
}
