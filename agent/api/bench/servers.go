package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	"github.com/go-logr/logr"
	"go.etcd.io/etcd/server/v3/embed"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/registry/generic"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/apiserver/pkg/storage/storagebackend/factory"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/podvine/podvine/agent/api"
	"github.com/podvine/podvine/agent/api/apitest"
	"github.com/podvine/podvine/agent/collector"
)

// The servers, by the name under which a child process is started.
const (
	servePodvine = "podvine"
	serveEtcd    = "etcd"     // etcd itself
	serveEtcdAPI = "etcd-api" // the API server over it
)

// etcdSocket is where etcd listens, in its folder: a Unix socket, the cheapest way there is.
const etcdSocket = "etcd.sock"

// readyFile appears in a server's folder when it answers.
const readyFile = "ready"

// runServer is one of the servers until ctx ends.
func runServer(ctx context.Context, name, dir string) error {
	klog.SetLogger(logr.Discard()) // the libraries' chatter costs CPU that is measured
	defer collector.Pace()()       // as the agent does, and for etcd alike
	switch name {
	case serveEtcd:
		return runEtcd(ctx, dir)
	case servePodvine, serveEtcdAPI:
		options := apitest.Options{Dir: dir}
		if name == serveEtcdAPI {
			options.Adjust = overEtcd("unix://" + filepath.Join(dir, etcdSocket))
		}
		return apitest.Run(ctx, options, func(*apitest.Cluster) {
			if err := os.WriteFile(filepath.Join(dir, readyFile), nil, 0o600); err != nil {
				panic(err)
			}
		})
	}
	return fmt.Errorf("serve %q: unknown", name)
}

// overEtcd makes the API server keep its objects in etcd, with the Cacher, as kube-apiserver does.
func overEtcd(endpoint string) func(*api.Config) {
	cached := genericregistry.StorageWithCacher()
	return func(config *api.Config) {
		config.ListerWatcher = nil
		config.Storage = func(
			resource *storagebackend.ConfigForResource, prefix string, keyFunc func(runtime.Object) (string, error),
			newFunc, newListFunc func() runtime.Object, attributes storage.AttrFunc, triggers storage.IndexerFuncs, indexers *cache.Indexers,
		) (storage.Interface, factory.DestroyFunc, error) {
			backend := *resource
			defaults := storagebackend.NewDefaultConfig("/registry", backend.Codec)
			defaults.EncodeVersioner, defaults.Transformer = backend.EncodeVersioner, backend.Transformer
			defaults.Transport.ServerList = []string{endpoint}
			defaults.StorageObjectCountTracker = backend.StorageObjectCountTracker
			backend.Config = *defaults
			return cached(&backend, prefix, keyFunc, newFunc, newListFunc, attributes, triggers, indexers)
		}
	}
}

var _ generic.StorageDecorator = genericregistry.StorageWithCacher()

func runEtcd(ctx context.Context, dir string) error {
	config := embed.NewConfig()
	config.Dir, config.LogLevel = filepath.Join(dir, "etcd"), "error"
	client, err := url.Parse("unix://" + filepath.Join(dir, etcdSocket))
	if err != nil {
		return err
	}
	peer, err := url.Parse("unix://" + filepath.Join(dir, "peer.sock"))
	if err != nil {
		return err
	}
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{*client}, []url.URL{*client}
	config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{*peer}, []url.URL{*peer}
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	config.QuotaBackendBytes = 8 << 30
	server, err := embed.StartEtcd(config)
	if err != nil {
		return fmt.Errorf("start etcd: %w", err)
	}
	defer server.Close()
	select {
	case <-server.Server.ReadyNotify():
	case err := <-server.Err():
		return fmt.Errorf("start etcd: %w", err)
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := os.WriteFile(filepath.Join(dir, readyFile+"-"+serveEtcd), nil, 0o600); err != nil {
		return err
	}
	select {
	case err := <-server.Err():
		return errors.Join(errors.New("etcd ended"), err)
	case <-ctx.Done():
		return nil
	}
}
