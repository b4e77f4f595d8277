package mesh

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podvine/podvine/agent"
)

// keys are what a replica tells of the keys that it has.
type keys struct{ agent.KeysStatus }

func keysOf(t *testing.T, host string) (k keys) {
	t.Helper()
	if err := json.Unmarshal([]byte(run(t, host, "keys", "-o", "json")), &k.KeysStatus); err != nil {
		t.Fatal(err)
	}
	return k
}

// seals is the number of the key that seals Secrets.
func (k keys) seals() uint32 {
	i := slices.IndexFunc(k.Data, func(key agent.DataKeyStatus) bool { return key.Seals })
	return k.Data[i].Number
}

// Every key that can rotate does so while a host is away; nothing is lost by it, and the host is back afterwards.
func TestKeysRotate(t *testing.T) {
	healthy(t)
	client, _ := clientOf(t, "h1")
	run(t, "h1", "kubectl", "create", "secret", "generic", "sealed", "--from-literal=word=xylophone-7")
	t.Cleanup(func() { run(t, "h1", "kubectl", "delete", "secret", "sealed") })
	sealed, err := client.CoreV1().Secrets("default").Get(t.Context(), "sealed", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	token := strings.TrimSpace(run(t, "h1", "kubectl", "create", "token", "default", "--duration=1h"))
	before := keysOf(t, "h1")
	leader := quorumOf(t, "h1").Leader.Name
	away := hosts[slices.IndexFunc(hosts, func(host string) bool { return host != leader && host != "h1" })]
	run(t, "h1", "lab", "kill", "--name", labName, away)
	eventually(t, 30*time.Second, "the death to be known", func() (string, bool) {
		known := members(t, "h1")[away]
		return fmt.Sprint(known), !known.Alive
	})
	if out := run(t, "h1", "keys", "rotate"); !strings.Contains(out, "rotated: gossip, data, tokens") {
		t.Errorf("rotate: %s", out)
	}
	run(t, "h1", "lab", "start", "--name", labName, away)
	eventually(t, time.Minute, away+" to be back, and to know the new keys", func() (string, bool) {
		all := members(t, "h1")
		var seen []string
		for _, host := range hosts {
			if out, err := try(t, host, "", "keys"); err != nil || !all[host].Alive {
				return fmt.Sprint(host, all[host], out, err), false
			}
			now := keysOf(t, host)
			seen = append(seen, fmt.Sprint(now.Gossip, now.Data, len(now.Tokens)))
		}
		now := keysOf(t, "h1")
		return strings.Join(seen, "\n"), now.seals() != before.seals() && len(now.Tokens) == len(before.Tokens)+1 && len(slices.Compact(seen)) == 1
	})
	eventually(t, 30*time.Second, "the secret to be sealed anew", func() (string, bool) {
		now, err := client.CoreV1().Secrets("default").Get(t.Context(), "sealed", metav1.GetOptions{})
		return fmt.Sprint(now, err), err == nil && now.ResourceVersion != sealed.ResourceVersion
	})
	for _, host := range hosts {
		if word := run(t, host, "kubectl", "get", "secret", "sealed", "-o", "jsonpath={.data.word}"); word != "eHlsb3Bob25lLTc=" {
			t.Errorf("the secret through %s is %q", host, word)
		}
		// A token that the old key signed is good for the overlap.
		if who, err := try(t, host, "", "kubectl", "--kubeconfig", "/dev/null", "--server", serverOf(t, host), "--insecure-skip-tls-verify", "--token", token,
			"auth", "whoami"); err != nil || !strings.Contains(who, "system:serviceaccount:default:default") {
			t.Errorf("a token of before the rotation, at %s: %v: %s", host, err, who)
		}
	}
	healthy(t)
}

func serverOf(t *testing.T, host string) string {
	t.Helper()
	_, config := clientOf(t, host)
	return config.Host
}
