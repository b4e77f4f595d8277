// Package software runs other people's software, as they publish it, on a lab of three hosts: Helm with a chart, a manager of
// controller-runtime with webhooks, the leader election of client-go, an API server of its own behind an APIService, metrics-server
// and kwok. It holds tests only, in a module of its own, so that Podvine depends on none of these. The test's own binary plays the
// programs that are written against the libraries (see roles): an image is made of it, and pods run it.
package software
