package agent

import (
	"context"
	"fmt"
	"os"
)

// Reset removes every trace of the agent from the machine. It refuses while an agent runs. progress hears of each step.
func Reset(ctx context.Context, config Config, progress func(step string)) error {
	dir, err := openDataDir(config.DataDir, config.NodeName)
	if err != nil {
		return err
	}
	defer dir.Close()
	for _, path := range []string{config.DataDir, config.ConfigDir} {
		progress("removing " + path)
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("remove %s: %w", path, err)
		}
	}
	return ctx.Err()
}
