// Package localissuer gives members of a Unix group a short-lived client certificate over a local socket, so that a
// user of the machine who is not root can administer the cluster.
//
// The kernel says who connects (SO_PEERCRED); root and the members of the group may ask, everybody else is refused
// before anything is read. One request and one answer, a JSON line each, per connection. A [Server] is safe for
// concurrent use; its goroutines end with [Server.Serve].
package localissuer

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/user"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podvine/podvine/agent/pki"
)

const (
	// Group is the Unix group whose members may ask.
	Group = "podvine"
	// DefaultLifetimeHours is the life of a certificate where the request says nothing; MaxLifetimeHours the most it gives.
	DefaultLifetimeHours = 8
	MaxLifetimeHours     = 24

	exchangeTimeoutSeconds = 10
	// acceptRetryMilliseconds is the pause after a connection that could not be accepted.
	acceptRetryMilliseconds = 200
	maxMessageBytes         = 64 << 10
	maxConnections          = 32
	socketMode              = 0o666 // the peer's credentials decide, not the file's mode
)

// Issuer makes certificates. *pki.PKI is one.
type Issuer interface {
	IssueClient(id pki.Identity, ttl time.Duration, now time.Time) (*pki.Issued, error)
	Kubeconfig(server, user string, issued *pki.Issued) ([]byte, error)
}

// request is what a client sends.
type request struct {
	LifetimeSeconds int64 `json:"lifetimeSeconds,omitempty"`
}

// response is what it gets.
type response struct {
	Kubeconfig []byte `json:"kubeconfig,omitempty"`
	Error      string `json:"error,omitempty"`
}

// Config is what a Server needs; Allowed and Now may be nil.
type Config struct {
	Issuer Issuer
	// APIServer is the address in the kubeconfigs: https://127.0.0.1:6443.
	APIServer string
	// Allowed says whether a Unix user may ask; nil allows root and members of [Group].
	Allowed func(uid, gid uint32) (bool, error)
	Now     func() time.Time
	Log     *slog.Logger
}

// Server answers on a socket.
type Server struct {
	config   Config
	listener *net.UnixListener
}

// Listen makes the socket at path; one that nobody listens on any more is replaced.
func Listen(path string, config Config) (*Server, error) {
	if config.Issuer == nil || config.APIServer == "" || config.Log == nil {
		return nil, errors.New("listen for local users: issuer, API server and log are needed")
	}
	if config.Allowed == nil {
		config.Allowed = memberOrRoot
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("replace socket: %w", err)
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen for local users: %w", err)
	}
	if err := os.Chmod(path, socketMode); err != nil {
		return nil, errors.Join(fmt.Errorf("open socket to users: %w", err), listener.Close())
	}
	return &Server{config: config, listener: listener}, nil
}

// Serve answers until ctx ends, and returns when the last answer is out.
func (s *Server) Serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { s.listener.Close() })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, maxConnections)
	for {
		conn, err := s.listener.AcceptUnix()
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("accept local user: %w", err)
		}
		if err != nil { // too many open files, say, which passes
			s.config.Log.Warn("accept local user", "error", err)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(acceptRetryMilliseconds * time.Millisecond):
			}
			continue
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			s.answer(conn)
		})
	}
}

func (s *Server) answer(conn *net.UnixConn) {
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(exchangeTimeoutSeconds * time.Second)); err != nil {
		s.config.Log.Warn("answer local user", "error", err)
		return
	}
	uid, out := s.decide(conn)
	if out.Error != "" {
		s.config.Log.Warn("refuse local user", "uid", uid, "reason", out.Error)
	}
	if err := json.NewEncoder(conn).Encode(out); err != nil {
		s.config.Log.Warn("answer local user", "uid", uid, "error", err)
	}
}

// decide reads and answers one request.
func (s *Server) decide(conn *net.UnixConn) (uid uint32, out response) {
	peer, err := credentials(conn)
	if err != nil {
		return 0, response{Error: err.Error()}
	}
	allowed, err := s.config.Allowed(peer.Uid, peer.Gid)
	if err != nil {
		return peer.Uid, response{Error: err.Error()}
	}
	if !allowed {
		return peer.Uid, response{Error: fmt.Sprintf("user %d is not in group %s; ask root for: usermod -aG %s USER", peer.Uid, Group, Group)}
	}
	var in request
	line, err := bufio.NewReader(io.LimitReader(conn, maxMessageBytes)).ReadBytes('\n')
	if err != nil {
		return peer.Uid, response{Error: "read request: " + err.Error()}
	}
	if err := json.Unmarshal(line, &in); err != nil {
		return peer.Uid, response{Error: "decode request: " + err.Error()}
	}
	content, err := s.issue(peer.Uid, in)
	if err != nil {
		return peer.Uid, response{Error: err.Error()}
	}
	return peer.Uid, response{Kubeconfig: content}
}

func (s *Server) issue(uid uint32, in request) ([]byte, error) {
	ttl := time.Duration(in.LifetimeSeconds) * time.Second
	if in.LifetimeSeconds == 0 {
		ttl = DefaultLifetimeHours * time.Hour
	}
	if in.LifetimeSeconds < 0 || ttl > MaxLifetimeHours*time.Hour {
		return nil, fmt.Errorf("a lifetime of %d s is not between 1 s and %d h", in.LifetimeSeconds, MaxLifetimeHours)
	}
	name := "local:" + strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10)); err == nil {
		name = "local:" + u.Username
	}
	issued, err := s.config.Issuer.IssueClient(pki.Identity{User: name, Groups: []string{pki.MastersGroup}}, ttl, s.config.Now())
	if err != nil {
		return nil, err
	}
	return s.config.Issuer.Kubeconfig(s.config.APIServer, name, issued)
}

// credentials are the peer's, as the kernel knows them.
func credentials(conn *net.UnixConn) (*unix.Ucred, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("ask who connects: %w", err)
	}
	var peer *unix.Ucred
	var peerErr error
	if err := raw.Control(func(fd uintptr) {
		peer, peerErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return nil, fmt.Errorf("ask who connects: %w", err)
	}
	if peerErr != nil {
		return nil, fmt.Errorf("ask who connects: %w", peerErr)
	}
	return peer, nil
}

// memberOrRoot looks the user's groups up at each request, so that leaving the group counts at once.
func memberOrRoot(uid, gid uint32) (bool, error) {
	if uid == 0 {
		return true, nil
	}
	group, err := user.LookupGroup(Group)
	if err != nil {
		var unknown user.UnknownGroupError
		if errors.As(err, &unknown) {
			return false, nil
		}
		return false, fmt.Errorf("look up group %s: %w", Group, err)
	}
	if strconv.FormatUint(uint64(gid), 10) == group.Gid {
		return true, nil
	}
	u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	if err != nil {
		return false, fmt.Errorf("look up user %d: %w", uid, err)
	}
	groups, err := u.GroupIds()
	if err != nil {
		return false, fmt.Errorf("look up groups of user %d: %w", uid, err)
	}
	return slices.Contains(groups, group.Gid), nil
}

// Request asks the server at the socket for a kubeconfig that works for lifetime; 0 is the server's default.
func Request(ctx context.Context, path string, lifetime time.Duration) ([]byte, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("reach the agent: %w", err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(exchangeTimeoutSeconds * time.Second)); err != nil {
		return nil, fmt.Errorf("reach the agent: %w", err)
	}
	sendErr := json.NewEncoder(conn).Encode(request{LifetimeSeconds: int64(lifetime / time.Second)})
	var out response // a refusal comes also where the request was not read
	if err := json.NewDecoder(io.LimitReader(conn, maxMessageBytes)).Decode(&out); err != nil {
		return nil, fmt.Errorf("read the agent's answer: %w", errors.Join(sendErr, err))
	}
	if out.Error != "" {
		return nil, fmt.Errorf("get a certificate: %s", out.Error)
	}
	return out.Kubeconfig, nil
}
