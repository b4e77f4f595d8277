package api_test

import (
	"fmt"
	"testing"

	"github.com/podvine/podvine/agent/api/apitest"
	"github.com/podvine/podvine/agent/api/apitest/kubectl"
)

const classes = `
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: usual, annotations: {storageclass.kubernetes.io/is-default-class: "true"}}
provisioner: example.com/none
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: usual, annotations: {ingressclass.kubernetes.io/is-default-class: "true"}}
spec: {controller: example.com/none}
`

const unclassed = `
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: c}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: i}
spec: {defaultBackend: {service: {name: s, port: {number: 80}}}}
`

func testDefaultClasses(t *testing.T, _ *apitest.Cluster, k *kubectl.Kubectl) {
	ns := namespace(t, k, "classes")
	k.Run(t, classes, "create", "-f", "-")
	defer k.Run(t, classes, "delete", "-f", "-")
	apitest.Eventually(t, "the default classes count", func() error {
		said, err := k.Try(t, unclassed, "create", ns, "-f", "-", "--dry-run=server", "-o", "jsonpath={.spec.storageClassName}{.spec.ingressClassName} ")
		if err == nil && said != "usual usual " {
			err = fmt.Errorf("the classes are %q", said)
		}
		return err
	})
}
