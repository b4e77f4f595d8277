// Package lab runs a mesh of test hosts on one Linux machine. A test host is a network, mount, UTS, IPC, PID and cgroup
// namespace of its own in which the ordinary agent runs, with a loop-mounted ext4 image as its disk. The hosts are
// connected by a switch in a network namespace of the lab; each host's API is published on 127.0.0.1. The machine's own
// network, mounts and cgroups are left alone.
//
// What a lab is stands in its folder (lab.json, a disk image and a log a host), so every command starts from the files
// and the kernel, not from a daemon; a lock on the folder keeps two commands apart. Four kinds of process belong to a
// running lab: the first process of each host ([Init]), the agents below them, one publisher of ports ([Publish]), and
// one for each disk that is slow ([Slow]).
//
// Faults act from outside of the hosts: cuts are rules of the switch, a disk is filled, frozen or slowed by its file
// system, and an agent's questions for the time of day are answered by a process that is off ([ServeClock]).
package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
)

const (
	// Root holds a folder a lab.
	Root = "/var/lib/podvine/labs"
	// DefaultName is the lab that commands mean when none is named.
	DefaultName = "lab"
	// MaxHosts bounds a lab; its network has 254 addresses, of which the switch takes the last.
	MaxHosts = 100

	// apiPort is where the agents serve the API, in every host.
	apiPort = 6443
	// diskBytes is the size of a host's disk; the image is sparse.
	diskBytes = 8 << 30
)

// Lab is what lab.json holds.
type Lab struct {
	Name  string  `json:"name"`
	Hosts []*Host `json:"hosts"`
	// Publisher is the publisher of ports; the zero value when none runs.
	Publisher process `json:"publisher,omitzero"`
	// Cuts is what the switch does not carry.
	Cuts []Cut `json:"cuts,omitempty"`

	dir  string
	lock *os.File
}

// Host is one test host.
type Host struct {
	Name    string     `json:"name"`
	Address netip.Addr `json:"address"`
	// Init is the host's first process, as the machine sees it; the zero value when the host is down.
	Init process `json:"init,omitzero"`
	// Slower is what slows the host's disk; the zero value when nothing does.
	Slower process `json:"slower,omitzero"`
	// Published maps a port of the host to the port on 127.0.0.1 that leads there.
	Published map[uint16]uint16 `json:"published"`
}

// ErrNotFound says that there is no lab of that name.
var ErrNotFound = errors.New("no such lab")

var validName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,14}[a-z0-9])?$`)

// Open returns the lab of that name and locks it against other commands until Close.
func Open(name string) (*Lab, error) {
	l, err := lockFolder(name, false)
	if err != nil {
		return nil, err
	}
	content, err := os.ReadFile(l.path("lab.json"))
	if err == nil {
		err = json.Unmarshal(content, l)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read lab %s: %w", name, err), l.Close())
	}
	return l, nil
}

// create returns a locked lab that is new or was there before.
func create(name string) (*Lab, error) {
	if !validName.MatchString(name) {
		return nil, fmt.Errorf("name lab %q: want at most 16 lower-case letters, digits and inner hyphens", name)
	}
	l, err := Open(name)
	if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, ErrNotFound) {
		return l, err
	}
	if l, err = lockFolder(name, true); err != nil {
		return nil, err
	}
	return l, l.save()
}

func lockFolder(name string, make bool) (*Lab, error) {
	l := &Lab{Name: name, dir: filepath.Join(Root, name)}
	if make {
		if err := os.MkdirAll(l.dir, 0o700); err != nil {
			return nil, fmt.Errorf("make the lab's folder: %w", err)
		}
	}
	lock, err := os.Open(l.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s (start it with `podvine lab up`)", ErrNotFound, name)
	}
	if err != nil {
		return nil, fmt.Errorf("open lab %s: %w", name, err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock lab %s: %w", name, err), lock.Close())
	}
	l.lock = lock
	return l, nil
}

// Close lets other commands at the lab again. The lab itself goes on.
func (l *Lab) Close() error { return l.lock.Close() }

// Names lists the labs of this machine.
func Names() ([]string, error) {
	entries, err := os.ReadDir(Root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list labs: %w", err)
	}
	var names []string
	for _, entry := range entries {
		if _, err := os.Stat(filepath.Join(Root, entry.Name(), "lab.json")); err == nil {
			names = append(names, entry.Name())
		}
	}
	return names, nil
}

// Host returns the host of that name; "" means the first that is up.
func (l *Lab) Host(name string) (*Host, error) {
	for _, host := range l.Hosts {
		if host.Name == name || name == "" && host.Up() {
			return host, nil
		}
	}
	if name == "" {
		return nil, fmt.Errorf("no host of lab %s is up: start one with `podvine lab start --name %s HOST`", l.Name, l.Name)
	}
	return nil, fmt.Errorf("lab %s has no host %q: it has %s", l.Name, name, l.hostNames())
}

func hostName(i int) string { return "h" + strconv.Itoa(i) }

func (l *Lab) hostNames() []string {
	names := make([]string, len(l.Hosts))
	for i, host := range l.Hosts {
		names[i] = host.Name
	}
	return names
}

// Up tells whether the host's first process runs.
func (h *Host) Up() bool { return h.Init.alive() }

// path is a file in the lab's folder.
func (l *Lab) path(elements ...string) string {
	return filepath.Join(append([]string{l.dir}, elements...)...)
}

func (l *Lab) save() error {
	content, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return fmt.Errorf("encode lab %s: %w", l.Name, err)
	}
	temporary := l.path("lab.json.new")
	if err := os.WriteFile(temporary, content, 0o600); err != nil {
		return fmt.Errorf("save lab %s: %w", l.Name, err)
	}
	if err := os.Rename(temporary, l.path("lab.json")); err != nil {
		return fmt.Errorf("save lab %s: %w", l.Name, err)
	}
	return nil
}
