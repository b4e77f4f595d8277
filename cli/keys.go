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
		Short: "Show the cluster's keys that rotate: of gossip, of Secrets, of service accounts' tokens, of certificates",
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
	overlap, authorities := agent.DefaultTokenOverlap, false
	command := &cobra.Command{
		Use:   "rotate [gossip|data|tokens]… [--ca]",
		Short: "Make new keys, of all kinds or of those that are named, while everything goes on",
		Long: `Makes new keys, of all kinds or of those that are named; with --ca alone, only a new CA.

gossip  All living members take a new key and drop the old one at once. A member that is away gets it when it is back.
data    Secrets are sealed with a new key as soon as all replicas hold it, those that are there too. Old keys stay, because backups need them.
tokens  Tokens of service accounts are signed with a new key two minutes later. Tokens of the old keys stay valid for the overlap.
--ca    The authorities that certify members, users and the front proxy. First all members trust the new ones beside the old ones, and users
        get certificates and kubeconfigs of the new one. When the overlap is over, all members get certificates of the new ones, without
        a restart, and then the old ones are trusted no more. "podvine keys" shows how far it is. Until then replace the kubeconfigs that you gave
        away, and start programs in pods anew that read the CA only at their start. A machine that was away for the whole overlap must join again.

When a replica becomes an edge, the keys of data and tokens rotate by themselves; the CA does not, because users would notice.`,
		Args:      cobra.OnlyValidArgs,
		ValidArgs: agent.KeyKinds(),
		RunE: func(command *cobra.Command, kinds []string) error {
			switch {
			case authorities:
				kinds = append(kinds, agent.KeysCA)
			case len(kinds) == 0:
				kinds = agent.KeyKinds()
			}
			if _, err := fetchKeys(command.Context(), &agent.RotateRequest{Kinds: kinds, OverlapSeconds: int64(overlap / time.Second)}); err != nil {
				return err
			}
			if done := slices.DeleteFunc(kinds, func(kind string) bool { return kind == agent.KeysCA }); len(done) > 0 {
				fmt.Fprintf(streams.Out, "rotated: %s\n", strings.Join(done, ", "))
			}
			if authorities {
				fmt.Fprintln(streams.Out, "the CA rotates: `podvine keys` shows how far it is")
			}
			return nil
		},
	}
	command.Flags().DurationVar(&overlap, "overlap", overlap, "how long tokens of the old keys stay valid, and the CA of before")
	command.Flags().BoolVar(&authorities, "ca", false, "rotate the authorities of certificates")
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
	for _, authority := range status.Authorities {
		use := "is trusted"
		switch {
		case authority.Members && authority.Users:
			use = "certifies"
		case authority.Members:
			use = "certifies members"
		case authority.Users:
			use = "certifies users"
		}
		fmt.Fprintf(table, "%s\t%.12s\t%s\t%s\n", agent.KeysCA, authority.ID, age(authority.Made), use)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if status.Rotation != nil {
		fmt.Fprintf(streams.Out, "\nthe CA rotates: %s: %s\n", status.Rotation.Stage, status.Rotation)
	}
	return nil
}

func pick(first bool, a, b string) string {
	if first {
		return a
	}
	return b
}
