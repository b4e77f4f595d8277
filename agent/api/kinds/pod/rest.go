package pod

import (
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"

	"github.com/podvine/podvine/agent/api/kinds"
)

// extend adds the sub-resources of pods.
func extend(guard DisruptionGuard) func(kinds.Env, *genericregistry.Store, *genericregistry.Store, map[string]rest.Storage) error {
	return func(env kinds.Env, store, _ *genericregistry.Store, storage map[string]rest.Storage) error {
		return nil
	}
}
