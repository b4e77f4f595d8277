package images

import (
	"errors"
	"fmt"
	"testing"
)

// A pull that failed with every secret tells of each, in their order; alike ones once. One that stalled asks no more.
func TestEachCredentialIsTold(t *testing.T) {
	alice, bob, carol := Credential{Username: "alice"}, Credential{Username: "bob"}, Credential{Username: "carol"}
	refused := func(c Credential) error { return fmt.Errorf("%s is refused", c.Username) }
	for name, c := range map[string]struct {
		pull func(Credential) error
		want string
		is   error
	}{
		"all refused": {refused, "[alice is refused, bob is refused, carol is refused]", nil},
		"all alike":   {func(Credential) error { return errors.New("no such image") }, "no such image", nil},
		"stalled": {func(c Credential) error {
			if c == bob {
				return fmt.Errorf("bob: %w", ErrStalled)
			}
			return refused(c)
		}, "[alice is refused, bob: the registry sends nothing]", ErrStalled},
		"the last does": {func(c Credential) error {
			if c == carol {
				return nil
			}
			return refused(c)
		}, "", nil},
	} {
		err := eachCredential([]Credential{alice, bob, carol}, c.pull)
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != c.want || c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
