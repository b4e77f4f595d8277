package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
)

// maxPublishedConns bounds the connections that one published port carries at a time; more are closed at once.
const maxPublishedConns = 4096

// publish chooses a port on 127.0.0.1 for each of the host's ports that has none: the same number where it is free and
// no other host has taken it, else any.
func (l *Lab) publish(host *Host, ports []uint16) error {
	if host.Published == nil {
		host.Published = map[uint16]uint16{}
	}
	for _, port := range ports {
		if host.Published[port] != 0 {
			continue
		}
		chosen, err := l.freePort(port)
		if err != nil {
			return fmt.Errorf("publish port %d of %s: %w", port, host.Name, err)
		}
		host.Published[port] = chosen
	}
	return nil
}

// freePort is the wanted port, or any where that is not free or a host of the lab has it: it may not be listened on yet.
func (l *Lab) freePort(wanted uint16) (uint16, error) {
	for _, host := range l.Hosts {
		for _, taken := range host.Published {
			if taken == wanted {
				return l.freePort(0)
			}
		}
	}
	port, err := portOf(wanted)
	if err != nil && wanted != 0 {
		return l.freePort(0)
	}
	return port, err
}

func portOf(wanted uint16) (uint16, error) {
	listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(wanted)})
	if err != nil {
		return 0, err
	}
	return listener.Addr().(*net.TCPAddr).AddrPort().Port(), listener.Close()
}

// restartPublisher starts the process that carries the published ports, in place of the one that runs.
func (l *Lab) restartPublisher() error {
	if err := l.stopPublisher(); err != nil {
		return err
	}
	log, err := os.OpenFile(l.path("publisher.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open the publisher's log: %w", err)
	}
	defer log.Close()
	ready, notify, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("start the publisher: %w", err)
	}
	defer ready.Close()
	command := exec.Command("/proc/self/exe", "lab", "publish", "--name", l.Name)
	command.Stdout, command.Stderr, command.ExtraFiles = log, log, []*os.File{notify}
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := errors.Join(command.Start(), notify.Close()); err != nil {
		return fmt.Errorf("start the publisher: %w", err)
	}
	if l.Publisher, err = remember(command.Process.Pid); err != nil {
		return err
	}
	if err := errors.Join(command.Process.Release(), l.save()); err != nil {
		return err
	}
	if word, err := io.ReadAll(ready); err != nil || string(word) != goAhead {
		return fmt.Errorf("start the publisher: it ended; its log is %s", l.path("publisher.log"))
	}
	return nil
}

func (l *Lab) stopPublisher() error {
	if err := l.Publisher.signal(syscall.SIGKILL); err != nil {
		return fmt.Errorf("stop the publisher: %w", err)
	}
	l.Publisher = process{}
	return nil
}

// Publish is the hidden command that carries the lab's published ports until ctx ends. It reads lab.json without the lock,
// which the command that started it holds, and reports on the start pipe when all ports listen.
func Publish(ctx context.Context, name string, log *slog.Logger) error {
	l, err := Read(name)
	if err != nil {
		return err
	}
	notify := os.NewFile(startPipe, "start")
	var listeners net.ListenConfig
	for _, host := range l.Hosts {
		for inside, outside := range host.Published {
			listener, err := listeners.Listen(ctx, "tcp", netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), outside).String())
			if err != nil {
				return fmt.Errorf("publish port %d of %s: %w", inside, host.Name, err)
			}
			go l.carryAll(listener, host.Name, inside, log)
		}
	}
	if _, err := io.WriteString(notify, goAhead); err != nil {
		return err
	}
	if err := notify.Close(); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

func (l *Lab) carryAll(listener net.Listener, to string, port uint16, log *slog.Logger) {
	slots := make(chan struct{}, maxPublishedConns)
	for {
		conn, err := listener.Accept()
		if err != nil {
			log.Error("accept on a published port", "to", to, "port", port, "error", err)
			return
		}
		select {
		case slots <- struct{}{}:
			go func() {
				defer func() { <-slots }()
				if err := l.carry(conn.(*net.TCPConn), to, port); err != nil {
					log.Debug("carry a connection", "to", to, "port", port, "error", err)
				}
			}()
		default:
			log.Warn("too many connections on a published port", "to", to, "port", port, "limit", maxPublishedConns)
			if err := conn.Close(); err != nil {
				log.Debug("close a connection", "error", err)
			}
		}
	}
}

// carry copies both ways until both are done; an end of file in one direction leaves the other open. The host is where lab.json
// says now: its address may have changed.
func (l *Lab) carry(outside *net.TCPConn, to string, port uint16) error {
	defer outside.Close()
	now, err := Read(l.Name)
	if err != nil {
		return err
	}
	host, err := now.Host(to)
	if err != nil {
		return err
	}
	dialled, err := l.dial(netip.AddrPortFrom(host.Address, port))
	if err != nil {
		return err
	}
	inside := dialled.(*net.TCPConn)
	defer inside.Close()
	done := make(chan error, 1)
	go func() { done <- forward(inside, outside) }()
	back := forward(outside, inside)
	return errors.Join(back, <-done)
}

func forward(to, from *net.TCPConn) error {
	_, err := io.Copy(to, from)
	return errors.Join(err, to.CloseWrite())
}
