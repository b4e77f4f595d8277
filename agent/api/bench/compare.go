package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	startTimeout = 60 * time.Second
	stopTimeout  = 30 * time.Second
)

// subject is one side of the comparison: the processes that its server consists of.
type subject struct {
	name     string
	children []string
}

// process is a running child.
type process struct {
	command *exec.Cmd
	name    string
}

// compare alternates the two sides and prints every figure with their ratio.
func compare(ctx context.Context, s settings) error {
	if s.dir == "" {
		dir, err := os.MkdirTemp("", "podvine-bench-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		s.dir = dir
	}
	dir, err := filepath.Abs(s.dir)
	if err != nil {
		return err
	}
	s.dir = dir
	printSettings(s)
	known := []subject{{"podvine", children("podvine", s.voters)}, {"etcd", children("etcd", s.voters)}}
	subjects := slices.DeleteFunc(known, func(k subject) bool { return !slices.Contains(s.sides, k.name) })
	if len(subjects) == 0 {
		return fmt.Errorf("measure %v: unknown", s.sides)
	}
	all := map[string][]result{}
	for round := range s.rounds {
		for i := range subjects {
			side := subjects[(round+i)%len(subjects)] // who comes first changes with each round
			results, err := measureOnce(ctx, s, side, round)
			if err != nil {
				return fmt.Errorf("measure %s in round %d: %w", side.name, round, err)
			}
			all[side.name] = append(all[side.name], results...)
			fmt.Fprintf(os.Stderr, "round %d of %d: %s measured\n", round+1, s.rounds, side.name)
		}
	}
	if s.memory {
		return nil // printed already
	}
	return report(s, all)
}

func printSettings(s settings) {
	fmt.Printf("%d clients, %s, a connection each, HTTP/2 over TLS, requests unlimited; %d bytes, %v an operation, %d rounds, fsync +%v, %d voters\n",
		s.clients, contentType, s.bytes, s.duration, s.rounds, s.fsyncDelay, s.voters)
	fmt.Printf("both sides: the same kinds, filters and clients, GOGC=%s (unset: paced by the load), %d CPUs, %s\n",
		os.Getenv("GOGC"), runtime.NumCPU(), runtime.Version())
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, module := range info.Deps {
			if slices.Contains([]string{"k8s.io/apiserver", "go.etcd.io/etcd/server/v3", "github.com/hashicorp/raft", "github.com/hashicorp/raft-wal"}, module.Path) {
				fmt.Printf("%s %s\n", module.Path, module.Version)
			}
		}
	}
}

// measureOnce starts a side on empty data, measures every operation, and ends it.
func measureOnce(ctx context.Context, s settings, side subject, round int) (results []result, err error) {
	dir := filepath.Join(s.dir, fmt.Sprintf("%s-%d", side.name, round))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if s.fsyncDelay > 0 {
		unmount, err := mountSlow(dir, s.fsyncDelay)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, unmount()) }()
	}
	var processes []process
	defer func() {
		for _, p := range slices.Backward(processes) {
			err = errors.Join(err, p.stop())
		}
	}()
	for _, child := range side.children {
		p, err := start(ctx, child, dir, s.voters)
		if err != nil {
			return nil, err
		}
		processes = append(processes, p)
	}
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(dir, "kubeconfig"))
	if err != nil {
		return nil, err
	}
	return measureAll(ctx, s, rest.CopyConfig(config), side.name, processes)
}

func start(ctx context.Context, name, dir string, voters int) (process, error) {
	command := exec.Command("/proc/self/exe", "-serve", name, "-serve-dir", dir, "-voters", strconv.Itoa(voters))
	command.Stderr = os.Stderr
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := command.Start(); err != nil {
		return process{}, err
	}
	p := process{command, name}
	ready := filepath.Join(dir, readyFile+"-"+name)
	deadline := time.Now().Add(startTimeout)
	for {
		if _, err := os.Stat(ready); err == nil {
			return p, nil
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return process{}, errors.Join(fmt.Errorf("start %s: not ready within %v", name, startTimeout), p.stop())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (p process) stop() error {
	if err := p.command.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- p.command.Wait() }()
	select {
	case <-ended: // how a server ends is not what is measured
		return nil
	case <-time.After(stopTimeout):
		return errors.Join(fmt.Errorf("stop %s: it did not end within %v", p.name, stopTimeout), p.command.Process.Kill())
	}
}

// cpu is the processor time that the processes have used so far.
func cpu(processes []process) (time.Duration, error) {
	const userHz = 100 // what the kernel counts in, on every Linux that Go runs on
	var total time.Duration
	for _, p := range processes {
		content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.command.Process.Pid))
		if err != nil {
			return 0, err
		}
		_, rest, _ := strings.Cut(string(content), ") ")
		var user, system int64
		fields := strings.Fields(rest)
		if _, err := fmt.Sscan(fields[11]+" "+fields[12], &user, &system); err != nil {
			return 0, err
		}
		total += time.Duration(user+system) * time.Second / userHz
	}
	return total, nil
}

// report prints medians over the rounds, and the ratio of each pair of rounds.
func report(s settings, all map[string][]result) error {
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "operation\tpodvine/s\tetcd/s\tratio\tp50 ms\tp50 ms etcd\tp99 ms\tp99 ms etcd\tCPU µs\tCPU µs etcd\t")
	for _, operation := range s.operations {
		mine, theirs := of(all["podvine"], operation), of(all["etcd"], operation)
		var ratios []float64
		for i := range min(len(mine), len(theirs)) {
			ratios = append(ratios, mine[i].perSecond/theirs[i].perSecond)
		}
		column := func(r []result, f func(result) float64) float64 {
			values := make([]float64, len(r))
			for i := range r {
				values[i] = f(r[i])
			}
			return median(values)
		}
		rate := func(r result) float64 { return r.perSecond }
		p50 := func(r result) float64 { return float64(r.p50) / 1e6 }
		p99 := func(r result) float64 { return float64(r.p99) / 1e6 }
		cost := func(r result) float64 { return float64(r.cpu) / 1e3 }
		fmt.Fprintf(table, "%s\t%.0f\t%.0f\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%.0f\t%.0f\t\n", operation,
			column(mine, rate), column(theirs, rate), median(ratios), column(mine, p50), column(theirs, p50),
			column(mine, p99), column(theirs, p99), column(mine, cost), column(theirs, cost))
	}
	return table.Flush()
}

func of(results []result, operation string) []result {
	return slices.DeleteFunc(slices.Clone(results), func(r result) bool { return r.operation != operation })
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[len(values)/2]
}
