package secret_test

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/podvine/podvine/agent/api/kinds"
	. "github.com/podvine/podvine/agent/api/kinds/kindtest"
	"github.com/podvine/podvine/agent/api/kinds/secret"
)

const locked = `{metadata: {name: s, namespace: ns}, immutable: true, data: {k: AAA=}}`

func typed(name, data string) string {
	return `{metadata: {name: s, namespace: ns}, type: ` + name + `, data: {` + data + `}}`
}

func TestFields(t *testing.T) {
	Run(t, Table{
		Resource: secret.Resource(),
		Base:     `{metadata: {name: s, namespace: ns}, data: {k: AAA=}}`,
		Rows: []Row{
			{Field: "data", Class: Mutable, Patch: `{data: {k: AAE=}}`},
			{Field: "data", Class: Invalid, Patch: `{data: {"bad key!": AAA=}}`, Error: "Invalid data[bad key!]"},
			{Field: "data", Class: Immutable, Base: locked, Patch: `{data: {k: AAE=}}`, Error: "Forbidden data"},
			{Field: "stringData", Class: Dropped, Patch: `{stringData: {a: b}}`},
			{Field: "stringData", Class: Defaulted, Patch: `{stringData: {a: b, k: c}}`, Want: `{data: {a: Yg==, k: Yw==}}`},
			{Field: "immutable", Class: Mutable, Patch: `{immutable: true}`},
			{Field: "immutable", Class: Immutable, Base: locked, Patch: `{immutable: false}`, Error: "Forbidden immutable"},
			{Field: "type", Class: Defaulted, Want: `{type: Opaque}`},
			{Field: "type", Class: Valid, Base: typed("example.com/any", "")},
			{Field: "type", Class: Immutable, Patch: `{type: example.com/other}`, Error: "Invalid type"},
			{Field: "type", Class: Invalid, Base: typed("kubernetes.io/service-account-token", ""), Error: "Required metadata.annotations[kubernetes.io/service-account.name]"},
			{Field: "type", Class: Valid, Base: typed("kubernetes.io/service-account-token", ""), Patch: `{metadata: {annotations: {kubernetes.io/service-account.name: a}}}`},
			{Field: "type", Class: Invalid, Base: typed("kubernetes.io/dockercfg", ""), Error: "Required data[.dockercfg]"},
			{Field: "type", Class: Valid, Base: typed("kubernetes.io/dockercfg", ".dockercfg: e30=")},
			{Field: "type", Class: Invalid, Base: typed("kubernetes.io/dockerconfigjson", ".dockerconfigjson: Zm9v"), Error: "Invalid data[.dockerconfigjson]"},
			{Field: "type", Class: Invalid, Base: typed("kubernetes.io/basic-auth", ""), Error: "Required data[password]; Required data[username]"},
			{Field: "type", Class: Valid, Base: typed("kubernetes.io/basic-auth", "username: AAA=")},
			{Field: "type", Class: Invalid, Base: typed("kubernetes.io/ssh-auth", `ssh-privatekey: ""`), Error: "Required data[ssh-privatekey]"},
			{Field: "type", Class: Invalid, Base: typed("kubernetes.io/tls", "tls.crt: AAA="), Error: "Required data[tls.key]"},
			{Field: "type", Class: Valid, Base: typed("kubernetes.io/tls", "tls.crt: AAA=, tls.key: AAA=")},
		},
	})
}

func TestWarnsOfKeyThatDoesNotFit(t *testing.T) {
	kind := secret.Resource().(*kinds.Kind[*corev1.Secret])
	broken := &corev1.Secret{Type: corev1.SecretTypeTLS, Data: map[string][]byte{"tls.crt": nil, "tls.key": nil}}
	if got := kind.WarningsOnCreate(context.Background(), broken); len(got) != 1 {
		t.Errorf("warnings %q, want one", got)
	}
	if got := kind.WarningsOnCreate(context.Background(), &corev1.Secret{Type: corev1.SecretTypeOpaque}); got != nil {
		t.Errorf("warnings %q, want none", got)
	}
}
