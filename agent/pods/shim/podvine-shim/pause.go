package main

import (
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// pause is the init of a shared PID namespace: it reaps orphans and ends on
// SIGTERM or SIGINT. It returns the process's exit code.
func pause() int {
	sigs := make(chan os.Signal, 16)
	signal.Notify(sigs, unix.SIGTERM, unix.SIGINT, unix.SIGCHLD)
	for s := range sigs {
		if s != unix.SIGCHLD {
			return 0
		}
		for {
			pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
			if pid <= 0 || err != nil {
				break
			}
		}
	}
	return 0
}
