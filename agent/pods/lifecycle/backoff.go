package lifecycle

import "time"

// The delays between restarts of a container and between tries of a pull.
const (
	FirstRestartDelay = 10 * time.Second
	MaxRestartDelay   = 5 * time.Minute
	// RestartDelayReset is how long a container must have run, or a pull been
	// left alone, for its delay to begin anew.
	RestartDelayReset = 10 * time.Minute
	// ResizeRetryDelay separates tries to resize a container.
	ResizeRetryDelay = 10 * time.Second
	// PrepareRetryDelay separates tries to make a sandbox.
	PrepareRetryDelay = 2 * time.Second
)

// NextRestartDelay is the delay after the restart that is about to happen,
// given the delay that applied to it and how long the container had run. The
// first restart is immediate.
func NextRestartDelay(current, ran time.Duration) time.Duration {
	if ran >= RestartDelayReset || current <= 0 {
		return FirstRestartDelay
	}
	return min(current*2, MaxRestartDelay)
}

// NextRetryDelay is the delay after one more failed try.
func NextRetryDelay(current time.Duration) time.Duration {
	if current <= 0 {
		return FirstRestartDelay
	}
	return min(current*2, MaxRestartDelay)
}

// RestartAt is when an ended container may start again.
func (c Container) RestartAt() time.Time {
	if c.Replace || c.FinishedAt.Sub(c.StartedAt) >= RestartDelayReset {
		return c.FinishedAt
	}
	return c.FinishedAt.Add(c.Delay)
}
