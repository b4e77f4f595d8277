package devices

import (
	"strings"

	resourcev1 "k8s.io/api/resource/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/podvine/podvine/agent/api/kinds/podspec"
)

const (
	// allocationConfigMax bounds the configurations of an allocation: those of the class and those of the claim.
	allocationConfigMax = 2 * resourcev1.DeviceConfigMaxSize
	unlimited           = 1 << 20
)

// validateClaimStatus reports the errors of a change of status.
func validateClaimStatus(c, old *resourcev1.ResourceClaim, at *field.Path) field.ErrorList {
	s, was := &c.Status, &old.Status
	var errs field.ErrorList
	errs = append(errs, validateConsumers(c, old, at.Child("reservedFor"))...)
	switch {
	case s.Allocation != nil && was.Allocation != nil:
		errs = append(errs, immutable(s.Allocation, was.Allocation, at.Child("allocation"))...)
	case s.Allocation != nil:
		errs = append(errs, validateAllocation(s.Allocation, requestNames(&c.Spec.Devices), at.Child("allocation"))...)
	}
	allocated := map[string]bool{}
	if s.Allocation != nil {
		for _, r := range s.Allocation.Devices.Results {
			share := ""
			if r.ShareID != nil {
				share = string(*r.ShareID)
			}
			allocated[deviceKey(r.Driver, r.Pool, r.Device, share)] = true
		}
	}
	own := at.Child("devices")
	errs = append(errs, unique(s.Devices, unlimited, own, "", statusKey)...)
	for i := range s.Devices {
		errs = append(errs, validateDeviceStatus(&s.Devices[i], allocated, own.Index(i))...)
	}
	return errs
}

func deviceKey(parts ...string) string { return strings.Join(parts, "\x00") }

func statusKey(d resourcev1.AllocatedDeviceStatus) string {
	share := ""
	if d.ShareID != nil {
		share = *d.ShareID
	}
	return deviceKey(d.Driver, d.Pool, d.Device, share)
}

func validateConsumers(c, old *resourcev1.ResourceClaim, at *field.Path) field.ErrorList {
	list := c.Status.ReservedFor
	errs := unique(list, resourcev1.ResourceClaimReservedForMaxSize, at, "uid", func(r resourcev1.ResourceClaimConsumerReference) string { return string(r.UID) })
	known := map[string]bool{}
	for _, r := range old.Status.ReservedFor {
		known[string(r.UID)] = true
	}
	added := false
	for i, r := range bounded(list, resourcev1.ResourceClaimReservedForMaxSize) {
		for name, value := range map[string]string{"resource": r.Resource, "name": r.Name, "uid": string(r.UID)} {
			if value == "" {
				errs = append(errs, field.Required(at.Index(i).Child(name), ""))
			}
		}
		added = added || !known[string(r.UID)]
	}
	switch {
	case len(list) > 0 && c.Status.Allocation == nil:
		errs = append(errs, field.Forbidden(at, "may not be specified when `allocated` is not set"))
	case added && c.DeletionTimestamp != nil:
		errs = append(errs, field.Forbidden(at, "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set"))
	}
	return errs
}

func validateAllocation(a *resourcev1.AllocationResult, names []string, at *field.Path) field.ErrorList {
	results := at.Child("devices", "results")
	errs := atMost(a.Devices.Results, resourcev1.AllocationResultsMaxSize, results)
	for i := range bounded(a.Devices.Results, resourcev1.AllocationResultsMaxSize) {
		errs = append(errs, validateResult(&a.Devices.Results[i], names, results.Index(i))...)
	}
	configs := at.Child("devices", "config")
	errs = append(errs, atMost(a.Devices.Config, allocationConfigMax, configs)...)
	for i, config := range bounded(a.Devices.Config, allocationConfigMax) {
		own := configs.Index(i)
		sources := []resourcev1.AllocationConfigSource{resourcev1.AllocationConfigSourceClaim, resourcev1.AllocationConfigSourceClass}
		switch config.Source {
		case "":
			errs = append(errs, field.Required(own.Child("source"), ""))
		case sources[0], sources[1]:
		default:
			errs = append(errs, field.NotSupported(own.Child("source"), config.Source, sources))
		}
		errs = append(errs, validateReferences(config.Requests, names, own.Child("requests"))...)
		errs = append(errs, validateOpaque(config.Opaque, own.Child("opaque"))...)
	}
	if a.NodeSelector != nil {
		errs = append(errs, podspec.ValidateNodeSelector(a.NodeSelector, false, at.Child("nodeSelector"))...)
	}
	return errs
}

func validateResult(r *resourcev1.DeviceRequestAllocationResult, names []string, at *field.Path) field.ErrorList {
	errs := validateReference(r.Request, names, at.Child("request"))
	errs = append(errs, validateDriver(r.Driver, at.Child("driver"))...)
	errs = append(errs, validatePool(r.Pool, at.Child("pool"))...)
	errs = append(errs, validateLabel(r.Device, at.Child("device"))...)
	errs = append(errs, validateTolerations(r.Tolerations, at.Child("tolerations"))...)
	errs = append(errs, validateBindings(r.BindingConditions, r.BindingFailureConditions, at)...)
	if r.ShareID != nil {
		errs = append(errs, validateShare(string(*r.ShareID), at.Child("shareID"))...)
	}
	for name := range r.ConsumedCapacity {
		errs = append(errs, validateQualified(string(name), at.Child("consumedCapacity").Key(string(name)))...)
	}
	return errs
}

func validateDeviceStatus(d *resourcev1.AllocatedDeviceStatus, allocated map[string]bool, at *field.Path) field.ErrorList {
	errs := validateDriver(d.Driver, at.Child("driver"))
	errs = append(errs, validatePool(d.Pool, at.Child("pool"))...)
	errs = append(errs, validateLabel(d.Device, at.Child("device"))...)
	if d.ShareID != nil {
		errs = append(errs, validateShare(*d.ShareID, at.Child("shareID"))...)
	}
	if !allocated[statusKey(*d)] {
		errs = append(errs, field.Invalid(at, podspec.InternalView(struct{ Driver, Pool, Device, ShareID string }{d.Driver, d.Pool, d.Device, ""}), "must be an allocated device in the claim"))
	}
	if len(d.Conditions) > resourcev1.AllocatedDeviceStatusMaxConditions {
		errs = append(errs, field.TooMany(at.Child("conditions"), len(d.Conditions), resourcev1.AllocatedDeviceStatusMaxConditions))
	}
	errs = append(errs, metav1validation.ValidateConditions(d.Conditions, at.Child("conditions"))...)
	if d.Data != nil && len(d.Data.Raw) > 0 {
		errs = append(errs, validateParameters(*d.Data, at.Child("data"))...)
	}
	if n := d.NetworkData; n != nil {
		errs = append(errs, validateNetwork(n, at.Child("networkData"))...)
	}
	return errs
}

func validateNetwork(n *resourcev1.NetworkDeviceData, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(n.InterfaceName) > resourcev1.NetworkDeviceDataInterfaceNameMaxLength {
		errs = append(errs, field.TooLong(at.Child("interfaceName"), "", resourcev1.NetworkDeviceDataInterfaceNameMaxLength))
	}
	if len(n.HardwareAddress) > resourcev1.NetworkDeviceDataHardwareAddressMaxLength {
		errs = append(errs, field.TooLong(at.Child("hardwareAddress"), "", resourcev1.NetworkDeviceDataHardwareAddressMaxLength))
	}
	errs = append(errs, unique(n.IPs, resourcev1.NetworkDeviceDataMaxIPs, at.Child("ips"), "", func(ip string) string { return ip })...)
	for i, ip := range bounded(n.IPs, resourcev1.NetworkDeviceDataMaxIPs) {
		errs = append(errs, validation.IsValidInterfaceAddress(at.Child("ips").Index(i), ip)...)
	}
	return errs
}
