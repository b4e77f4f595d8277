package podsecuritypolicy

// The types' names in OpenAPI are those that Kubernetes gave them.
const modelPackage = "io.k8s.api.policy.v1beta1."

// OpenAPIModelName implements openapi's namer.
func (PodSecurityPolicy) OpenAPIModelName() string { return modelPackage + "PodSecurityPolicy" }

// OpenAPIModelName implements openapi's namer.
func (PodSecurityPolicyList) OpenAPIModelName() string { return modelPackage + "PodSecurityPolicyList" }

// OpenAPIModelName implements openapi's namer.
func (PodSecurityPolicySpec) OpenAPIModelName() string { return modelPackage + "PodSecurityPolicySpec" }

// OpenAPIModelName implements openapi's namer.
func (AllowedHostPath) OpenAPIModelName() string { return modelPackage + "AllowedHostPath" }

// OpenAPIModelName implements openapi's namer.
func (AllowedFlexVolume) OpenAPIModelName() string { return modelPackage + "AllowedFlexVolume" }

// OpenAPIModelName implements openapi's namer.
func (AllowedCSIDriver) OpenAPIModelName() string { return modelPackage + "AllowedCSIDriver" }

// OpenAPIModelName implements openapi's namer.
func (HostPortRange) OpenAPIModelName() string { return modelPackage + "HostPortRange" }

// OpenAPIModelName implements openapi's namer.
func (IDRange) OpenAPIModelName() string { return modelPackage + "IDRange" }

// OpenAPIModelName implements openapi's namer.
func (SELinuxStrategyOptions) OpenAPIModelName() string {
	return modelPackage + "SELinuxStrategyOptions"
}

// OpenAPIModelName implements openapi's namer.
func (RunAsUserStrategyOptions) OpenAPIModelName() string {
	return modelPackage + "RunAsUserStrategyOptions"
}

// OpenAPIModelName implements openapi's namer.
func (RunAsGroupStrategyOptions) OpenAPIModelName() string {
	return modelPackage + "RunAsGroupStrategyOptions"
}

// OpenAPIModelName implements openapi's namer.
func (FSGroupStrategyOptions) OpenAPIModelName() string {
	return modelPackage + "FSGroupStrategyOptions"
}

// OpenAPIModelName implements openapi's namer.
func (SupplementalGroupsStrategyOptions) OpenAPIModelName() string {
	return modelPackage + "SupplementalGroupsStrategyOptions"
}

// OpenAPIModelName implements openapi's namer.
func (RuntimeClassStrategyOptions) OpenAPIModelName() string {
	return modelPackage + "RuntimeClassStrategyOptions"
}
