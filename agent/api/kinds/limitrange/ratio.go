package limitrange

import (
	"fmt"

	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// validateRatio checks how much larger a limit may be than its request; bounded says that there are both a least and a
// most.
func validateRatio(ratio, least, most resource.Quantity, bounded bool, path *field.Path) (errs field.ErrorList) {
	if ratio.Cmp(*resource.NewQuantity(1, resource.DecimalSI)) < 0 {
		errs = append(errs, field.Invalid(path, ratio.String(), fmt.Sprintf("ratio %s is less than 1", ratio.String())))
	}
	if !bounded {
		return errs
	}
	from, to := least.Value(), most.Value()
	if from < resource.MaxMilliValue && to < resource.MaxMilliValue {
		from, to = least.MilliValue(), most.MilliValue()
	}
	if highest := float64(to) / float64(from); float64(ratio.Value()) > highest {
		errs = append(errs, field.Invalid(path, ratio.String(), fmt.Sprintf("ratio %s is greater than max/min = %f", ratio.String(), highest)))
	}
	return errs
}
