package testhost

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podvine/podvine/dataplane/internal/nsrun"
)

// Sockets belong for good to the cgroup of the process that made them. What a test does as another machine must not be
// translated, so those sockets are made by the process that started the test host, outside its cgroup, and handed over.
const (
	// factoryFD is the first of exec.Cmd's extra files.
	factoryFD = 3
	// messageBytes bounds a request ("network address", "place") and an answer (an error number, or nothing).
	messageBytes = 256
	// outsidePrefix marks the name of a network namespace whose sockets come from the factory.
	outsidePrefix = "outside:"
)

// factoryPair makes the two ends of the connection to the factory.
func factoryPair() (here int, there *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, nil, fmt.Errorf("make socket pair: %w", err)
	}
	return fds[0], os.NewFile(uintptr(fds[1]), "factory"), nil
}

// serveFactory makes sockets until the other end is closed.
func serveFactory(fd int) {
	buffer, rights := make([]byte, messageBytes), make([]byte, unix.CmsgSpace(4))
	for {
		n, rightsLength, _, _, err := unix.Recvmsg(fd, buffer, rights, unix.MSG_CMSG_CLOEXEC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return
		}
		socket, err := makeSocket(string(buffer[:n]), rights[:rightsLength])
		if err != nil {
			var number syscall.Errno
			if !errors.As(err, &number) {
				number = unix.ETIMEDOUT
			}
			err = unix.Sendmsg(fd, []byte(strconv.Itoa(int(number))), nil, nil, 0)
		} else {
			err = unix.Sendmsg(fd, []byte("0"), unix.UnixRights(int(socket.Fd())), nil, 0)
			_ = socket.Close()
		}
		if err != nil {
			return
		}
	}
}

func makeSocket(request string, rights []byte) (*os.File, error) {
	fds, err := parseRights(rights)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fds[0])
	network, address, _ := strings.Cut(request, " ")
	var file *os.File
	err = nsrun.In(fmt.Sprintf("/proc/self/fd/%d", fds[0]), func() error {
		dialer := net.Dialer{Timeout: exchangeLimit}
		conn, err := dialer.Dial(network, address)
		if err != nil {
			return err
		}
		defer conn.Close()
		file, err = conn.(interface{ File() (*os.File, error) }).File()
		return err
	})
	return file, err
}

func parseRights(rights []byte) ([]int, error) {
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil {
		return nil, err
	}
	if len(messages) != 1 {
		return nil, errors.New("message without a file")
	}
	return unix.ParseUnixRights(&messages[0])
}

// dialOutside asks the factory for a connected socket in a network namespace.
func dialOutside(netns, network, address string) (net.Conn, error) {
	ns, err := os.Open(netns)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	if err := unix.Sendmsg(factoryFD, []byte(network+" "+address), unix.UnixRights(int(ns.Fd())), nil, 0); err != nil {
		return nil, fmt.Errorf("ask for a socket outside: %w", err)
	}
	buffer, rights := make([]byte, messageBytes), make([]byte, unix.CmsgSpace(4))
	if err := waitReadable(factoryFD, 2*exchangeLimit); err != nil {
		return nil, err
	}
	n, rightsLength, _, _, err := unix.Recvmsg(factoryFD, buffer, rights, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("receive a socket from outside: %w", err)
	}
	number, err := strconv.Atoi(string(buffer[:n]))
	if err != nil {
		return nil, fmt.Errorf("understand the factory: %w", err)
	}
	if number != 0 {
		return nil, fmt.Errorf("dial %s %s from outside: %w", network, address, syscall.Errno(number))
	}
	fds, err := parseRights(rights[:rightsLength])
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fds[0]), "outside")
	defer file.Close()
	return net.FileConn(file)
}

func waitReadable(fd int, limit time.Duration) error {
	deadline := time.Now().Add(limit)
	for {
		left := time.Until(deadline).Milliseconds()
		if left <= 0 {
			return errors.New("the factory does not answer")
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left))
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if n == 1 {
			return nil
		}
	}
}

// Untranslated names a network namespace in which sockets are made that no program of the test's cgroup sees.
func Untranslated(netns string) string { return outsidePrefix + netns }
