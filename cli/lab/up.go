package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/podvine/podvine/agent/cgroup"
	"github.com/podvine/podvine/agent/join"
)

// joinTokenTTL is how long a lab's hosts may take to join.
const joinTokenTTL = 10 * time.Minute

// UpOptions is what a lab is started with.
type UpOptions struct {
	Name string
	// Hosts is how many hosts the lab has; a lab that is up may grow.
	Hosts int
	// Publish are ports of each host, beside its API's, that are published on 127.0.0.1.
	Publish []uint16
	// Progress gets a line a step; nil is silent.
	Progress func(format string, args ...any)
}

// Up starts a lab, or what is missing of one that is up, and returns when its nodes are Ready. The lab is locked until
// Close.
func Up(ctx context.Context, options UpOptions) (*Lab, error) {
	if options.Hosts < 1 || options.Hosts > MaxHosts {
		return nil, fmt.Errorf("start lab: %d hosts were asked for, a lab has 1 to %d", options.Hosts, MaxHosts)
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("start lab: it makes namespaces and mounts: run it as root")
	}
	l, err := create(options.Name)
	if err != nil {
		return nil, err
	}
	if err := l.up(ctx, options); err != nil {
		return nil, errors.Join(fmt.Errorf("start lab %s: %w", options.Name, err), l.Close())
	}
	return l, nil
}

func (l *Lab) up(ctx context.Context, options UpOptions) error {
	progress := options.Progress
	if progress == nil {
		progress = func(string, ...any) {}
	}
	if err := l.makeSwitch(); err != nil {
		return err
	}
	for i := len(l.Hosts); i < options.Hosts; i++ {
		l.Hosts = append(l.Hosts, &Host{Name: hostName(i + 1), Address: hostAddress(i + 1)})
	}
	ports := append([]uint16{apiPort}, options.Publish...)
	grown := !l.Publisher.alive()
	for _, host := range l.Hosts {
		before := len(host.Published)
		if err := l.publish(host, ports); err != nil {
			return err
		}
		grown = grown || len(host.Published) != before
	}
	if grown {
		if err := l.restartPublisher(); err != nil {
			return err
		}
	}
	return l.startAll(ctx, progress)
}

// startAll starts the hosts that are down, the first alone: it founds the cluster that the others join.
func (l *Lab) startAll(ctx context.Context, progress func(format string, args ...any)) error {
	var token string
	for i, host := range l.Hosts {
		if host.Up() {
			continue
		}
		if i > 0 && token == "" {
			if err := l.waitReady(ctx, l.Hosts[0]); err != nil {
				return err
			}
			var err error
			if token, err = l.joinToken(ctx); err != nil {
				return err
			}
		}
		progress("starting %s (%s)", host.Name, host.Address)
		if err := l.start(host, token); err != nil {
			return err
		}
	}
	for _, host := range l.Hosts {
		if err := l.waitReady(ctx, host); err != nil {
			return err
		}
		progress("%s is Ready", host.Name)
	}
	return nil
}

// joinToken makes the token with which hosts join.
func (l *Lab) joinToken(ctx context.Context) (string, error) {
	host, err := l.Host("")
	if err != nil {
		return "", err
	}
	client, config, err := l.Client(host)
	if err != nil {
		return "", err
	}
	token, err := join.CreateToken(ctx, client, config.CAData, time.Now().Add(joinTokenTTL), "lab "+l.Name)
	return token.String(), err
}

// Down ends the lab of that name and removes everything that it made. A lab that is not there is no error.
func Down(ctx context.Context, name string) error {
	l, err := Open(name)
	if errors.Is(err, ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer l.Close()
	errs := []error{l.stopPublisher()}
	for _, host := range l.Hosts {
		errs = append(errs, l.kill(ctx, host))
	}
	ctx, cancel := context.WithTimeout(ctx, endTimeout)
	defer cancel()
	errs = append(errs, cgroup.Remove(ctx, cgroupPath(l.Name, "")), cgroup.RemoveIfEmpty(cgroupRoot), l.removeSwitch())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("take lab %s down: %w", name, err)
	}
	if err := os.RemoveAll(l.dir); err != nil {
		return fmt.Errorf("remove the folder of lab %s: %w", name, err)
	}
	return errors.Join(removeIfEmpty(Root), removeIfEmpty(filepath.Dir(Root)))
}

// removeIfEmpty removes a folder unless something is in it.
func removeIfEmpty(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, syscall.ENOTEMPTY) && !errors.Is(err, syscall.EEXIST) && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	return nil
}

// Each calls do for every named host, all of them if none is named.
func (l *Lab) Each(names []string, do func(*Host) error) error {
	if len(names) == 0 {
		names = l.hostNames()
	}
	for _, name := range names {
		host, err := l.Host(name)
		if err != nil {
			return err
		}
		if err := do(host); err != nil {
			return err
		}
	}
	return nil
}

// Kill ends the host as a power cut would; with agentOnly it is the agent alone, which then stays down.
func (l *Lab) Kill(ctx context.Context, host *Host, agentOnly bool) error {
	if !agentOnly {
		return l.kill(ctx, host)
	}
	return l.signal(host, signalKillAgent)
}

// Start brings a killed host up again, with what is on its disk; with agentOnly it is the agent alone.
func (l *Lab) Start(host *Host, agentOnly bool) error {
	if !agentOnly {
		return l.start(host, "")
	}
	return l.signal(host, signalStartAgent)
}

// Pause stops every process of the host where it stands; with agentOnly the agent alone.
func (l *Lab) Pause(host *Host, agentOnly bool) error {
	if !agentOnly {
		return cgroup.Freeze(cgroupPath(l.Name, host.Name), true)
	}
	return l.signalAgent(host, syscall.SIGSTOP)
}

// Resume lets what Pause stopped go on.
func (l *Lab) Resume(host *Host, agentOnly bool) error {
	if !agentOnly {
		return cgroup.Freeze(cgroupPath(l.Name, host.Name), false)
	}
	return l.signalAgent(host, syscall.SIGCONT)
}

func (l *Lab) signal(host *Host, signal syscall.Signal) error {
	if !host.Up() {
		return fmt.Errorf("signal %s: the host is down", host.Name)
	}
	if err := host.Init.signal(signal); err != nil {
		return fmt.Errorf("signal %s: %w", host.Name, err)
	}
	return nil
}

// signalAgent sends a signal to the host's agent: the child of its first process that runs podvine.
func (l *Lab) signalAgent(host *Host, signal syscall.Signal) error {
	// The kernel lists children by the thread that started them.
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", host.Init.PID))
	if err != nil {
		return fmt.Errorf("find the agent of %s: %w", host.Name, err)
	}
	var children []string
	for _, list := range lists {
		content, err := os.ReadFile(list)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("find the agent of %s: %w", host.Name, err)
		}
		children = append(children, strings.Fields(string(content))...)
	}
	for _, child := range children {
		arguments, err := os.ReadFile("/proc/" + child + "/cmdline")
		if err != nil || !strings.HasPrefix(string(arguments), binaryPath+"\x00agent") {
			continue
		}
		pid, err := strconv.Atoi(child)
		if err != nil {
			return fmt.Errorf("find the agent of %s: %w", host.Name, err)
		}
		if err := syscall.Kill(pid, signal); err != nil {
			return fmt.Errorf("signal the agent of %s: %w", host.Name, err)
		}
		return nil
	}
	return fmt.Errorf("find the agent of %s: none runs", host.Name)
}

// Read returns the lab as it stands, without its lock: for looking only.
func Read(name string) (*Lab, error) {
	l := &Lab{Name: name}
	l.dir = filepath.Join(Root, name)
	content, err := os.ReadFile(l.path("lab.json"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s (start it with `podvine lab up`)", ErrNotFound, name)
	}
	if err == nil {
		err = json.Unmarshal(content, l)
	}
	if err != nil {
		return nil, fmt.Errorf("read lab %s: %w", name, err)
	}
	return l, nil
}

// Exec becomes the command, run inside the host: in all of its namespaces and cgroups. It returns only on error.
func (l *Lab) Exec(host *Host, command []string) error {
	if !host.Up() {
		return fmt.Errorf("run in %s: the host is down (start it with `podvine lab start --name %s %s`)", host.Name, l.Name, host.Name)
	}
	enter, err := exec.LookPath("nsenter")
	if err != nil {
		return fmt.Errorf("run in %s: %w (install util-linux)", host.Name, err)
	}
	if err := cgroup.Join(cgroupPath(l.Name, host.Name)); err != nil {
		return err
	}
	arguments := []string{"nsenter", "--target", strconv.Itoa(host.Init.PID), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--"}
	environment := slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, "KUBECONFIG=") })
	if err := syscall.Exec(enter, append(arguments, command...), environment); err != nil {
		return fmt.Errorf("run in %s: %w", host.Name, err)
	}
	return nil
}
