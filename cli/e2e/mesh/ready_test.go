package mesh

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"
)

// discovery asks the host's API, on a connection of its own, which groups there are. by is the serial number of the
// certificate of who answered.
func discovery(t *testing.T, config *rest.Config, accept string) (said, by string, err error) {
	t.Helper()
	settings, err := rest.TLSConfigFor(config)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Timeout: 15 * time.Second, Transport: &http.Transport{TLSClientConfig: settings, DisableKeepAlives: true}}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, config.Host+"/apis", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Accept", accept)
	answer, err := client.Do(request)
	if err != nil {
		return "", "", err
	}
	defer answer.Body.Close()
	content, err := io.ReadAll(answer.Body)
	return fmt.Sprint(answer.StatusCode, " ", string(content)), answer.TLS.PeerCertificates[0].SerialNumber.String(), err
}

// A replica whose agent starts anew has others answer until it has all records and all API services: nobody is told of less
// than there is.
func TestStartingReplicaTellsOfAllThereIs(t *testing.T) {
	healthy(t)
	definition := `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: pears.fruit.example}
spec:
  group: fruit.example
  names: {kind: Pear, plural: pears, singular: pear}
  scope: Namespaced
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}]
`
	if out, err := try(t, "h1", definition, "kubectl", "apply", "-f", "-"); err != nil {
		t.Fatal(err, out)
	}
	t.Cleanup(func() { run(t, "h1", "kubectl", "delete", "crd", "pears.fruit.example") })
	run(t, "h1", "kubectl", "wait", "--for=condition=Established", "crd/pears.fruit.example", "--timeout=30s")
	leader := quorumOf(t, "h1").Leader.Name
	host := hosts[(slices.Index(hosts, leader)+1)%len(hosts)]
	// A host that was made anew is an edge at first.
	eventually(t, time.Minute, host+" to be a replica", func() (string, bool) {
		known := members(t, "h1")
		return fmt.Sprintf("%+v", known), known[host].Alive && known[host].Role != "edge"
	})
	_, config := clientOf(t, host)
	const aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
	wanted := map[string]string{}
	known := map[string]bool{} // serial numbers of the certificates before the start
	for _, accept := range []string{"application/json", aggregated} {
		for _, h := range hosts {
			_, other := clientOf(t, h)
			eventually(t, 30*time.Second, h+" to tell of the same groups", func() (string, bool) {
				said, by, err := discovery(t, other, accept)
				known[by] = true
				if h == hosts[0] && strings.Contains(said, "fruit.example") {
					wanted[accept] = said
				}
				return fmt.Sprint(said, err), err == nil && said == wanted[accept]
			})
		}
	}

	run(t, "h1", "lab", "kill", "--name", labName, "--agent", host)
	run(t, "h1", "lab", "start", "--name", labName, "--agent", host)
	answers, carried := 0, 0
	eventually(t, time.Minute, host+" to answer itself", func() (string, bool) {
		itself := false
		for accept, want := range wanted {
			said, by, err := discovery(t, config, accept)
			if err != nil {
				return err.Error(), false
			}
			if said != want {
				t.Errorf("after %d answers, %d of others, %s says\n%s\nnot\n%s", answers, carried, host, said, want)
			}
			answers++
			if known[by] {
				carried++
			}
			itself = !known[by]
		}
		return fmt.Sprint(answers, " answers, ", carried, " of them by others"), itself
	})
	t.Logf("%d answers, %d of them by others", answers, carried)
}
