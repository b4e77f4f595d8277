package admission

import (
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// isBadName says that a client refused to look a name up because no object can have it: for a look-up, that is not found.
func isBadName(err error) bool {
	return err != nil && (apierrors.IsBadRequest(err) || strings.HasPrefix(err.Error(), "invalid resource name"))
}
