package userspace

import (
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/device"
)

// repeatInterval is how often the same kind of error is told: the library repeats one for every packet.
const repeatInterval = time.Minute

// quietLogger passes on the library's errors, each kind once in a while, and nothing else.
func quietLogger(log *slog.Logger) *device.Logger {
	var mu sync.Mutex
	told := map[string]time.Time{}
	return &device.Logger{
		Verbosef: device.DiscardLogf,
		Errorf: func(format string, args ...any) {
			mu.Lock()
			defer mu.Unlock()
			if now := time.Now(); now.Sub(told[format]) > repeatInterval {
				told[format] = now
				log.Warn("WireGuard: "+fmt.Sprintf(format, args...), "repeated", "at most every minute")
			}
		},
	}
}
