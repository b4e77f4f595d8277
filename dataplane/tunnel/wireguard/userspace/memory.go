package userspace

import (
	"runtime/debug"
	"runtime/metrics"
	"time"

	"golang.zx2c4.com/wireguard/device"
)

const (
	memoryInterval = time.Second
	// quietPackets a second are no traffic to keep buffers for; after quietIntervals of it they are given back.
	quietPackets   = 100
	quietIntervals = 5
	// pressureBytes of live objects mean that packets wait for peers that do not answer. They are dropped: whoever sent
	// them sends again, or has given up.
	pressureBytes = 128 << 20
	heapMetric    = "/memory/classes/heap/objects:bytes"
)

// watchMemory gives back what traffic took, once it is over, and bounds what waits for peers without a session.
func (d *Device) watchMemory() {
	tick := time.NewTicker(memoryInterval)
	defer tick.Stop()
	var last uint64
	quiet, used := 0, false
	for {
		select {
		case <-d.stop:
			return
		case <-tick.C:
		}
		now := d.gates.moved.Load()
		busy := now-last > quietPackets
		last = now
		if busy {
			quiet, used = 0, true
			if heapBytes() > pressureBytes {
				d.dropWaiting()
			}
			continue
		}
		quiet++
		if used && quiet >= quietIntervals {
			// Twice: pools keep what they hold over one collection.
			debug.FreeOSMemory()
			debug.FreeOSMemory()
			used = false
		}
	}
}

func heapBytes() uint64 {
	sample := []metrics.Sample{{Name: heapMetric}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

func (d *Device) dropWaiting() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return
	}
	for _, p := range d.config.Peers {
		if peer := d.device.LookupPeer(device.NoisePublicKey(p.PublicKey)); peer != nil {
			peer.FlushStagedPackets()
		}
	}
}
