package podtemplate

import (
	"testing"

	"github.com/podvine/podvine/agent/api/kinds/kindtest"
)

func TestFields(t *testing.T) {
	kindtest.Run(t, kindtest.Table{
		Resource:  Resource(),
		Base:      `{metadata: {name: t, namespace: ns}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: example.com/app}]}}}`,
		Elsewhere: map[string]string{"template": "package pod"},
		Rows: []kindtest.Row{
			{Field: "template", Class: kindtest.Defaulted, Want: `{"template":{"spec":{"dnsPolicy":"ClusterFirst","restartPolicy":"Always"}}}`},
			{Field: "template", Class: kindtest.Invalid, Patch: `{"template":{"spec":{"containers":[]}}}`, Error: "Required template.spec.containers"},
			{Field: "template", Class: kindtest.Mutable, Patch: `{"template":{"spec":{"hostname":"h"}}}`},
		},
	})
}
