package nodeauth

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// account lets a node read the accounts of its pods and make tokens for them; admission limits which tokens.
func account(a *Authorizer, node string, attrs authorizer.Attributes) (bool, string) {
	switch attrs.GetSubresource() {
	case "":
		if attrs.GetVerb() != "get" {
			return false, "can only get individual service accounts"
		}
	case "token":
		if attrs.GetVerb() != "create" || attrs.GetName() == "" {
			return false, "can only create tokens for individual service accounts"
		}
	default:
		return false, "can only create token subresource of service account"
	}
	return related(accounts).decide(a, node, attrs)
}

// ownNode lets a node read its own object; admission limits which it writes.
func ownNode(_ *Authorizer, node string, attrs authorizer.Attributes) (bool, string) {
	verb := attrs.GetVerb()
	switch attrs.GetSubresource() {
	case "":
		switch {
		case verb == "create" || verb == "update" || verb == "patch":
			return true, ""
		case !reads(verb):
			return false, ""
		case attrs.GetName() == node:
			return true, ""
		case attrs.GetName() == "":
			return false, fmt.Sprintf("node '%s' cannot read all nodes, only its own Node object", node)
		}
		return false, fmt.Sprintf("node '%s' cannot read '%s', only its own Node object", node, attrs.GetName())
	case "status":
		return verb == "update" || verb == "patch", ""
	}
	return false, ""
}

// pod lets a node read the pods that are bound to it; admission limits which it writes.
func pod(a *Authorizer, node string, attrs authorizer.Attributes) (bool, string) {
	verb := attrs.GetVerb()
	switch attrs.GetSubresource() {
	case "":
		switch verb {
		case "get":
			return related(pods).get(a, node, attrs)
		case "list", "watch":
			if selectsNode(attrs, "spec.nodeName", node) {
				return true, ""
			}
			return false, "can only list/watch pods with spec.nodeName field selector"
		case "create", "delete":
			return true, ""
		}
	case "status":
		return verb == "update" || verb == "patch", ""
	case "eviction":
		return verb == "create", ""
	}
	return false, ""
}

// lease lets a node keep its own lease.
func lease(_ *Authorizer, node string, attrs authorizer.Attributes) (bool, string) {
	switch attrs.GetVerb() {
	case "get", "create", "update", "patch", "delete":
	default:
		return false, "can only get, create, update, patch, or delete a node lease"
	}
	if attrs.GetNamespace() != corev1.NamespaceNodeLease {
		return false, fmt.Sprintf("can only access leases in the %q system namespace", corev1.NamespaceNodeLease)
	}
	if attrs.GetVerb() != "create" && attrs.GetName() != node {
		return false, "can only access node lease with the same name as the requesting node"
	}
	return true, ""
}

// storageNode lets a node keep its own CSINode.
func storageNode(_ *Authorizer, node string, attrs authorizer.Attributes) (bool, string) {
	switch attrs.GetVerb() {
	case "get", "create", "update", "patch", "delete":
	default:
		return false, "can only get, create, update, patch, or delete a CSINode"
	}
	if attrs.GetSubresource() != "" {
		return false, "cannot authorize CSINode subresources"
	}
	if attrs.GetVerb() != "create" && attrs.GetName() != node {
		return false, "can only access CSINode with the same name as the requesting node"
	}
	return true, ""
}

// slice lets a node keep the ResourceSlices that name it.
func slice(a *Authorizer, node string, attrs authorizer.Attributes) (bool, string) {
	if attrs.GetSubresource() != "" {
		return false, "cannot authorize ResourceSlice subresources"
	}
	switch attrs.GetVerb() {
	case "create": // admission looks at the node that the object names
		return true, ""
	case "get", "update", "patch", "delete":
		return related(resourceSlices).decide(a, node, attrs)
	case "list", "watch", "deletecollection":
		if selectsNode(attrs, "spec.nodeName", node) {
			return true, ""
		}
		return false, "can only list/watch/deletecollection resourceslices with spec.nodeName field selector"
	}
	return false, "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection"
}

// certificateRequest lets a node ask for certificates of its pods; admission limits for which.
func certificateRequest(_ *Authorizer, node string, attrs authorizer.Attributes) (bool, string) {
	if attrs.GetSubresource() != "" {
		return false, "nodes may not access the subresources of PodCertificateRequests"
	}
	switch attrs.GetVerb() {
	case "create", "get":
		return true, ""
	case "list", "watch":
		if selectsNode(attrs, "spec.nodeName", node) {
			return true, ""
		}
		return false, "can only list/watch PodCertificateRequests with spec.nodeName field selector"
	}
	return false, "can only create, get, list, or watch PodCertificateRequests"
}
