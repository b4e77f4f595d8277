package api

import (
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/apiserver/pkg/util/compatibility"
	basecompatibility "k8s.io/component-base/compatibility"
)

// kubernetesVersion is the release whose API is served; it is that of the libraries in go.mod.
const kubernetesVersion = "v1.37.2"

// servedVersion tells clients the Kubernetes release that they can expect, whatever the build was stamped with.
type servedVersion struct {
	basecompatibility.EffectiveVersion
}

func newVersion() basecompatibility.EffectiveVersion {
	return servedVersion{compatibility.DefaultBuildEffectiveVersion()}
}

// Info implements compatibility.EffectiveVersion.
func (v servedVersion) Info() *version.Info {
	info := v.EffectiveVersion.Info()
	info.GitVersion, info.GitTreeState = kubernetesVersion, "clean"
	return info
}
