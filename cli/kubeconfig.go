package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/podvine/podvine/agent"
	"github.com/podvine/podvine/agent/pki/localissuer"
)

const (
	// defaultUserTTL is how long a certificate of a lesser user lives unless --ttl says otherwise.
	defaultUserTTL = 24 * time.Hour
	// localTTL is how long the certificate of a member of the group podvine lives.
	localTTL = localissuer.DefaultLifetimeHours * time.Hour
	// localTimeout bounds the wait for the agent of this machine.
	localTimeout = 5 * time.Second
)

func newKubeconfigCommand(streams Streams) *cobra.Command {
	asked := agent.KubeconfigRequest{}
	ttl := defaultUserTTL
	command := &cobra.Command{
		Use:   "kubeconfig",
		Short: "Print a kubeconfig: your own, or with --user that of a lesser user",
		Long: `Prints a kubeconfig. Without --user it is your own: for root the administrator's, for a member of the group podvine
one with a certificate for a few hours. With --user it holds a certificate for that name and those groups, which have
the rights that RBAC gives them; only administrators may make one.

It has a context for each member, by the node's name; the current one, podvine, leads to the member that made it. That
of a lesser user is called USER@podvine too, so that it can be chosen where kubeconfigs are joined.`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			content, err := ownKubeconfig(command.Context())
			if asked.User != "" {
				asked.TTLSeconds = int64(ttl / time.Second)
				content, err = lesserKubeconfig(command.Context(), asked)
			}
			if err != nil {
				return err
			}
			_, err = streams.Out.Write(content)
			return err
		},
	}
	command.Flags().StringVar(&asked.User, "user", "", "name of the user")
	command.Flags().StringSliceVar(&asked.Groups, "group", nil, "groups of the user")
	command.Flags().DurationVar(&ttl, "ttl", defaultUserTTL, "how long the user's certificate lives")
	return command
}

// lesserKubeconfig asks the API for the kubeconfig of another user. It leads to the address through which it was asked, since
// that is known to work from here.
func lesserKubeconfig(ctx context.Context, asked agent.KubeconfigRequest) ([]byte, error) {
	client, config, err := newClient()
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(asked)
	if err != nil {
		return nil, fmt.Errorf("encode the request: %w", err)
	}
	result := client.CoreV1().RESTClient().Post().AbsPath(agent.KubeconfigPath).Body(body).Do(ctx)
	if err := result.Error(); err != nil { // it reads the server's answer, which Raw would not
		return nil, fmt.Errorf("make a kubeconfig for %s: %w", asked.User, err)
	}
	content, err := result.Raw()
	if err != nil {
		return nil, fmt.Errorf("make a kubeconfig for %s: %w", asked.User, err)
	}
	made, err := clientcmd.Load(content)
	if err != nil {
		return nil, fmt.Errorf("read the kubeconfig for %s: %w", asked.User, err)
	}
	if current := made.Contexts[made.CurrentContext]; current != nil {
		made.Clusters[current.Cluster].Server = config.Host
		// A context that bears the user's name is found beside the administrator's, where files are joined.
		own := asked.User + "@" + made.CurrentContext
		made.Contexts[own], made.CurrentContext = current, own
	}
	return clientcmd.Write(*made)
}

// ownKubeconfig is the administrator's for root, and a short-lived one for members of the group podvine.
func ownKubeconfig(ctx context.Context) ([]byte, error) {
	content, err := os.ReadFile(filepath.Join(agent.DefaultConfig().ConfigDir, "admin.kubeconfig"))
	if err == nil {
		return content, nil
	}
	ctx, cancel := context.WithTimeout(ctx, localTimeout)
	defer cancel()
	content, localErr := localissuer.Request(ctx, agent.IssuerSocket, localTTL)
	if localErr != nil {
		return nil, errors.Join(fmt.Errorf("find this machine's kubeconfig: %w", localErr), err)
	}
	return content, nil
}

// userKubeconfig keeps a short-lived kubeconfig for a user who may not read the administrator's, and returns its path. It
// lies in the user's own cache folder and is made anew when it is older than half of its life.
func userKubeconfig() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the user's cache folder: %w", err)
	}
	path := filepath.Join(cache, "podvine", "kubeconfig")
	if info, err := os.Stat(path); err == nil && time.Since(info.ModTime()) < localTTL/2 {
		return path, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), localTimeout)
	defer cancel()
	content, err := localissuer.Request(ctx, agent.IssuerSocket, localTTL)
	if err != nil {
		return "", fmt.Errorf("get a kubeconfig from this machine's agent: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", fmt.Errorf("keep the kubeconfig: %w", err)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		return "", fmt.Errorf("keep the kubeconfig: %w", err)
	}
	return path, nil
}
