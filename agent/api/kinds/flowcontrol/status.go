package flowcontrol

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// withVersion is old metadata with the resource version of an update, which is its precondition.
func withVersion(old, update metav1.ObjectMeta) metav1.ObjectMeta {
	old.ResourceVersion = update.ResourceVersion
	return old
}

// validateConditions reports conditions without a type and with one that came before.
func validateConditions(types []string, path *field.Path) (errs field.ErrorList) {
	seen := sets.New[string]()
	for i, t := range types {
		p := path.Index(i).Child("type")
		switch {
		case t == "":
			errs = append(errs, field.Required(p, ""))
		case seen.Has(t):
			errs = append(errs, field.Duplicate(p, t))
		}
		seen.Insert(t)
	}
	return errs
}
