package pods

import "context"

func (a *Agent) serveAPI(ctx context.Context) error { <-ctx.Done(); return nil }
func (a *Agent) keepNode(ctx context.Context)       {}
