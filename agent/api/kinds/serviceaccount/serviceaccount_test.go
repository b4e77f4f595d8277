package serviceaccount_test

import (
	"testing"

	. "github.com/podvine/podvine/agent/api/kinds/kindtest"
	"github.com/podvine/podvine/agent/api/kinds/serviceaccount"
)

func TestFields(t *testing.T) {
	const reference = `{secrets: [{kind: Secret, namespace: other, name: s, uid: u, apiVersion: v1, resourceVersion: "1", fieldPath: p}]}`
	Run(t, Table{
		Resource: serviceaccount.Resource(),
		Base:     `{metadata: {name: a, namespace: ns}}`,
		Rows: []Row{
			{Field: "metadata.name", Class: Invalid, Patch: `{metadata: {name: a_b}}`, Error: "Invalid metadata.name"},
			{Field: "secrets[].name", Class: Mutable, Patch: `{secrets: [{name: s}]}`},
			{Field: "secrets[].kind", Class: Dropped, Patch: reference},
			{Field: "secrets[].namespace", Class: Dropped, Patch: reference},
			{Field: "secrets[].uid", Class: Dropped, Patch: reference},
			{Field: "secrets[].apiVersion", Class: Dropped, Patch: reference},
			{Field: "secrets[].resourceVersion", Class: Dropped, Patch: reference},
			{Field: "secrets[].fieldPath", Class: Dropped, Patch: reference},
			{Field: "imagePullSecrets[].name", Class: Mutable, Patch: `{imagePullSecrets: [{name: s}]}`},
			{Field: "automountServiceAccountToken", Class: Mutable, Patch: `{automountServiceAccountToken: false}`},
		},
	})
}
