package join

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	bootstrapsecrets "k8s.io/cluster-bootstrap/util/secrets"
)

// expiredKept is how long a token is kept that lets nobody in any more, so that who uses it is told that it expired, and when.
const expiredKept = 10 * time.Minute

// RemoveExpired removes the Secrets of tokens whose time has been over for ten minutes, and returns the tokens' IDs.
func RemoveExpired(ctx context.Context, client kubernetes.Interface, now time.Time) (removed []string, err error) {
	objects := client.CoreV1().Secrets(metav1.NamespaceSystem)
	secrets, err := objects.List(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("type", secretType).String()})
	if err != nil {
		return nil, fmt.Errorf("list tokens: %w", err)
	}
	var errs []error
	for _, expired := range expired(secrets.Items, now) {
		// Only what was looked at: somebody may have made the token last longer since.
		only := metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &expired.UID, ResourceVersion: &expired.ResourceVersion}}
		err := objects.Delete(ctx, expired.Name, only)
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			errs = append(errs, fmt.Errorf("remove token: %w", err))
			continue
		}
		removed = append(removed, string(expired.Data[keyID]))
	}
	return removed, errors.Join(errs...)
}

// expired chooses the Secrets of bootstrap tokens, this package's and others', that have let nobody in for long enough. Pure.
func expired(secrets []corev1.Secret, now time.Time) (gone []*corev1.Secret) {
	for i := range secrets {
		if secrets[i].Type == secretType && bootstrapsecrets.HasExpired(&secrets[i], now.Add(-expiredKept)) {
			gone = append(gone, &secrets[i])
		}
	}
	return gone
}
