package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"
	authuser "k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/kubernetes"
)

// authoritiesName is the ConfigMap in kube-system that says how far a rotation of the cluster's authorities is. It holds no secret: members
// are told certificates, and replicas keys, by the leader.
const authoritiesName = "podvine-authorities"

const (
	rotationStage       = "stage"
	rotationSince       = "since"
	rotationOverlap     = "overlap"
	rotationPredecessor = "predecessor"
	rotationSuccessor   = "successor"
	rotationRetire      = "retire"
	rotationRetired     = "retired"
	rotationWaiting     = "waiting"
)

func (r rotation) data() map[string]string {
	data := map[string]string{rotationStage: r.Stage, rotationRetired: strings.Join(r.Retired, ",")}
	if r.Stage != "" {
		data[rotationSince], data[rotationOverlap] = r.Since.UTC().Format(time.RFC3339Nano), r.Overlap.String()
		data[rotationPredecessor], data[rotationSuccessor] = r.Predecessor, r.Successor
		data[rotationRetire], data[rotationWaiting] = strings.Join(r.Retire, ","), strings.Join(r.Waiting, ",")
	}
	return data
}

func readRotation(object *corev1.ConfigMap) (r rotation, err error) {
	list := func(key string) []string {
		return strings.FieldsFunc(object.Data[key], func(r rune) bool { return r == ',' })
	}
	r = rotation{
		Stage: object.Data[rotationStage], Predecessor: object.Data[rotationPredecessor], Successor: object.Data[rotationSuccessor],
		Retire: list(rotationRetire), Retired: list(rotationRetired), Waiting: list(rotationWaiting),
	}
	if r.Stage == "" {
		return rotation{Retired: r.Retired}, nil
	}
	var errs []error
	if r.Since, err = time.Parse(time.RFC3339Nano, object.Data[rotationSince]); err != nil {
		errs = append(errs, err)
	}
	if r.Overlap, err = time.ParseDuration(object.Data[rotationOverlap]); err != nil {
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return rotation{}, fmt.Errorf("read the rotation of authorities: %w", err)
	}
	return r, nil
}

// rotationRecord is a rotation with the object that holds it; nil while there is none.
type rotationRecord struct {
	rotation
	object *corev1.ConfigMap
}

func getRotation(ctx context.Context, client kubernetes.Interface) (rotationRecord, error) {
	object, err := client.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(ctx, authoritiesName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return rotationRecord{}, nil
	}
	if err != nil {
		return rotationRecord{}, fmt.Errorf("read the rotation of authorities: %w", err)
	}
	read, err := readRotation(object)
	return rotationRecord{read, object}, err
}

// put records what differs; another writer in between is an error.
func (r rotationRecord) put(ctx context.Context, client kubernetes.Interface, next rotation) error {
	if r.equal(next) {
		return nil
	}
	objects := client.CoreV1().ConfigMaps(metav1.NamespaceSystem)
	var err error
	if r.object == nil {
		_, err = objects.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: authoritiesName}, Data: next.data()}, metav1.CreateOptions{})
	} else {
		object := r.object.DeepCopy()
		object.Data = next.data()
		_, err = objects.Update(ctx, object, metav1.UpdateOptions{})
	}
	if err != nil {
		return fmt.Errorf("record the rotation of authorities: %w", err)
	}
	return nil
}

// guardRotation keeps everybody but the agents from writing the record: it decides what is trusted when.
func guardRotation(a admission.Attributes) error {
	name := a.GetName()
	if object, ok := a.GetObject().(*corev1.ConfigMap); ok {
		name = object.Name
	} else if old, ok := a.GetOldObject().(*corev1.ConfigMap); ok {
		name = old.Name
	}
	if name != authoritiesName || a.GetUserInfo().GetName() == authuser.APIServerUser {
		return nil
	}
	return admission.NewForbidden(a, errors.New("the leader alone writes how far the rotation of authorities is: begin one with `podvine keys rotate --ca`"))
}
