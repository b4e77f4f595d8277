package lease_test

import (
	"testing"

	"github.com/podvine/podvine/agent/api/kinds/kindtest"
	"github.com/podvine/podvine/agent/api/kinds/lease"
)

func TestFields(t *testing.T) {
	kindtest.Run(t, kindtest.Table{
		Resource: lease.Resource(),
		Base:     `{metadata: {name: l, namespace: ns}, spec: {}}`,
		Rows: []kindtest.Row{
			{Field: "metadata.name", Class: kindtest.Invalid, Patch: `{metadata: {name: Upper}}`, Error: "Invalid metadata.name"},
			{Field: "spec.holderIdentity", Class: kindtest.Mutable, Patch: `{spec: {holderIdentity: h}}`},
			{Field: "spec.leaseDurationSeconds", Class: kindtest.Valid, Patch: `{spec: {leaseDurationSeconds: 1}}`},
			{Field: "spec.leaseDurationSeconds", Class: kindtest.Invalid, Patch: `{spec: {leaseDurationSeconds: 0}}`, Error: "Invalid spec.leaseDurationSeconds"},
			{Field: "spec.leaseDurationSeconds", Class: kindtest.Immutable, Patch: `{spec: {leaseDurationSeconds: -1}}`, Error: "Invalid spec.leaseDurationSeconds"},
			{Field: "spec.acquireTime", Class: kindtest.Valid, Patch: `{spec: {acquireTime: "2030-01-02T03:04:05.000006Z"}}`},
			{Field: "spec.renewTime", Class: kindtest.Mutable, Patch: `{spec: {renewTime: "2030-01-02T03:04:05.000006Z"}}`},
			{Field: "spec.leaseTransitions", Class: kindtest.Valid, Patch: `{spec: {leaseTransitions: 0}}`},
			{Field: "spec.leaseTransitions", Class: kindtest.Invalid, Patch: `{spec: {leaseTransitions: -1}}`, Error: "Invalid spec.leaseTransitions"},
			{Field: "spec.strategy", Class: kindtest.Dropped, Patch: `{spec: {strategy: OldestEmulationVersion}}`},
			{Field: "spec.preferredHolder", Class: kindtest.Dropped, Patch: `{spec: {preferredHolder: p}}`},
		},
	})
}
