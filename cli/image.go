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
	"k8s.io/client-go/kubernetes"

	"github.com/podvine/podvine/agent"
)

func newImageCommand(streams Streams) *cobra.Command {
	command := &cobra.Command{Use: "image", Short: "Bring container images to the nodes without a registry"}
	command.AddCommand(newImageImport(streams), newImagePush(streams), newImageList(streams), newImageRemove(streams))
	return command
}

func newImageImport(streams Streams) *cobra.Command {
	var to []string
	command := &cobra.Command{
		Use:   "import FILE",
		Short: "Make the images of an OCI or docker archive available on every node (- reads the standard input)",
		Long: `Makes the images of an OCI or docker archive available on every node. The archive goes to one node; the others get what they lack from
each other, by digest. Nodes that are away now, or join later, do so when a pod asks for the image.

An imported image has precedence over a registry's of the same name, until ` + "`podvine image rm`" + `.`,
		Args: cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			file, err := archiveFile(streams.In, args[0])
			if err != nil {
				return err
			}
			return importFile(command.Context(), streams, file, to)
		},
	}
	addToFlag(command, &to)
	return command
}

func addToFlag(command *cobra.Command, to *[]string) {
	command.Flags().StringSliceVar(to, "to", nil, "nodes that get a copy now (default: all); others fetch theirs when a pod needs it")
}

// importFile imports an archive and closes it.
func importFile(ctx context.Context, streams Streams, file *os.File, to []string) error {
	defer file.Close()
	client, _, err := newClient()
	if err != nil {
		return err
	}
	return ImportImages(ctx, client, file, to, func(node string, images []string) {
		fmt.Fprintf(streams.Out, "%s: %s\n", node, strings.Join(images, ", "))
	})
}

// archiveFile opens the archive as a file. What comes from a pipe is kept in a temporary file that has no name any more, so that
// nothing begins before all of it is there.
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
	if err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	if err := errors.Join(err, os.Remove(file.Name())); err != nil {
		return nil, errors.Join(fmt.Errorf("keep the archive: %w", err), file.Close())
	}
	return file, nil
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
			held, err := heldImages(command.Context(), client, func(text string) { fmt.Fprintln(streams.Err, text) })
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

// heldImages asks the nodes that can be asked; notice hears of the others.
func heldImages(ctx context.Context, client kubernetes.Interface, notice func(string)) ([]heldImage, error) {
	ready, away, err := readyNodes(ctx, client)
	if err != nil {
		return nil, err
	}
	for _, node := range away {
		notice(fmt.Sprintf("%s is not ready: what it holds is not known now", node))
	}
	held := map[agent.Image][]string{}
	for _, node := range ready {
		content, err := onNode(client.CoreV1().RESTClient().Get(), node).DoRaw(ctx)
		if err != nil && ctx.Err() == nil { // it may have died a moment ago
			notice(fmt.Sprintf("%s cannot be asked: what it holds is not known now: %v", node, err))
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list images of %s: %w", node, err)
		}
		var images []agent.Image
		if err := json.Unmarshal(content, &images); err != nil {
			return nil, fmt.Errorf("list images of %s: read the answer: %w", node, err)
		}
		for _, image := range images {
			held[image] = append(held[image], node)
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
