package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/client-go/kubernetes"

	"github.com/podvine/podvine/agent/join"
)

const (
	// defaultTokenTTL is how long a token lets machines join unless --ttl says otherwise.
	defaultTokenTTL = time.Hour
	maxTokenTTL     = 365 * 24 * time.Hour
)

func newTokenCommand(streams Streams) *cobra.Command {
	command := &cobra.Command{
		Use:   "token",
		Short: "Make, list and revoke the tokens with which machines join",
	}
	command.AddCommand(newTokenCreate(streams), newTokenList(streams), newTokenRevoke(streams))
	return command
}

func newTokenCreate(streams Streams) *cobra.Command {
	ttl, description := defaultTokenTTL, ""
	command := &cobra.Command{
		Use:   "create",
		Short: "Make a token and print it; it is shown only now",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			client, _, err := newClient()
			if err != nil {
				return err
			}
			token, err := createToken(command.Context(), client, ttl, description)
			if err != nil {
				return err
			}
			fmt.Fprintln(streams.Out, token.String())
			return nil
		},
	}
	command.Flags().DurationVar(&ttl, "ttl", ttl, "how long the token is valid")
	command.Flags().StringVar(&description, "description", "", "what the token is for")
	return command
}

// createToken asks for the CA over the client's own connection, because the kubeconfig may hold those of before or after a rotation.
func createToken(ctx context.Context, client kubernetes.Interface, ttl time.Duration, description string) (join.Token, error) {
	if ttl <= 0 || ttl > maxTokenTTL {
		return join.Token{}, fmt.Errorf("--ttl: %s is not between a second and a year", ttl)
	}
	bundle, err := client.CoreV1().RESTClient().Get().AbsPath(join.CAPath).DoRaw(ctx)
	if err != nil {
		return join.Token{}, fmt.Errorf("make a token: ask for the cluster's CA certificate, which the token names: %w", err)
	}
	return join.CreateToken(ctx, client, bundle, time.Now().Add(ttl), description)
}

// TokenStatus is a token as `podvine token list` shows it, without its secret.
type TokenStatus struct {
	ID          string    `json:"id"`
	Expires     time.Time `json:"expires"`
	Description string    `json:"description,omitempty"`
}

func newTokenList(streams Streams) *cobra.Command {
	var output string
	command := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the tokens, without their secrets",
		Args:    cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			client, _, err := newClient()
			if err != nil {
				return err
			}
			tokens, err := listTokens(command.Context(), client)
			if err != nil {
				return err
			}
			if output != "" && output != "wide" {
				return printAs(streams.Out, output, tokens)
			}
			table := tabwriter.NewWriter(streams.Out, 0, 0, 3, ' ', 0)
			fmt.Fprintln(table, "TOKEN\tVALID\tDESCRIPTION")
			for _, token := range tokens {
				valid := "expired"
				if left := time.Until(token.Expires); left > 0 {
					valid = duration.HumanDuration(left)
				}
				fmt.Fprintf(table, "%s\t%s\t%s\n", token.ID, valid, token.Description)
			}
			return table.Flush()
		},
	}
	addOutputFlag(command, &output)
	return command
}

func listTokens(ctx context.Context, client kubernetes.Interface) ([]TokenStatus, error) {
	secrets, err := client.CoreV1().Secrets(metav1.NamespaceSystem).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list tokens: %w", err)
	}
	tokens := []TokenStatus{}
	for i := range secrets.Items {
		if grant, ok := join.GrantOf(&secrets.Items[i]); ok {
			tokens = append(tokens, TokenStatus{ID: grant.ID, Expires: grant.Expires, Description: grant.Description})
		}
	}
	slices.SortFunc(tokens, func(a, b TokenStatus) int { return a.Expires.Compare(b.Expires) })
	return tokens, nil
}

func newTokenRevoke(streams Streams) *cobra.Command {
	return &cobra.Command{
		Use:   "revoke TOKEN…",
		Short: "Revoke tokens, named by their ID or whole; members that have joined stay",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			client, _, err := newClient()
			if err != nil {
				return err
			}
			for _, text := range args {
				id, _, _ := strings.Cut(text, ".")
				err := client.CoreV1().Secrets(metav1.NamespaceSystem).Delete(command.Context(), join.SecretName(id), metav1.DeleteOptions{})
				if apierrors.IsNotFound(err) {
					return fmt.Errorf("revoke token %s: there is none: `podvine token list` shows them", id)
				}
				if err != nil {
					return fmt.Errorf("revoke token %s: %w", id, err)
				}
				fmt.Fprintf(streams.Out, "token %s revoked\n", id)
			}
			return nil
		},
	}
}
