package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/podvine/podvine/agent"
	"github.com/podvine/podvine/agent/pki"
)

func newKeysCommand(streams Streams) *cobra.Command {
	var output string
	command := &cobra.Command{
		Use:   "keys",
		Short: "Show the cluster's keys that rotate: of gossip, of Secrets, of service accounts' tokens",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			status, err := fetchKeys(command.Context(), nil)
			if err != nil {
				return err
			}
			return printKeys(streams, output, status)
		},
	}
	addOutputFlag(command, &output)
	command.AddCommand(newKeysRotate(streams))
	return command
}

func newKeysRotate(streams Streams) *cobra.Command {
	overlap := agent.DefaultTokenOverlap
	command := &cobra.Command{
		Use:   "rotate [gossip|data|tokens]…",
		Short: "Make new keys, of all kinds or of those that are named, while everything goes on",
		Long: `Makes new keys, of all kinds or of those that are named.

gossip  All living members take a new key and drop the old one at once. A member that is away gets it when it is back.
data    Secrets are sealed with a new key as soon as all replicas hold it, those that are there too. Old keys stay, because backups need them.
tokens  Tokens of service accounts are signed with a new key two minutes later. Tokens of the old keys stay valid for the overlap.

When a replica becomes an edge, the keys of data and tokens rotate by themselves.`,
		Args:      cobra.OnlyValidArgs,
		ValidArgs: agent.KeyKinds(),
		RunE: func(command *cobra.Command, kinds []string) error {
			if len(kinds) == 0 {
				kinds = agent.KeyKinds()
			}
			if _, err := fetchKeys(command.Context(), &agent.RotateRequest{Kinds: kinds, OverlapSeconds: int64(overlap / time.Second)}); err != nil {
				return err
			}
			fmt.Fprintf(streams.Out, "rotated: %s\n", strings.Join(kinds, ", "))
			return nil
		},
	}
	command.Flags().DurationVar(&overlap, "overlap", overlap, "how long tokens of the old keys stay valid")
	return command
}

// fetchKeys asks for the keys' status, after a rotation if one is wanted.
func fetchKeys(ctx context.Context, rotate *agent.RotateRequest) (status agent.KeysStatus, err error) {
	client, config, err := newClient()
	if err != nil {
		return status, err
	}
	request := client.CoreV1().RESTClient().Get()
	if rotate != nil {
		body, err := json.Marshal(rotate)
		if err != nil {
			return status, fmt.Errorf("encode the request: %w", err)
		}
		request = client.CoreV1().RESTClient().Post().Body(body)
	}
	result := request.AbsPath(agent.KeysPath).Do(ctx)
	if err := result.Error(); err != nil { // it reads the server's answer, which Raw would not
		return status, fmt.Errorf("keys of %s: %w", config.Host, err)
	}
	content, err := result.Raw()
	if err == nil {
		err = json.Unmarshal(content, &status)
	}
	if err != nil {
		return status, fmt.Errorf("read the keys' status of %s: %w", config.Host, err)
	}
	return status, nil
}

func printKeys(streams Streams, output string, status agent.KeysStatus) error {
	if output != "" && output != "wide" {
		return printAs(streams.Out, output, status)
	}
	age := func(made time.Time) string {
		if made.IsZero() {
			return "the cluster's"
		}
		return duration.HumanDuration(time.Since(made))
	}
	table := tabwriter.NewWriter(streams.Out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "KIND\tKEY\tAGE\tUSE")
	for i := range status.Gossip {
		fmt.Fprintf(table, "%s\t%d\t-\t%s\n", agent.KeysGossip, i+1, pick(i == 0, "encrypts", "decrypts"))
	}
	for _, key := range status.Data {
		use := pick(key.Seals, "seals", "opens")
		fmt.Fprintf(table, "%s\t%d\t%s\t%s\n", agent.KeysData, key.Number, age(key.Made), pick(key.Pending, "waits until all replicas have it", use))
	}
	now := time.Now()
	signing := slices.IndexFunc(status.Tokens, func(k pki.TokenKeyStatus) bool { return k.Signs })
	for i, key := range status.Tokens {
		use := pick(i < signing, "will sign", pick(i == signing, "signs", "verifies"))
		if key.Retires != nil {
			use += " for " + duration.HumanDuration(key.Retires.Sub(now))
		}
		fmt.Fprintf(table, "%s\t%.12s\t%s\t%s\n", agent.KeysTokens, key.ID, age(key.Made), use)
	}
	return table.Flush()
}

func pick(first bool, a, b string) string {
	if first {
		return a
	}
	return b
}
