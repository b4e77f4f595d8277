package kubestore

import (
	"errors"
	"fmt"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/storage"

	"github.com/podvine/podvine/consensus"
)

// Kubernetes' own words for a past that is gone.
const (
	listExpired         = "The resourceVersion for the provided list is too old."
	watchExpired        = "The resourceVersion for the provided watch is too old."
	continueExpired     = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter."
	inconsistentExpired = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list."
)

const retryAfterSeconds = 1

// ErrFenced says that a write made under [WithTerm] came too late: another term had begun. Nothing was written.
var ErrFenced = errors.New("the leader's term in which this was decided is over")

// statusError is an answer for the client that still tells errors.Is what happened.
type statusError struct {
	*apierrors.StatusError
	cause error
}

func (e *statusError) Unwrap() error { return e.cause }

// proposeError turns an error of the replica into the API's.
func proposeError(err error) error {
	switch {
	case errors.Is(err, consensus.ErrUnknownOutcome):
		return &statusError{apierrors.NewTimeoutError("the request was not answered in time and may or may not have been carried out", 0), err}
	case errors.Is(err, consensus.ErrNotLeader), errors.Is(err, consensus.ErrClosed), errors.Is(err, consensus.ErrBusy):
		return unavailable(err)
	default:
		return storage.NewInternalError(err)
	}
}

func unavailable(err error) error {
	s := &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusServiceUnavailable, Reason: metav1.StatusReasonServiceUnavailable,
		Message: fmt.Sprintf("the cluster's store is not available: %v", err),
		Details: &metav1.StatusDetails{RetryAfterSeconds: retryAfterSeconds},
	}}
	return &statusError{s, err}
}

// continueError answers a page whose revision is gone, with a token that goes on at the newest one.
func continueError(continueKey, keyPrefix string) error {
	token, err := storage.EncodeContinue(continueKey, keyPrefix, -1)
	if err != nil {
		return apierrors.NewResourceExpired(continueExpired)
	}
	expired := apierrors.NewResourceExpired(inconsistentExpired)
	expired.ErrStatus.ListMeta.Continue = token
	return expired
}

// CompanionError says which companion kept a write from happening.
type CompanionError struct {
	Resource schema.GroupResource
	Key      string
	// Reason is AlreadyExists, NotFound or Conflict.
	Reason metav1.StatusReason
}

func (e *CompanionError) Error() string {
	return fmt.Sprintf("companion %s %s: %s", e.Resource, e.Key, e.Reason)
}
