package pod

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/podvine/podvine/agent/api/kinds/kindtest"
)

var (
	//go:embed testdata/whole.yaml
	wholeYAML string
	//go:embed testdata/status.yaml
	statusYAML string
	//go:embed testdata/spec.rows
	specRows string
	//go:embed testdata/containers.rows
	containerRows string
	//go:embed testdata/volumes.rows
	volumeRows string
	//go:embed testdata/status.rows
	statusRows string
)

// TestFields shows every field of a pod: what is accepted, refused, defaulted and dropped.
func TestFields(t *testing.T) {
	base := parseYAML(t, wholeYAML)
	rows := parseRows(t, base, specRows)
	rows = append(rows, parseRows(t, base, volumeRows)...)
	rows = append(rows, parseRows(t, base, containerRows)...)
	rows = append(rows, parseRows(t, base, forSidecars(containerRows))...)
	rows = append(rows, parseRows(t, base, sidecarRows)...)
	rows = append(rows, parseRows(t, base, handlerRows())...)

	withStatus := parseYAML(t, wholeYAML)
	withStatus["status"] = parseYAML(t, statusYAML)
	for _, list := range []string{"containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"} {
		text := strings.ReplaceAll(statusRows, "status.containerStatuses", "status."+list)
		if list != "containerStatuses" {
			text = onlyLines(text, "status."+list)
		}
		for _, row := range parseRows(t, withStatus, text) {
			row.Status = true
			rows = append(rows, row)
		}
	}
	kindtest.Run(t, kindtest.Table{
		Resource: Resource(),
		Base:     wholeYAML,
		Rows:     append(rows, defaultRows()...),
		Elsewhere: map[string]string{
			"spec.ephemeralContainers": "TestEphemeralContainers; the type is the one of containers",
			"spec.volumes[].ephemeral.volumeClaimTemplate.metadata.ownerReferences": "refused as a whole",
			"spec.volumes[].ephemeral.volumeClaimTemplate.metadata.managedFields":   "refused as a whole",
			"status.nodeAllocatableResourceClaimStatuses":                           "dropped as a whole",
			"status.volumeHealth": "dropped as a whole",
		},
	})
}

func parseYAML(t *testing.T, text string) map[string]any {
	t.Helper()
	var out map[string]any
	if err := yaml.Unmarshal([]byte(text), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// onlyLines keeps the lines about paths below a prefix.
func onlyLines(text, prefix string) string {
	var kept []string
	for line := range strings.Lines(text) {
		if strings.Contains(strings.SplitN(line, "=", 2)[0], prefix) {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

// sidecarRows are about what makes a sidecar of an init container.
const sidecarRows = `
invalid spec.initContainers[0].restartPolicy = "Sometimes" -> NotSupported spec.initContainers[0].restartPolicy
invalid spec.initContainers[1].restartPolicy = null -> Required spec.initContainers[1].restartPolicy; Forbidden spec.initContainers[1].lifecycle; Forbidden spec.initContainers[1].livenessProbe; Forbidden spec.initContainers[1].readinessProbe; Forbidden spec.initContainers[1].startupProbe
`

// forSidecars turns rows about the first container into ones about the sidecar, which is made like it.
func forSidecars(text string) string {
	var kept []string
	for line := range strings.Lines(text) {
		if !strings.Contains(line, ".restartPolicy =") || strings.Contains(line, "resizePolicy") {
			kept = append(kept, line)
		}
	}
	text = strings.Join(kept, "")
	return strings.NewReplacer("spec.containers[0]", "spec.initContainers[1]", "spec.containers[]", "spec.initContainers[]").Replace(text)
}

// handlerRows are the rows about what probes and hooks do, for each of them in containers and sidecars.
func handlerRows() string {
	common := []struct{ field, value, err string }{
		{"exec.command", `{"exec":{"command":[]}}`, "Required %s.exec.command"},
		{"httpGet.path", `{"httpGet":{"path":"/x","port":80}}`, ""},
		{"httpGet.port", `{"httpGet":{"port":"-"}}`, "Invalid %s.httpGet.port"},
		{"httpGet.host", `{"httpGet":{"port":80,"host":"h"}}`, ""},
		{"httpGet.scheme", `{"httpGet":{"port":80,"scheme":"FTP"}}`, "NotSupported %s.httpGet.scheme"},
		{"httpGet.httpHeaders[].name", `{"httpGet":{"port":80,"httpHeaders":[{"name":"a b","value":"v"}]}}`, "Invalid %s.httpGet.httpHeaders"},
		{"httpGet.httpHeaders[].value", `{"httpGet":{"port":80,"httpHeaders":[{"name":"A","value":"any thing"}]}}`, ""},
		{"httpGet.protocol", `{"httpGet":{"port":80,"protocol":"HTTP2"}}`, "dropped"},
		{"tcpSocket.port", `{"tcpSocket":{"port":0}}`, "Invalid %s.tcpSocket.port"},
		{"tcpSocket.host", `{"tcpSocket":{"port":80,"host":"h"}}`, ""},
	}
	probes := append(common[:len(common):len(common)], []struct{ field, value, err string }{
		{"grpc.port", `{"grpc":{"port":0}}`, "Invalid %s.grpc.port"},
		{"grpc.service", `{"grpc":{"port":1,"service":"s"}}`, ""},
		{"grpc.mode", `{"grpc":{"port":1,"mode":"TLS"}}`, "dropped"},
	}...)
	hooks := append(common[:len(common):len(common)], struct{ field, value, err string }{
		"sleep.seconds", `{"sleep":{"seconds":21}}`, "Invalid %s.sleep"})
	var out strings.Builder
	write := func(place string, cases []struct{ field, value, err string }) {
		for _, at := range []string{"spec.containers[0].", "spec.initContainers[1]."} {
			for _, c := range cases {
				field := generic(at + place + "." + c.field)
				switch c.err {
				case "":
					fmt.Fprintf(&out, "valid %s @ %s%s = %s\n", field, at, place, c.value)
				case "dropped":
					fmt.Fprintf(&out, "dropped %s @ %s%s = %s\n", field, at, place, c.value)
				default:
					fmt.Fprintf(&out, "invalid %s @ %s%s = %s -> "+c.err+"\n", field, at, place, c.value, at+place)
				}
			}
		}
	}
	for _, place := range []string{"livenessProbe", "readinessProbe", "startupProbe"} {
		write(place, probes)
	}
	write("lifecycle.postStart", hooks)
	write("lifecycle.preStop", hooks)
	return out.String()
}

var (
	rowForm   = regexp.MustCompile(`^(\w+)\s+(?:(\S+) @ )?(\S+) = (.*?)(?: -> (.*))?$`)
	index     = regexp.MustCompile(`\[\d+\]`)
	pathParts = regexp.MustCompile(`[^.\[\]]+`)
)

// generic is a path without its list indices.
func generic(path string) string { return index.ReplaceAllString(path, "[]") }

// parseRows reads lines of the form CLASS [FIELD @] PATH = VALUE [-> ERRORS].
func parseRows(t *testing.T, base map[string]any, text string) []kindtest.Row {
	t.Helper()
	var rows []kindtest.Row
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		m := rowForm.FindStringSubmatch(line)
		if m == nil {
			t.Fatalf("read row %q", line)
		}
		field := m[2]
		if field == "" {
			field = generic(m[3])
		}
		var value any
		if err := json.Unmarshal([]byte(m[4]), &value); err != nil {
			t.Fatalf("read value of %q: %v", line, err)
		}
		rows = append(rows, kindtest.Row{Field: field, Class: kindtest.Class(m[1]), Patch: patch(t, base, m[3], value), Error: m[5]})
	}
	return rows
}

// patch returns a merge patch that sets the value at the path; lists on the way are replaced as a whole.
func patch(t *testing.T, base map[string]any, path string, value any) string {
	t.Helper()
	var whole map[string]any
	encoded, err := json.Marshal(base)
	if err == nil {
		err = json.Unmarshal(encoded, &whole)
	}
	if err != nil {
		t.Fatal(err)
	}
	parts := pathParts.FindAllString(path, -1)
	set(t, whole, parts, value)
	out := whole[parts[0]].(map[string]any)
	doc := map[string]any{parts[0]: out}
	if parts[0] == "spec" {
		doc = map[string]any{"spec": map[string]any{parts[1]: out[parts[1]]}}
	}
	encoded, err = json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return string(encoded)
}

func set(t *testing.T, at any, parts []string, value any) {
	t.Helper()
	switch at := at.(type) {
	case map[string]any:
		if len(parts) == 1 {
			at[parts[0]] = value
			return
		}
		if at[parts[0]] == nil {
			at[parts[0]] = map[string]any{}
		}
		set(t, at[parts[0]], parts[1:], value)
	case []any:
		i, err := strconv.Atoi(parts[0])
		if err != nil || i >= len(at) {
			t.Fatalf("no item %s", parts[0])
		}
		if len(parts) == 1 {
			at[i] = value
			return
		}
		set(t, at[i], parts[1:], value)
	default:
		t.Fatalf("nothing at %v", parts)
	}
}
