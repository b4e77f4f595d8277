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

// rolesRetry is the pause between tries: right after the start there may be no quorum yet.
const rolesRetry = 200 * time.Millisecond

// Bootstrap makes the default roles and bindings, and what is missing of them, before the server is ready.
func Bootstrap() api.BootstrapHook {
	return api.BootstrapHook{Name: "rbac/bootstrap-roles", Run: func(hook api.HookContext) error {
		client, err := kubernetes.NewForConfig(hook.LoopbackClientConfig)
		if err != nil {
			return err
		}
		var last error
		err = wait.PollUntilContextCancel(hook, rolesRetry, true, func(ctx context.Context) (bool, error) {
			last = bootstrap.Reconcile(ctx, client)
			return last == nil, nil
		})
		return errors.Join(err, last)
	}}
}
