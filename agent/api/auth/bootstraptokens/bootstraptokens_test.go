package bootstraptokens

import (
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

const token = "abcdef.0123456789abcdef"

func object(change func(*corev1.Secret)) *corev1.Secret {
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "bootstrap-token-abcdef"}, Type: "bootstrap.kubernetes.io/token",
		Data: map[string][]byte{"token-id": []byte("abcdef"), "token-secret": []byte("0123456789abcdef"), "usage-bootstrap-authentication": []byte("true")}}
	change(s)
	return s
}

func TestTokens(t *testing.T) {
	set := func(key, value string) func(*corev1.Secret) {
		return func(s *corev1.Secret) { s.Data[key] = []byte(value) }
	}
	at := func(d time.Duration) string { return time.Now().Add(d).Format(time.RFC3339) }
	const group = "system:bootstrappers"
	for name, c := range map[string]struct {
		token  string
		change func(*corev1.Secret)
		groups []string // nil is nobody
	}{
		"good":               {token, func(*corev1.Secret) {}, []string{group}},
		"with a group":       {token, set("auth-extra-groups", group+":workers,"+group+":a"), []string{group, group + ":a", group + ":workers"}},
		"with a great group": {token, set("auth-extra-groups", "system:masters"), nil},
		"not yet expired":    {token, set("expiration", at(time.Hour)), []string{group}},
		"expired":            {token, set("expiration", at(-time.Second)), nil},
		"expires somewhen":   {token, set("expiration", "soon"), nil},
		"another secret":     {"abcdef.0123456789abcdee", func(*corev1.Secret) {}, nil},
		"another ID":         {"abcdeg.0123456789abcdef", func(*corev1.Secret) {}, nil},
		"another ID inside":  {token, set("token-id", "abcdeg"), nil},
		"for joining only":   {token, set("usage-bootstrap-authentication", "false"), nil},
		"another type":       {token, func(s *corev1.Secret) { s.Type = corev1.SecretTypeOpaque }, nil},
		"being deleted":      {token, func(s *corev1.Secret) { s.DeletionTimestamp = &metav1.Time{Time: time.Now()} }, nil},
		"without a secret":   {token, func(s *corev1.Secret) { delete(s.Data, "token-secret") }, nil},
		"another form":       {"ABCDEF.0123456789abcdef", func(*corev1.Secret) {}, nil},
		"in another place":   {token, func(s *corev1.Secret) { s.Namespace = "default" }, nil},
	} {
		response, ok, err := Authenticator{fake.NewClientset(object(c.change))}.AuthenticateToken(t.Context(), c.token)
		if err != nil || ok != (c.groups != nil) {
			t.Errorf("%s: %v, %v", name, ok, err)
			continue
		}
		if ok && (response.User.GetName() != "system:bootstrap:abcdef" || !slices.Equal(response.User.GetGroups(), c.groups)) {
			t.Errorf("%s: %v", name, response.User)
		}
	}
}
