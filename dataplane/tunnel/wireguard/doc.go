// Package wireguard says what a WireGuard device is to be, and makes the kernel's so. The device in user space, for
// kernels without one, is package userspace, which netd alone links.
//
// Role: [OpenKeys] keeps the node's private key, [Config] is the whole wanted state of a device, [Diff] what has to change,
// [Kernel] carries that out. Everything but keys and the kernel's device is pure.
//
// Ownership: the key file, and the device that Config.Link names.
//
// Concurrency: [Keys] and [Kernel] may be used by several goroutines.
package wireguard
