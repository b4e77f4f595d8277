package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/podvine/podvine/agent"
)

func newImageCommand(streams Streams) *cobra.Command {
	command := &cobra.Command{Use: "image", Short: "Bring container images to the nodes without a registry"}
	command.AddCommand(newImageImport(streams), newImageList(streams))
	return command
}

func newImageImport(streams Streams) *cobra.Command {
	return &cobra.Command{
		Use:   "import FILE",
		Short: "Make the images of an OCI or docker archive available on every node (- reads the standard input)",
		Args:  cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			client, _, err := newClient()
			if err != nil {
				return err
			}
			file, err := archiveFile(streams.In, args[0])
			if err != nil {
				return err
			}
			defer file.Close()
			return ImportImages(command.Context(), client, file, func(node string, images []string) {
				fmt.Fprintf(streams.Out, "%s: %s\n", node, strings.Join(images, ", "))
			})
		},
	}
}

// archiveFile opens the archive as a file that can be read once for each node. What comes from a pipe is kept in a
// temporary file that has no name any more.
func archiveFile(in io.Reader, path string) (*os.File, error) {
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("open the archive: %w", err)
		}
		return file, nil
	}
	file, err := os.CreateTemp("", "podvine-image-")
	if err != nil {
		return nil, fmt.Errorf("keep the archive: %w", err)
	}
	_, err = io.Copy(file, in)
	if err := errors.Join(err, os.Remove(file.Name())); err != nil {
		return nil, errors.Join(fmt.Errorf("keep the archive: %w", err), file.Close())
	}
	return file, nil
}

// ImportImages sends the archive to every node and calls done with the names that each has imported.
func ImportImages(ctx context.Context, client kubernetes.Interface, archive io.ReadSeeker, done func(node string, images []string)) error {
	nodes, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("list nodes: %w", err)
	}
	if len(nodes.Items) == 0 {
		return errors.New("import images: the cluster has no nodes yet")
	}
	for _, node := range nodes.Items {
		if _, err := archive.Seek(0, io.SeekStart); err != nil {
			return fmt.Errorf("read the archive: %w", err)
		}
		content, err := onNode(client.CoreV1().RESTClient().Post(), node.Name).Body(io.NopCloser(archive)).SetHeader("Content-Type", "application/x-tar").DoRaw(ctx)
		if err != nil {
			return fmt.Errorf("import images on %s: %w", node.Name, err)
		}
		var imported []string
		if err := json.Unmarshal(content, &imported); err != nil {
			return fmt.Errorf("import images on %s: read the answer: %w", node.Name, err)
		}
		done(node.Name, imported)
	}
	return nil
}

// onNode directs a request at the node's list of images, through the API server.
func onNode(request *rest.Request, node string) *rest.Request {
	return request.Resource("nodes").Name(node).SubResource("proxy").Suffix(agent.ImagesPath)
}

// heldImage is an image and the nodes that hold it.
type heldImage struct {
	agent.Image
	Nodes []string `json:"nodes"`
}

func newImageList(streams Streams) *cobra.Command {
	var output string
	command := &cobra.Command{
		Use:   "ls",
		Short: "List the images that the nodes hold, and which node holds what",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			client, _, err := newClient()
			if err != nil {
				return err
			}
			held, err := heldImages(command.Context(), client)
			if err != nil {
				return err
			}
			if output != "" && output != "wide" {
				return printAs(streams.Out, output, held)
			}
			table := tabwriter.NewWriter(streams.Out, 0, 0, 3, ' ', 0)
			fmt.Fprintln(table, "IMAGE\tDIGEST\tSIZE\tNODES")
			for _, image := range held {
				digest := image.Digest
				if output != "wide" {
					digest = shortDigest(digest)
				}
				fmt.Fprintf(table, "%s\t%s\t%.1f MB\t%s\n", image.Name, digest, float64(image.SizeBytes)/1e6, strings.Join(image.Nodes, ","))
			}
			return table.Flush()
		},
	}
	addOutputFlag(command, &output)
	return command
}

func heldImages(ctx context.Context, client kubernetes.Interface) ([]heldImage, error) {
	nodes, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list nodes: %w", err)
	}
	held := map[agent.Image][]string{}
	for _, node := range nodes.Items {
		content, err := onNode(client.CoreV1().RESTClient().Get(), node.Name).DoRaw(ctx)
		if err != nil {
			return nil, fmt.Errorf("list images of %s: %w", node.Name, err)
		}
		var images []agent.Image
		if err := json.Unmarshal(content, &images); err != nil {
			return nil, fmt.Errorf("list images of %s: read the answer: %w", node.Name, err)
		}
		for _, image := range images {
			held[image] = append(held[image], node.Name)
		}
	}
	list := make([]heldImage, 0, len(held))
	for image, on := range held {
		list = append(list, heldImage{image, on})
	}
	slices.SortFunc(list, func(a, b heldImage) int { return strings.Compare(a.Name+a.Digest, b.Name+b.Digest) })
	return list, nil
}

// shortDigest keeps as much of a digest as tells images apart.
func shortDigest(digest string) string {
	const length = len("sha256:") + 12
	if len(digest) > length {
		return digest[:length]
	}
	return digest
}
