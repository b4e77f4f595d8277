package mesh

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// load asks each host's API, with connections kept and with new ones, until it is ended, and keeps what failed.
type load struct {
	group  sync.WaitGroup
	mu     sync.Mutex
	asked  int
	failed []error
}

func (l *load) note(what string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked++
	if err != nil {
		l.failed = append(l.failed, fmt.Errorf("%s %s: %w", time.Now().Format(time.TimeOnly), what, err))
	}
}

func (l *load) client(ctx context.Context, host string, client kubernetes.Interface) {
	l.group.Go(func() {
		maps := client.CoreV1().ConfigMaps("default")
		for i := 0; ctx.Err() == nil; i++ {
			name := fmt.Sprintf("%s-%d", host, i)
			_, err := maps.Create(context.WithoutCancel(ctx), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
			l.note("create through "+host, err)
			if err == nil {
				l.note("delete through "+host, maps.Delete(context.WithoutCancel(ctx), name, metav1.DeleteOptions{}))
			}
		}
	})
}

func (l *load) command(ctx context.Context, what string, args ...string) {
	l.group.Go(func() {
		for ctx.Err() == nil {
			out, err := exec.Command(cluster.Podvine, args...).CombinedOutput()
			if err != nil {
				err = errors.Join(err, errors.New(string(out)))
			}
			l.note(what, err)
		}
	})
}

// The CA rotates while a host is away at the start, the leader dies in the middle, and clients that trust the bundle go on without a failed
// request; afterwards what the old one certified is refused.
func TestAuthoritiesRotate(t *testing.T) {
	healthy(t)
	t.Cleanup(func() {
		for _, host := range hosts {
			if err := cluster.RefreshKubeconfig(host); err != nil {
				t.Error(err)
			}
		}
	})
	_, early := clientOf(t, "h1")
	earlyToken := strings.TrimSpace(run(t, "h1", "token", "create"))
	account := strings.TrimSpace(run(t, "h1", "kubectl", "create", "token", "default", "--duration=1h"))
	run(t, "h1", "kubectl", "create", "deployment", "asked", "--image="+appImage, "--replicas=2", "--port=8080")
	t.Cleanup(func() { run(t, "h1", "kubectl", "delete", "deployment,service", "asked") })
	run(t, "h1", "kubectl", "expose", "deployment", "asked", "--port=80", "--target-port=8080")
	run(t, "h1", "kubectl", "rollout", "status", "deployment/asked", "--timeout=60s")
	address := strings.TrimSpace(run(t, "h1", "kubectl", "get", "service", "asked", "-o", "jsonpath={.spec.clusterIP}"))
	old := keysOf(t, "h1").Authorities[0].ID

	leader := quorumOf(t, "h1").Leader.Name
	others := slices.DeleteFunc(slices.Clone(hosts), func(host string) bool { return host == leader })
	away, by := others[len(others)-1], others[0]
	run(t, by, "lab", "kill", "--name", labName, away)
	eventually(t, 30*time.Second, "the death to be known", func() (string, bool) {
		known := members(t, by)[away]
		return fmt.Sprint(known), !known.Alive
	})
	run(t, by, "keys", "rotate", "--ca", "--overlap", "25s")
	stage := func(host, wanted string) {
		eventually(t, 2*time.Minute, "the stage "+wanted+" at "+host, func() (string, bool) {
			if err := cluster.RefreshKubeconfig(host); err != nil {
				return err.Error(), false
			}
			out, err := try(t, host, "", "keys")
			going := strings.Contains(out, "the CA rotates: ")
			return out, err == nil && (going && wanted != "" && strings.Contains(out, "the CA rotates: "+wanted) || !going && wanted == "")
		})
	}
	stage(by, "overlap")
	if out, err := try(t, by, "", "keys", "rotate", "--ca"); err == nil || !strings.Contains(out, "a rotation goes on already") {
		t.Errorf("a second rotation at the same time: %v: %s", err, out)
	}
	if out := run(t, by, "status"); !strings.Contains(out, "RotatesAuthority") {
		t.Errorf("the status tells nothing of the rotation:\n%s", out)
	}
	run(t, by, "lab", "kill", "--name", labName, "--agent", leader)
	run(t, by, "lab", "start", "--name", labName, away)
	run(t, by, "lab", "start", "--name", labName, "--agent", leader)
	eventually(t, time.Minute, "all to be there and trust both", func() (string, bool) {
		var seen []string
		for _, host := range hosts {
			if err := cluster.RefreshKubeconfig(host); err != nil {
				return err.Error(), false
			}
			out, err := try(t, host, "", "keys", "-o", "json")
			if err != nil || strings.Count(out, `"made"`) == 0 || len(keysOf(t, host).Authorities) != 2 {
				return fmt.Sprint(host, err, out), false
			}
			seen = append(seen, fmt.Sprint(keysOf(t, host).Authorities))
		}
		return strings.Join(seen, "\n"), len(slices.Compact(seen)) == 1
	})

	l, ctx, end := new(load), context.Background(), context.CancelFunc(nil)
	ctx, end = context.WithCancel(ctx)
	defer l.group.Wait()
	defer end()
	for _, host := range hosts {
		client, _ := clientOf(t, host)
		l.client(ctx, host, client)
	}
	l.command(ctx, "get nodes at "+by, "kubectl", "--kubeconfig", kubeconfig(by), "get", "nodes")
	l.command(ctx, "ask the service at "+away, "lab", "exec", "--name", labName, away, "--", "podvine", "lab", "fetch", "http://"+address)
	watch, err := mustClient(t, by).CoreV1().ConfigMaps("default").Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=last"})
	if err != nil {
		t.Fatal(err)
	}
	stage(by, "")
	eventually(t, 30*time.Second, "the old authority to be trusted nowhere", func() (string, bool) {
		for _, host := range hosts {
			if err := cluster.RefreshKubeconfig(host); err != nil {
				return err.Error(), false
			}
			if now := keysOf(t, host).Authorities; len(now) != 1 || now[0].ID == old {
				return fmt.Sprint(host, now), false
			}
		}
		return "", true
	})
	end()
	l.group.Wait()
	t.Logf("%d requests while all were certified anew", l.asked)
	if len(l.failed) > 0 || l.asked < 50 {
		t.Errorf("%d of %d requests failed: %v", len(l.failed), l.asked, errors.Join(l.failed[:min(len(l.failed), 5)]...))
	}
	watch.Stop()
	refused(t, early, earlyToken, account)
	healthy(t)
}

func mustClient(t *testing.T, host string) kubernetes.Interface {
	t.Helper()
	client, _ := clientOf(t, host)
	return client
}

// refused tries what is of before the rotation.
func refused(t *testing.T, early *rest.Config, token, account string) {
	t.Helper()
	for _, host := range hosts {
		config := rest.CopyConfig(early)
		config.Host = serverOf(t, host)
		strict, err := kubernetes.NewForConfig(config)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := strict.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{}); err == nil || !strings.Contains(err.Error(), "unknown authority") {
			t.Errorf("a client that trusts only the old authority, at %s: %v", host, err)
		}
		config.TLSClientConfig.CAData, config.TLSClientConfig.Insecure = nil, true
		trusting, err := kubernetes.NewForConfig(config)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := trusting.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{}); !apierrors.IsUnauthorized(err) {
			t.Errorf("a certificate of the old authority, at %s: %v", host, err)
		}
		if who, err := try(t, host, "", "kubectl", "--kubeconfig", "/dev/null", "--server", serverOf(t, host), "--insecure-skip-tls-verify", "--token", account,
			"auth", "whoami"); err != nil || !strings.Contains(who, "system:serviceaccount:default:default") {
			t.Errorf("a service account's token of before, at %s: %v: %s", host, err, who)
		}
		bundle := run(t, host, "kubectl", "get", "configmap", "kube-root-ca.crt", "-o", `jsonpath={.data.ca\.crt}`)
		if strings.Count(bundle, "BEGIN CERTIFICATE") != 1 {
			t.Errorf("kube-root-ca.crt through %s is\n%s", host, bundle)
		}
	}
	if out, err := joinFrom(t, "h3", token, "new"); err == nil || !strings.Contains(out, "was rotated since the token was made") {
		t.Errorf("a join token of before: %v: %s", err, out)
	}
	if out, err := try(t, "h1", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"podvine-authorities","namespace":"kube-system"},"data":{}}`,
		"kubectl", "replace", "-f", "-"); err == nil || !strings.Contains(out, "the leader alone writes") {
		t.Errorf("somebody else writes the record: %v: %s", err, out)
	}
}

// rotateAtOnce rotates the CA as in an emergency, while there is an edge, which takes part without a restart.
func rotateAtOnce(t *testing.T, edge string) {
	t.Helper()
	on := func(what string) string {
		return strings.TrimSpace(run(t, "h1", "lab", "exec", "--name", labName, edge, "--", "sh", "-c", what))
	}
	const started, trusted = "pgrep -of 'podvine agent'", "cat /var/lib/podvine/pki/cluster-ca.crt"
	process, before := on(started), on(trusted)
	run(t, "h1", "keys", "rotate", "--ca", "--overlap", "0s")
	took := eventually(t, time.Minute, "the CA to be rotated", func() (string, bool) {
		for _, host := range hosts {
			if err := cluster.RefreshKubeconfig(host); err != nil {
				return err.Error(), false
			}
		}
		out, err := try(t, edge, "", "keys")
		return out, err == nil && !strings.Contains(out, "the CA rotates") && strings.Count(on(trusted), "BEGIN CERTIFICATE") == 1 && on(trusted) != before
	})
	t.Logf("the CA was rotated in %v", took.Round(time.Millisecond))
	if on(started) != process {
		t.Error("the edge's agent started anew")
	}
	for _, host := range hosts {
		run(t, host, "kubectl", "get", "nodes")
	}
}
