package admission

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// checkMin says how a request or limit is below the least.
func checkMin(of corev1.LimitType, name corev1.ResourceName, least resource.Quantity, requests, limits corev1.ResourceList) error {
	request, asked := requests[name]
	limit, limited := limits[name]
	head := fmt.Sprintf("minimum %s usage per %s is %s", name, of, least.String())
	switch {
	case !asked:
		return fmt.Errorf("%s.  No request is specified", head)
	case request.Cmp(least) < 0:
		return fmt.Errorf("%s, but request is %s", head, request.String())
	case limited && limit.Cmp(least) < 0:
		return fmt.Errorf("%s, but limit is %s", head, limit.String())
	}
	return nil
}

// checkMax says how a request or limit is above the most.
func checkMax(of corev1.LimitType, name corev1.ResourceName, most resource.Quantity, requests, limits corev1.ResourceList) error {
	request, asked := requests[name]
	limit, limited := limits[name]
	head := fmt.Sprintf("maximum %s usage per %s is %s", name, of, most.String())
	switch {
	case !limited:
		return fmt.Errorf("%s.  No limit is specified", head)
	case limit.Cmp(most) > 0:
		return fmt.Errorf("%s, but limit is %s", head, limit.String())
	case asked && request.Cmp(most) > 0:
		return fmt.Errorf("%s, but request is %s", head, request.String())
	}
	return nil
}

// checkRatio says how a limit is too many times its request.
func checkRatio(of corev1.LimitType, name corev1.ResourceName, most resource.Quantity, requests, limits corev1.ResourceList) error {
	request, limit := requests[name], limits[name]
	head := fmt.Sprintf("%s max limit to request ratio per %s is %s", name, of, most.String())
	switch {
	case request.IsZero():
		return fmt.Errorf("%s, but no request is specified or request is 0", head)
	case limit.IsZero():
		return fmt.Errorf("%s, but no limit is specified or limit is 0", head)
	}
	ratio := limit.AsApproximateFloat64() / request.AsApproximateFloat64()
	if ratio > most.AsApproximateFloat64() {
		return fmt.Errorf("%s, but provided ratio is %f", head, ratio)
	}
	return nil
}
