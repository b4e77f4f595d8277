package preflight

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

const (
	// fsyncSamples and slowFsync decide whether a disk is too slow for a voter: etcd's guide asks for a p99 below 10 ms.
	fsyncSamples = 50
	slowFsync    = 10 * time.Millisecond
	// fsyncBytes is the size of an ordinary log entry.
	fsyncBytes = 4096
	// smallMTU is the least that leaves 1,280 bytes, IPv6's minimum, inside a tunnel.
	smallMTU = 1400
)

func tcpPort(port uint16) Finding {
	name := fmt.Sprintf("port %d/tcp", port)
	listener, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
	if err != nil {
		return portFinding(name, err)
	}
	return portFinding(name, listener.Close())
}

func udpPort(port uint16) Finding {
	name := fmt.Sprintf("port %d/udp", port)
	socket, err := net.ListenPacket("udp", fmt.Sprintf(":%d", port))
	if err != nil {
		return portFinding(name, err)
	}
	return portFinding(name, socket.Close())
}

func portFinding(name string, err error) Finding {
	switch {
	case err == nil:
		return Finding{name, OK, "free", ""}
	case errors.Is(err, syscall.EADDRINUSE):
		return Finding{name, Fatal, "in use by another program", "stop that program (`ss -lptun` shows it) or choose another port"}
	default:
		return Finding{name, Fatal, err.Error(), "choose another port"}
	}
}

// clock refuses a time before this program could have been written: certificates would not be valid yet.
func clock() Finding {
	if now := time.Now(); now.Year() < 2026 {
		return Finding{"clock", Fatal, "it is " + now.UTC().Format(time.RFC3339), "set it, with NTP if possible"}
	}
	return Finding{"clock", OK, "plausible", ""}
}

// fsync measures how long the disk below the data folder takes to make a log entry durable.
func fsync(dir string) Finding {
	const name, advice = "disk", "use a disk with a faster flush for voters"
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) || dir == "/" {
			break
		}
	}
	p99, err := fsyncP99(dir)
	switch {
	case err != nil:
		return Finding{name, Warning, err.Error(), "make " + dir + " writable"}
	case p99 > slowFsync:
		return Finding{name, Warning, fmt.Sprintf("an fsync takes %v (p99)", p99), advice}
	}
	return Finding{name, OK, fmt.Sprintf("an fsync takes %v (p99)", p99), ""}
}

func fsyncP99(dir string) (p99 time.Duration, err error) {
	file, err := os.CreateTemp(dir, ".podvine-check-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, file.Close(), os.Remove(file.Name())) }()
	took := make([]time.Duration, fsyncSamples)
	entry := make([]byte, fsyncBytes)
	for i := range took {
		begun := time.Now()
		if _, err := file.Write(entry); err != nil {
			return 0, err
		}
		if err := file.Sync(); err != nil {
			return 0, err
		}
		took[i] = time.Since(begun)
	}
	slices.Sort(took)
	return took[fsyncSamples*99/100], nil
}

func mtu() Finding {
	interfaces, err := net.Interfaces()
	if err != nil {
		return Finding{"MTU", Warning, err.Error(), "look at `ip link`"}
	}
	for _, i := range interfaces {
		if i.Flags&net.FlagUp != 0 && i.Flags&net.FlagLoopback == 0 && i.MTU > 0 && i.MTU < smallMTU {
			return Finding{"MTU", Warning, fmt.Sprintf("%s carries %d bytes", i.Name, i.MTU), fmt.Sprintf("raise it to %d or more, or pods behind a tunnel get less than IPv6 needs", smallMTU)}
		}
	}
	return Finding{"MTU", OK, fmt.Sprintf("%d bytes or more on every link", smallMTU), ""}
}
