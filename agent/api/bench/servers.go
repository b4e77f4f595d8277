package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/go-logr/logr"
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

// The API servers, by the name under which a child process is started; quorum.go has the other processes.
const (
	servePodvine = "podvine"
	serveEtcdAPI = "etcd-api"
)

// readyFile, with a dash and the process's name behind it, appears in the folder when that process is ready.
const readyFile = "ready"

// runServer is one of a side's processes until ctx ends.
func runServer(ctx context.Context, name, dir string, voters int) error {
	klog.SetLogger(logr.Discard()) // the libraries' chatter costs CPU that is measured
	defer collector.Pace()()       // as the agent does, and for etcd alike
	if number, ok := numberOf(name, followerPrefix); ok {
		return runFollower(ctx, number, dir)
	}
	if number, ok := numberOf(name, etcdPrefix); ok {
		return runEtcd(ctx, number, voters, dir)
	}
	options := apitest.Options{Dir: dir}
	switch name {
	case serveEtcdAPI:
		var endpoints []string
		for number := 1; number <= voters; number++ {
			address := unixURL(etcdSocket(dir, number))
			endpoints = append(endpoints, address.String())
		}
		options.Adjust = overEtcd(endpoints)
	case servePodvine:
		var err error
		if voters > 1 {
			if options.Network, err = unixNetwork(dir, voterID(1)); err != nil {
				return err
			}
		}
	default:
		return fmt.Errorf("serve %q: unknown", name)
	}
	return apitest.Run(ctx, options, func(c *apitest.Cluster) {
		err := error(nil)
		if name == servePodvine {
			err = formQuorum(ctx, c.Replica(), voters)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, readyFile+"-"+name), nil, 0o600)
		}
		if err != nil {
			panic(err)
		}
	})
}

// overEtcd makes the API server keep its objects in etcd, with the Cacher, as kube-apiserver does.
func overEtcd(endpoints []string) func(*api.Config) {
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
			defaults.Transport.ServerList = endpoints
			defaults.StorageObjectCountTracker = backend.StorageObjectCountTracker
			backend.Config = *defaults
			return cached(&backend, prefix, keyFunc, newFunc, newListFunc, attributes, triggers, indexers)
		}
	}
}

var _ generic.StorageDecorator = genericregistry.StorageWithCacher()
