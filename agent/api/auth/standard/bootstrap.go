package standard

import (
	"context"
	"errors"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"

	"github.com/podvine/podvine/agent/api"
	"github.com/podvine/podvine/agent/api/auth/bootstrap"
)

// bootstrapRetry is the pause between tries: right after the start there may be no quorum yet.
const bootstrapRetry = 200 * time.Millisecond

// Bootstrap makes the default roles and bindings, and what is missing of them, before the server is ready.
func Bootstrap() api.BootstrapHook {
	return api.BootstrapHook{Name: "rbac/bootstrap-roles", Run: func(hook api.HookContext) error {
		client, err := kubernetes.NewForConfig(hook.LoopbackClientConfig)
		if err != nil {
			return err
		}
		return untilDone(hook, func(ctx context.Context) error { return bootstrap.Reconcile(ctx, client) })
	}}
}

// untilDone tries until it succeeds or the context ends.
func untilDone(ctx context.Context, try func(context.Context) error) error {
	var last error
	err := wait.PollUntilContextCancel(ctx, bootstrapRetry, true, func(ctx context.Context) (bool, error) {
		last = try(ctx)
		return last == nil, nil
	})
	return errors.Join(err, last)
}
