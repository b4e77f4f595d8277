package objects

import (
	"context"
	"errors"
	"fmt"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// TestSilence: only when nobody answers is what was kept used for a while; an answer, however unwelcome, is one.
func TestSilence(t *testing.T) {
	pods := schema.GroupResource{Resource: "pods"}
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{errors.New("connection refused"), true},
		{fmt.Errorf("get: %w", context.DeadlineExceeded), true},
		{apierrors.NewServiceUnavailable("no quorum"), true},
		{apierrors.NewTimeoutError("late", 1), true},
		{fmt.Errorf("get: %w", apierrors.NewTooManyRequests("slow down", 1)), false},
		{apierrors.NewInternalError(errors.New("x")), false},
		{apierrors.NewConflict(pods, "p", errors.New("x")), false},
	} {
		if got := silent(tt.err); got != tt.want {
			t.Errorf("%v: %t", tt.err, got)
		}
	}
}
