package lab

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Linux has no namespace for the time of day. An agent whose clock is wrong is therefore a copy of the program that does not find the
// kernel's clock in its memory, and asks by a system call; a seccomp filter has that call answered by another process of the host
// (seccomp_unotify(2)). What the agent starts has the filter too, but finds the clock in memory and reads the right time.
const (
	// clockFile, in the host's /run, holds by how much the agent's clock is off.
	clockFile = "/run/podvine-lab/clock"
	// clockBinary is the copy.
	clockBinary = "/usr/local/lib/podvine-lab/podvine"
	// clockSocket is the file descriptor over which the filter's listener goes from the agent to be to the process that answers.
	clockSocket = 3
	// clockPass is how often the file is looked at again.
	clockPass = 100 * time.Millisecond
)

// clockKinds says, for an architecture, how seccomp calls it and how the kernel calls its clock in memory.
var clockKinds = map[string]struct {
	audit  uint32
	symbol string
}{
	"amd64": {unix.AUDIT_ARCH_X86_64, "__vdso_clock_gettime"},
	"arm64": {unix.AUDIT_ARCH_AARCH64, "__kernel_clock_gettime"},
}

// SetClock has the clock of the host's agent be off by offset, until the host's end. The first time, its agent is started anew; from then
// on the clock jumps while it runs.
func (l *Lab) SetClock(host *Host, offset time.Duration) error {
	if !host.Up() {
		return fmt.Errorf("set the clock of %s: the host is down", host.Name)
	}
	path := fmt.Sprintf("/proc/%d/root%s", host.Init.PID, clockFile)
	_, err := os.Stat(path)
	first := errors.Is(err, fs.ErrNotExist)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("set the clock of %s: %w", host.Name, err)
	}
	if err := os.WriteFile(path+".new", []byte(offset.String()), 0o644); err != nil {
		return fmt.Errorf("set the clock of %s: %w", host.Name, err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("set the clock of %s: %w", host.Name, err)
	}
	if first {
		return l.signalAgent(host, syscall.SIGTERM)
	}
	return nil
}

// startSkewed starts the agent with a clock that the file tells, if there is one.
func startSkewed(args []string) (pid int, skewed bool, err error) {
	if _, err := os.Stat(clockFile); errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, true, fmt.Errorf("start an agent with another clock: %w", err)
	}
	for i, command := range [][]string{{"--serve"}, append([]string{"--"}, args...)} {
		socket := os.NewFile(uintptr(pair[i]), "clock")
		defer socket.Close()
		process, err := os.StartProcess(binaryPath, append([]string{binaryPath, "lab", "run-clock"}, command...), &os.ProcAttr{
			Dir: "/", Env: os.Environ(), Files: []*os.File{nil, os.Stdout, os.Stderr, socket},
		})
		if err != nil {
			return 0, true, fmt.Errorf("start an agent with another clock: %w", err)
		}
		pid = process.Pid
		if err := process.Release(); err != nil { // reap waits for every child
			return 0, true, err
		}
	}
	return pid, true, nil
}

// RunClock is the hidden command that becomes an agent with args whose clock another process answers for.
func RunClock(args []string) error {
	if err := copyWithoutClock(); err != nil {
		return err
	}
	runtime.LockOSThread() // the filter is this thread's, which becomes the agent
	listener, err := filterClock()
	if err != nil {
		return err
	}
	if err := unix.Sendmsg(clockSocket, []byte{0}, unix.UnixRights(listener), nil, 0); err != nil {
		return fmt.Errorf("hand the clock's listener over: %w", err)
	}
	if _, err := unix.Read(clockSocket, make([]byte, 1)); err != nil {
		return fmt.Errorf("wait for who answers for the clock: %w", err)
	}
	unix.CloseOnExec(clockSocket)
	unix.CloseOnExec(listener)
	if err := syscall.Exec(clockBinary, append([]string{binaryPath, "agent"}, args...), os.Environ()); err != nil {
		return fmt.Errorf("start %s: %w", clockBinary, err)
	}
	return nil
}

// copyWithoutClock makes the copy of this program.
func copyWithoutClock() error {
	kind, known := clockKinds[runtime.GOARCH]
	if !known {
		return fmt.Errorf("copy the program for another clock: not on %s", runtime.GOARCH)
	}
	program, err := os.ReadFile(binaryPath)
	if err != nil {
		return fmt.Errorf("copy the program for another clock: %w", err)
	}
	// This file has the name, too, so both are changed; the copy does not look for it.
	other := strings.ToUpper(kind.symbol)
	if program = bytes.ReplaceAll(program, []byte(kind.symbol), []byte(other)); !bytes.Contains(program, []byte(other)) {
		return fmt.Errorf("copy the program for another clock: it does not know %s", kind.symbol)
	}
	if err := os.MkdirAll(filepath.Dir(clockBinary), 0o755); err != nil {
		return fmt.Errorf("copy the program for another clock: %w", err)
	}
	fresh := clockBinary + ".new" // the one before may run still
	if err := os.WriteFile(fresh, program, 0o755); err != nil {
		return fmt.Errorf("copy the program for another clock: %w", err)
	}
	return os.Rename(fresh, clockBinary)
}

// filterClock has every question of this thread for the time of day, and of what it becomes and starts, go to the listener.
func filterClock() (listener int, err error) {
	const allowed = 5
	program, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 4, Size: 4}, // seccomp_data.arch
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: clockKinds[runtime.GOARCH].audit, SkipTrue: allowed},
		bpf.LoadAbsolute{Off: 0, Size: 4}, // nr
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.SYS_CLOCK_GETTIME, SkipTrue: allowed - 2},
		bpf.LoadAbsolute{Off: 16, Size: 4}, // args[0], the clock
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.CLOCK_REALTIME, SkipTrue: allowed - 4},
		bpf.RetConstant{Val: unix.SECCOMP_RET_USER_NOTIF},
		bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW},
	})
	if err != nil {
		return 0, fmt.Errorf("write the clock's filter: %w", err)
	}
	filters := make([]unix.SockFilter, len(program))
	for i, one := range program {
		filters[i] = unix.SockFilter{Code: one.Op, Jt: one.Jt, Jf: one.Jf, K: one.K}
	}
	whole := unix.SockFprog{Len: uint16(len(filters)), Filter: &filters[0]}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, uintptr(unsafe.Pointer(&whole)))
	if errno != 0 {
		return 0, fmt.Errorf("install the clock's filter: %w", errno)
	}
	return int(fd), nil
}

// clockQuestion and clockAnswer are seccomp_notif and seccomp_notif_resp.
type (
	clockQuestion struct {
		ID       uint64
		PID      uint32
		Flags    uint32
		Number   int32
		Arch     uint32
		Position uint64
		Args     [6]uint64
	}
	clockAnswer struct {
		ID    uint64
		Value int64
		Error int32
		Flags uint32
	}
)

// ServeClock is the hidden command that answers for an agent's clock until nobody is left who might ask.
func ServeClock() error {
	listener, err := receiveListener()
	if err != nil {
		return err
	}
	var offset atomic.Int64
	if err := readOffset(&offset); err != nil {
		return err
	}
	if _, err := unix.Write(clockSocket, []byte{0}); err != nil {
		return fmt.Errorf("tell the agent that its clock is answered for: %w", err)
	}
	go func() {
		for range time.Tick(clockPass) {
			_ = readOffset(&offset) // the host may have ended
		}
	}()
	for {
		gone, err := awaitQuestion(listener)
		if err != nil || gone {
			return err
		}
		if err := answerClock(listener, time.Duration(offset.Load())); err != nil {
			return err
		}
	}
}

func receiveListener() (int, error) {
	data, rights := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(clockSocket, data, rights, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return 0, fmt.Errorf("take the clock's listener: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(rights[:n])
	if err != nil || len(messages) != 1 {
		return 0, fmt.Errorf("take the clock's listener: %d messages: %w", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return 0, fmt.Errorf("take the clock's listener: %d files: %w", len(fds), err)
	}
	return fds[0], nil
}

func readOffset(offset *atomic.Int64) error {
	content, err := os.ReadFile(clockFile)
	if err != nil {
		return err
	}
	by, err := time.ParseDuration(string(content))
	if err != nil {
		return fmt.Errorf("read %s: %w", clockFile, err)
	}
	offset.Store(int64(by))
	return nil
}

// awaitQuestion returns when there is a question, or nobody left who might ask.
func awaitQuestion(listener int) (gone bool, err error) {
	watched := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(watched, -1)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return false, fmt.Errorf("wait for questions to the clock: %w", err)
		default:
			return watched[0].Revents&unix.POLLIN == 0, nil
		}
	}
}

// answerClock answers one question. Who asked may be interrupted meanwhile, or end; then it asks again, or nobody does.
func answerClock(listener int, offset time.Duration) error {
	var asked clockQuestion
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(&asked)))
	if errno == unix.ENOENT || errno == unix.EINTR {
		return nil
	}
	if errno != 0 {
		return fmt.Errorf("take a question to the clock: %w", errno)
	}
	now := time.Now().Add(offset)
	var told [16]byte // a timespec
	binary.NativeEndian.PutUint64(told[:8], uint64(now.Unix()))
	binary.NativeEndian.PutUint64(told[8:], uint64(now.Nanosecond()))
	local := []unix.Iovec{{Base: &told[0], Len: uint64(len(told))}}
	remote := []unix.RemoteIovec{{Base: uintptr(asked.Args[1]), Len: len(told)}}
	answer := clockAnswer{ID: asked.ID}
	if _, err := unix.ProcessVMWritev(int(asked.PID), local, remote, 0); err != nil {
		answer.Error = -int32(unix.EFAULT)
	}
	_, _, errno = unix.Syscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&answer)))
	if errno != 0 && errno != unix.ENOENT {
		return fmt.Errorf("answer a question to the clock: %w", errno)
	}
	return nil
}
