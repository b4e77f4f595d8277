package netd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/podvine/podvine/dataplane/dns"
)

const (
	// startLimit bounds the wait for a new netd to answer.
	startLimit   = 10 * time.Second
	pollInterval = 20 * time.Millisecond
	// retryMin and retryMax bound the pause before netd is tried again.
	retryMin = 200 * time.Millisecond
	retryMax = 10 * time.Second
)

// Config is what a [Client] needs.
type Config struct {
	// Dir is netd's folder.
	Dir string
	// Command starts netd; "--dir" and the folder are added to it.
	Command []string
	// Cgroups are folders of cgroup hierarchies for netd, made when missing: it must not die with the agent's.
	Cgroups  []string
	Settings Settings
	Logger   *slog.Logger
}

// Client feeds a netd. See [Start].
type Client struct {
	config   Config
	identity string
	cancel   context.CancelFunc
	group    sync.WaitGroup
	trigger  chan struct{}

	mu sync.Mutex // guards what follows
	// all is what netd is to know; synced is false until the first Set, and till then netd keeps what it has on disk.
	all    map[string]dns.Service
	synced bool
	// dirty are the keys that netd has not been told about; full means that it needs everything.
	dirty map[string]bool
	full  bool
	peer  Reply
}

// Start adopts the netd that runs, or starts one, and returns once it answers.
func Start(ctx context.Context, config Config) (*Client, error) {
	if config.Settings.ResolvConf == "" {
		config.Settings.ResolvConf = "/etc/resolv.conf"
	}
	if err := config.Settings.Check(); err != nil {
		return nil, fmt.Errorf("start netd: %w", err)
	}
	identity, err := config.Settings.Identity()
	if err != nil {
		return nil, err
	}
	c := &Client{
		config: config, identity: identity, trigger: make(chan struct{}, 1), all: map[string]dns.Service{}, dirty: map[string]bool{},
	}
	conn, err := c.ensure(ctx)
	if err != nil {
		return nil, fmt.Errorf("start netd: %w", err)
	}
	ctx, c.cancel = context.WithCancel(context.WithoutCancel(ctx))
	c.group.Go(func() { c.run(ctx, conn) })
	return c, nil
}

// Close stops feeding netd, which goes on answering.
func (c *Client) Close() error {
	c.cancel()
	c.group.Wait()
	return nil
}

// PID is the process that answers, as of the last contact.
func (c *Client) PID() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.peer.PID
}

// Set makes these all services that netd knows. It must not be called before all inputs have synced.
func (c *Client) Set(services []dns.Service) {
	c.mu.Lock()
	c.all = make(map[string]dns.Service, len(services))
	for _, s := range services {
		c.all[s.Key()] = s
	}
	c.synced, c.full = true, true
	c.mu.Unlock()
	c.wake()
}

// Apply changes some services.
func (c *Client) Apply(update dns.Update) {
	c.mu.Lock()
	for _, key := range update.Deletes {
		delete(c.all, key)
		c.dirty[key] = true
	}
	for _, s := range update.Upserts {
		c.all[s.Key()] = s
		c.dirty[s.Key()] = true
	}
	c.mu.Unlock()
	c.wake()
}

func (c *Client) wake() {
	select {
	case c.trigger <- struct{}{}:
	default:
	}
}

// run holds one connection after the other until the client is closed.
func (c *Client) run(ctx context.Context, conn *connection) {
	pause := retryMin
	for {
		if conn != nil {
			pause = retryMin
			if err := c.feed(ctx, conn); err != nil && ctx.Err() == nil {
				c.config.Logger.Warn("lost netd", "err", err)
			}
			// Only a broken connection ends feeding; closing it can add nothing.
			_ = conn.close()
			conn = nil
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		var err error
		if conn, err = c.ensure(ctx); err != nil && ctx.Err() == nil {
			c.config.Logger.Warn("cannot start netd", "err", err)
			pause = min(2*pause, retryMax)
		}
	}
}

// feed sends what is new until the connection breaks.
func (c *Client) feed(ctx context.Context, conn *connection) error {
	c.mu.Lock()
	c.full = c.full || c.synced
	c.mu.Unlock()
	for {
		if update, any := c.take(); any {
			if _, err := conn.ask(ctx, Request{Update: &update}); err != nil {
				c.putBack(update)
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-conn.lost:
			return errors.New("netd closed the connection")
		case <-c.trigger:
		}
	}
}

// take returns what is to be sent and marks it as sent.
func (c *Client) take() (update dns.Update, any bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.synced || (!c.full && len(c.dirty) == 0) {
		return update, false
	}
	if c.full {
		update.Full = true
		for _, key := range slices.Sorted(maps.Keys(c.all)) {
			update.Upserts = append(update.Upserts, c.all[key])
		}
	} else {
		for _, key := range slices.Sorted(maps.Keys(c.dirty)) {
			if s, ok := c.all[key]; ok {
				update.Upserts = append(update.Upserts, s)
			} else {
				update.Deletes = append(update.Deletes, key)
			}
		}
	}
	c.full = false
	clear(c.dirty)
	return update, true
}

func (c *Client) putBack(update dns.Update) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.full = c.full || update.Full
	for _, key := range update.Deletes {
		c.dirty[key] = true
	}
	for i := range update.Upserts {
		c.dirty[update.Upserts[i].Key()] = true
	}
}

// ensure returns a connection to a netd of this build and these settings, which it starts if need be.
func (c *Client) ensure(ctx context.Context) (*connection, error) {
	conn, err := connect(ctx, c.config.Dir)
	if err == nil {
		if c.accept(conn) {
			return conn, nil
		}
		if err := conn.close(); err != nil {
			return nil, err
		}
	}
	if err := c.spawn(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	for {
		conn, err := connect(ctx, c.config.Dir)
		if err == nil && c.accept(conn) {
			return conn, nil
		}
		if err == nil {
			// The predecessor, which is about to go.
			err = errors.Join(errors.New("an older netd still answers"), conn.close())
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for new netd (see %s): %w", filepath.Join(c.config.Dir, LogFile), err)
		case <-time.After(pollInterval):
		}
	}
}

func (c *Client) accept(conn *connection) bool {
	if conn.peer.Protocol != ProtocolVersion || conn.peer.Identity != c.identity {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.peer = conn.peer
	return true
}

// spawn starts netd in a session of its own; it is no child that anybody waits for once the agent has gone.
func (c *Client) spawn() error {
	if err := os.MkdirAll(c.config.Dir, 0o700); err != nil {
		return fmt.Errorf("make folder of netd: %w", err)
	}
	if err := WriteFile(c.config.Dir, ConfigFile, &c.config.Settings); err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(c.config.Dir, LogFile), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open log of netd: %w", err)
	}
	defer log.Close()
	args := append(slices.Clone(c.config.Command[1:]), "--dir", c.config.Dir)
	cmd := exec.Command(c.config.Command[0], args...)
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("run netd: %w", err)
	}
	// Reaps it, should it end before the agent does; how it ended is in its log.
	go func() { _ = cmd.Wait() }()
	return c.intoCgroups(cmd.Process.Pid)
}

func (c *Client) intoCgroups(pid int) error {
	for _, dir := range c.config.Cgroups {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make cgroup of netd: %w", err)
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0o600); err != nil {
			return fmt.Errorf("move netd into cgroup: %w", err)
		}
	}
	return nil
}

// StopRunning asks the netd that serves dir to end and waits until it lets go of its connections. No netd is no error.
func StopRunning(ctx context.Context, dir string) error {
	conn, err := connect(ctx, dir)
	if err != nil {
		// Nobody listens.
		return nil
	}
	if _, err := conn.ask(ctx, Request{Stop: true}); err != nil {
		return errors.Join(err, conn.close())
	}
	ctx, cancel := context.WithTimeout(ctx, exchangeLimit)
	defer cancel()
	select {
	case <-conn.lost:
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("wait for netd to end: %w", ctx.Err()), conn.close())
	}
	return conn.close()
}

// Reset ends the netd that serves dir and removes the folder.
func Reset(ctx context.Context, dir string) error {
	if err := StopRunning(ctx, dir); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove folder of netd: %w", err)
	}
	return nil
}
