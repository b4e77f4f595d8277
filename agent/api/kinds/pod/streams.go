package pod

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/proxy"
	"k8s.io/apiserver/pkg/registry/rest"
	translate "k8s.io/apiserver/pkg/util/proxy"
	"k8s.io/streaming/pkg/httpstream/wsstream"
)

// unlimitedBytesPerSecond leaves the bandwidth of a stream to its ends.
const unlimitedBytesPerSecond = 0

func streamMethods() []string { return []string{http.MethodGet, http.MethodPost} }

// upgrade passes a connection on to the node; it must be one that changes its protocol.
func upgrade(location *url.URL, transport http.RoundTripper, responder rest.Responder) *proxy.UpgradeAwareHandler {
	return proxy.NewUpgradeAwareHandler(location, transport, false, true, proxy.NewErrorResponder(responder))
}

// standardStreams passes on a connection that carries input, output and errors. A client that speaks WebSocket with
// half-closed streams is translated to the protocol that the node speaks.
func standardStreams(where *place, path string, query url.Values, streams translate.Options, responder rest.Responder) http.Handler {
	location := where.url(path, query)
	translator := translate.NewStreamTranslatorHandler(location, where.connection.Transport, unlimitedBytesPerSecond, streams)
	return translate.NewTranslatingHandler(upgrade(location, where.connection.Transport, responder), translator, wsstream.IsWebSocketRequestWithStreamCloseProtocol)
}

// streamQuery is what the node is asked for.
func streamQuery(s translate.Options) url.Values {
	query := url.Values{}
	for name, set := range map[string]bool{"input": s.Stdin, "output": s.Stdout, "error": s.Stderr, "tty": s.Tty} {
		if set {
			query.Set(name, "1")
		}
	}
	return query
}

// execREST is pods/exec: it runs a command in a container.
type execREST struct{ *reach }

// New implements rest.Storage.
func (r *execREST) New() runtime.Object { return &corev1.PodExecOptions{} }

// Destroy implements rest.Storage.
func (r *execREST) Destroy() {}

// NewConnectOptions implements rest.Connecter.
func (r *execREST) NewConnectOptions() (runtime.Object, bool, string) {
	return &corev1.PodExecOptions{}, false, ""
}

// ConnectMethods implements rest.Connecter.
func (r *execREST) ConnectMethods() []string { return streamMethods() }

// Connect implements rest.Connecter.
func (r *execREST) Connect(ctx context.Context, name string, options runtime.Object, responder rest.Responder) (http.Handler, error) {
	opts, ok := options.(*corev1.PodExecOptions)
	if !ok {
		return nil, fmt.Errorf("invalid options object: %#v", options)
	}
	where, container, err := r.container(ctx, name, opts.Container)
	if err != nil {
		return nil, err
	}
	streams := translate.Options{Stdin: opts.Stdin, Stdout: opts.Stdout, Stderr: opts.Stderr, Tty: opts.TTY}
	query := streamQuery(streams)
	query["command"] = opts.Command
	return standardStreams(where, where.containerPath("exec", container), query, streams, responder), nil
}

// container finds a pod's container and node.
func (r *reach) container(ctx context.Context, pod, wanted string) (*place, string, error) {
	p, err := getPod(ctx, r.pods, pod)
	if err != nil {
		return nil, "", err
	}
	container, err := chooseContainer(wanted, p)
	if err != nil {
		return nil, "", err
	}
	where, err := r.connect(ctx, p)
	return where, container, err
}

// attachREST is pods/attach: it joins the streams of a container that runs.
type attachREST struct{ *reach }

// New implements rest.Storage.
func (r *attachREST) New() runtime.Object { return &corev1.PodAttachOptions{} }

// Destroy implements rest.Storage.
func (r *attachREST) Destroy() {}

// NewConnectOptions implements rest.Connecter.
func (r *attachREST) NewConnectOptions() (runtime.Object, bool, string) {
	return &corev1.PodAttachOptions{}, false, ""
}

// ConnectMethods implements rest.Connecter.
func (r *attachREST) ConnectMethods() []string { return streamMethods() }

// Connect implements rest.Connecter.
func (r *attachREST) Connect(ctx context.Context, name string, options runtime.Object, responder rest.Responder) (http.Handler, error) {
	opts, ok := options.(*corev1.PodAttachOptions)
	if !ok {
		return nil, fmt.Errorf("invalid options object: %#v", options)
	}
	where, container, err := r.container(ctx, name, opts.Container)
	if err != nil {
		return nil, err
	}
	streams := translate.Options{Stdin: opts.Stdin, Stdout: opts.Stdout, Stderr: opts.Stderr, Tty: opts.TTY}
	return standardStreams(where, where.containerPath("attach", container), streamQuery(streams), streams, responder), nil
}

// portForwardREST is pods/portforward: it carries connections to ports of a pod.
type portForwardREST struct{ *reach }

// New implements rest.Storage.
func (r *portForwardREST) New() runtime.Object { return &corev1.PodPortForwardOptions{} }

// Destroy implements rest.Storage.
func (r *portForwardREST) Destroy() {}

// NewConnectOptions implements rest.Connecter.
func (r *portForwardREST) NewConnectOptions() (runtime.Object, bool, string) {
	return &corev1.PodPortForwardOptions{}, false, ""
}

// ConnectMethods implements rest.Connecter.
func (r *portForwardREST) ConnectMethods() []string { return streamMethods() }

// Connect implements rest.Connecter.
func (r *portForwardREST) Connect(ctx context.Context, name string, options runtime.Object, responder rest.Responder) (http.Handler, error) {
	opts, ok := options.(*corev1.PodPortForwardOptions)
	if !ok {
		return nil, fmt.Errorf("invalid options object: %#v", options)
	}
	p, err := getPod(ctx, r.pods, name)
	if err != nil {
		return nil, err
	}
	where, err := r.connect(ctx, p)
	if err != nil {
		return nil, err
	}
	query := url.Values{}
	for _, port := range opts.Ports {
		query.Add("port", strconv.Itoa(int(port)))
	}
	handler := upgrade(where.url("/portForward/"+p.Namespace+"/"+p.Name, query), where.connection.Transport, responder)
	return translate.NewTranslatingHandler(handler, translate.NewTunnelingHandler(handler), wsstream.IsWebSocketRequestWithTunnelingProtocol), nil
}
