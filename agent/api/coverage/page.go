package coverage

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

const pageHead = `# Coverage

What of the Kubernetes API works, and what does not yet. This page is generated (` + "`make generate`" + `) from the kinds that the
server registers and from the table in ` + "`agent/api/coverage/gaps.go`" + `; a test keeps it current.

Nothing is ignored in silence: a field below is accepted, the answer carries a warning that names it ("` + Phrase + `"),
and what happens instead stands in the last column. Where the warning could not tell from the field alone, the page says so.
`

const pageDifferences = `
## What differs on purpose

| what | Kubernetes | Podvine |
|---|---|---|
| tolerations that admission adds for nodes that are not ready or unreachable | 300 s | the cluster setting ` + "`eviction-delay`" + `, 5 s |
| the ConfigMap ` + "`kube-system/podvine-settings`" + ` | any ConfigMap | the cluster's settings: bad ones, and deleting it, are refused |
| PodSecurityPolicy | gone since 1.25 | served as policy/v1beta1, and pods are admitted by it, where the cluster setting ` + "`pod-security-policies`" + ` is on |
| ComponentStatus | the programs of the control plane | an empty list: they are parts of one program, of which ` + "`/readyz?verbose`" + ` tells |
| a pod that tolerates a taint for a while | the time runs from when the controller saw the taint | from the taint's own time, where it has one; a new leader does not begin anew |
| ended pods on a node with a taint they do not tolerate | deleted | kept, until the collector of ended pods takes them |
| pods of Jobs and of other controllers that are no replicated set, and that no service selects | spread by nothing but room | spread as those of one controller |
| field selector ` + "`metadata.namespace`" + ` on PodCertificateRequests | refused | as on every other kind |
`

// Page writes docs/coverage.md. served are the kinds that the server has, known holds the published types of Kubernetes.
func Page(served []schema.GroupVersionKind, known *runtime.Scheme) string {
	var page strings.Builder
	page.WriteString(pageHead)
	page.WriteString("\n## Kinds\n\n| group | served | not yet |\n|---|---|---|\n")
	have, lack := byGroup(served), byGroup(missing(served, known))
	groups := slices.Sorted(maps.Keys(have))
	for group := range lack {
		if !slices.Contains(groups, group) {
			groups = append(groups, group)
		}
	}
	slices.Sort(groups)
	for _, group := range groups {
		fmt.Fprintf(&page, "| %s | %s | %s |\n", group, strings.Join(have[group], ", "), strings.Join(lack[group], ", "))
	}
	page.WriteString("\n## Fields\n\n")
	fmt.Fprintf(&page, "What is said of a pod's `spec` holds for the templates of %s too.\n\n", strings.Join(templated(), ", "))
	page.WriteString("| kind | field | values | instead |\n|---|---|---|---|\n")
	for gaps := slices.Concat(podGaps(), volumeGaps(), subresourceGaps(), storageGaps(), otherGaps()); len(gaps) > 0; {
		var fields string
		first := gaps[0]
		fields, gaps = together(gaps)
		fmt.Fprintf(&page, "| %s | %s | %s | %s |\n", first.Kind, fields, values(first), effect(first))
	}
	page.WriteString(pageDifferences)
	return page.String()
}

// together takes the gaps off the front of which one row can tell: neighbours below the same field.
func together(gaps []Gap) (fields string, rest []Gap) {
	parent := func(g Gap) string { return g.Field[:strings.LastIndex(g.Field, ".")+1] }
	first := gaps[0]
	fields = "`" + first.Field + "`"
	for rest = gaps[1:]; len(rest) > 0; rest = rest[1:] {
		next := rest[0]
		if next.Kind != first.Kind || parent(next) != parent(first) || values(next) != values(first) || effect(next) != effect(first) {
			break
		}
		fields += ", `" + strings.TrimPrefix(next.Field, parent(first)) + "`"
	}
	return fields, rest
}

func values(gap Gap) string {
	if len(gap.Values) == 0 {
		return "any"
	}
	return strings.Join(gap.Values, ", ")
}

func effect(gap Gap) string {
	text := gap.Effect
	if gap.Subresource != "" {
		text += " (set through `" + gap.Subresource + "`)"
	}
	if gap.Quiet {
		text += " (no warning)"
	}
	return text
}

// byGroup lists kinds by the group and version that users write.
func byGroup(list []schema.GroupVersionKind) map[string][]string {
	groups := map[string][]string{}
	for _, kind := range list {
		name := kind.GroupVersion().String()
		groups[name] = append(groups[name], kind.Kind)
	}
	for _, kinds := range groups {
		slices.Sort(kinds)
	}
	return groups
}

// missing are the kinds of stable versions that are stored on Kubernetes, which those with a list are, and not served.
func missing(served []schema.GroupVersionKind, known *runtime.Scheme) []schema.GroupVersionKind {
	var lack []schema.GroupVersionKind
	for kind, t := range known.AllKnownTypes() {
		stable := !strings.ContainsAny(strings.TrimPrefix(kind.Version, "v"), "abcdefghijklmnopqrstuvwxyz_")
		listed := known.Recognizes(kind.GroupVersion().WithKind(kind.Kind + "List"))
		published := strings.HasPrefix(t.PkgPath(), "k8s.io/api/") // and not one of the machinery's own
		if published && stable && listed && !slices.Contains(served, kind) {
			lack = append(lack, kind)
		}
	}
	return lack
}
