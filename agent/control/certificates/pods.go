package certificates

import (
	"context"
	"fmt"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	certificateslisters "k8s.io/client-go/listers/certificates/v1"

	"github.com/podvine/podvine/agent/control/loop"
)

// podRequestMinutes is how long a pod's request is kept; a node's agent that still waits asks again. As in Kubernetes.
const podRequestMinutes = 15

// PodCleaner removes old requests for pods' certificates. Make it with [NewPodCleaner].
type PodCleaner struct {
	loop.Controller
	requests certificateslisters.PodCertificateRequestLister
}

// NewPodCleaner checks the configuration and asks the factory for its informer.
func NewPodCleaner(w loop.Wiring) (*PodCleaner, error) {
	if err := w.Check("pod certificate"); err != nil {
		return nil, err
	}
	requests := w.Informers.Certificates().V1().PodCertificateRequests()
	c := &PodCleaner{Controller: loop.NewController(w, "podcertificaterequestcleaner"), requests: requests.Lister()}
	return c, c.Drive(loop.Config{
		Name: "podcertificaterequestcleaner",
		Sources: []loop.Source{loop.On(requests.Informer(), func(old, new *certificatesv1.PodCertificateRequest) []string {
			if old != nil {
				return nil // its age alone counts
			}
			return []string{loop.Key(new)}
		})},
		All:       requests.Informer().GetIndexer().ListKeys,
		Reconcile: c.reconcile,
	})
}

func (c *PodCleaner) reconcile(ctx context.Context, key string) (time.Duration, error) {
	namespace, name, err := loop.SplitKey(key)
	if err != nil {
		return 0, err
	}
	request, err := c.requests.PodCertificateRequests(namespace).Get(name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if left := request.CreationTimestamp.Add(podRequestMinutes * time.Minute).Sub(time.Now()); left > 0 {
		return left, nil
	}
	only := metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &request.UID}}
	err = c.Client.CertificatesV1().PodCertificateRequests(namespace).Delete(ctx, name, only)
	if err != nil && !apierrors.IsNotFound(err) {
		return 0, fmt.Errorf("remove pod certificate request %s: %w", key, err)
	}
	return 0, nil
}
