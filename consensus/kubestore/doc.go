// Package kubestore is the Kubernetes API server's storage over a replica: k8s.io/apiserver's storage.Interface without
// etcd and without its Cacher.
//
// Role. [New] makes a [Backend] of a replica; its [Backend.Decorator] goes into the API server's RESTOptions, and
// [Backend.ListerWatcher] feeds informers of the same process. A resource is a table of the replica's store, by its
// resource prefix.
//
// Sharing. The stored bytes are the truth. Beside an entry hangs its decoded form, one for all readers, bounded as a whole
// and never changed: what a caller gets is a shallow copy, so it may set top-level fields and metadata, as callers of the
// Cacher may, but must not write through its maps, slices and pointers. Only the object that an update function is given
// is the caller's own. What a caller hands in is never published: the decoded form is read back from the bytes. Custom
// resources are decoded for each reader, because their codec differs by version.
//
// Watch events carry a runtime.CacheableObject, so that an event is encoded once for all who watch in the same format.
// Watches are found by what they are about: a key, a namespace, the value of a field. Those of other topics do not wake up.
//
// Encryption. A resource's transformer works between the bytes of the codec and those of the log; the store, its history
// and snapshots hold its output only. See package sealing.
//
// Without a quorum reads are served from the replica's own copy, but for leases, and the client gets a warning.
//
// Concurrency. All methods may be called from any goroutine. Each watch has one goroutine that ends with its context or Stop,
// and each resource that is watched has one that hands out its events.
//
// Test with `go test ./consensus/kubestore`, which runs the suite that k8s.io/apiserver publishes.
package kubestore
