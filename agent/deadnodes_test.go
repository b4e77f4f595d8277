package agent

import (
	"maps"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// believed is a Liveness: nodes that are not in it are not known.
type believed map[string]bool

func (b believed) Alive(name string) (bool, time.Time) {
	alive, known := b[name]
	if !known {
		return false, time.Time{}
	}
	return alive, time.Unix(1, 0)
}

func TestNodesThatNobodyHasHeardOfAreNotDead(t *testing.T) {
	var known []*corev1.Node
	for _, name := range []string{"self", "alive", "dead", "new"} {
		known = append(known, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}})
	}
	dead := deadOf(known, "self", believed{"self": false, "alive": true, "dead": false, "no node": false})
	if got := slices.Sorted(maps.Keys(dead)); !slices.Equal(got, []string{"dead"}) {
		t.Errorf("dead are %v, want the dead one", got)
	}
}
