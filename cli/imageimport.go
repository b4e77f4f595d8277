package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/retry"

	"github.com/podvine/podvine/agent"
	"github.com/podvine/podvine/agent/pods/images"
)

const (
	// imageKeepers is how many nodes never remove an imported image to gain space.
	imageKeepers = 3
	// parallelCopies bounds the nodes that are told to fetch an image at a time.
	parallelCopies = 8
)

// ImportImages sends the archive to one node, writes down for the cluster what is in it, and has the other nodes fetch it from each
// other: those named in to, or all that are ready. done is called with the names that each node has, from one goroutine at a time.
func ImportImages(ctx context.Context, client kubernetes.Interface, archive io.Reader, to []string, done func(node string, images []string)) error {
	ready, away, err := readyNodes(ctx, client)
	if err != nil {
		return err
	}
	for _, node := range to {
		if !slices.Contains(ready, node) {
			return fmt.Errorf("import images: there is no node %s that is ready", node)
		}
	}
	if len(to) > 0 {
		ready, away = to, nil
	}
	if len(ready) == 0 {
		return errors.New("import images: the cluster has no node that is ready")
	}
	content, err := onNode(client.CoreV1().RESTClient().Post(), ready[0]).Body(archive).SetHeader("Content-Type", "application/x-tar").DoRaw(ctx)
	if err != nil {
		return fmt.Errorf("import images on %s: %w", ready[0], err)
	}
	var records []images.Record
	if err := json.Unmarshal(content, &records); err != nil {
		return fmt.Errorf("import images on %s: read the answer: %w", ready[0], err)
	}
	var names []string
	for i := range records {
		records[i].Keepers = ready[:min(len(ready), imageKeepers)]
		names = append(names, records[i].Name)
	}
	if err := changeImported(ctx, client, func(data map[string]string) error { return addRecords(data, records) }); err != nil {
		return err
	}
	done(ready[0], names)
	for _, node := range away {
		done(node, []string{"not ready, it fetches them when a pod needs them"})
	}
	return copyImages(ctx, client, records, ready[1:], func(node string) { done(node, names) })
}

// copyImages has the nodes fetch the images, a few at a time, and goes on when one cannot.
func copyImages(ctx context.Context, client kubernetes.Interface, records []images.Record, nodes []string, done func(node string)) error {
	var (
		mu     sync.Mutex
		errs   []error
		copies sync.WaitGroup
	)
	slots := make(chan struct{}, parallelCopies)
	for _, node := range nodes {
		slots <- struct{}{}
		copies.Go(func() {
			defer func() { <-slots }()
			err := fetchImages(ctx, client, node, records)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, err)
				return
			}
			done(node)
		})
	}
	copies.Wait()
	return errors.Join(errs...)
}

func fetchImages(ctx context.Context, client kubernetes.Interface, node string, records []images.Record) error {
	for _, record := range records {
		body, err := json.Marshal(record)
		if err != nil {
			return fmt.Errorf("copy %s to %s: %w", record.Name, node, err)
		}
		if _, err := onNode(client.CoreV1().RESTClient().Put(), node).Body(body).DoRaw(ctx); err != nil {
			return fmt.Errorf("copy %s to %s: %w", record.Name, node, err)
		}
	}
	return nil
}

func addRecords(data map[string]string, records []images.Record) error {
	for _, record := range records {
		content, err := json.Marshal(record)
		if err != nil {
			return err
		}
		data[agent.ImageKey(record.Name)] = string(content)
	}
	return nil
}

// changeImported changes the cluster's list of imported images.
func changeImported(ctx context.Context, client kubernetes.Interface, change func(data map[string]string) error) error {
	objects := client.CoreV1().ConfigMaps(metav1.NamespaceSystem)
	again := func(err error) bool { return apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) }
	err := retry.OnError(retry.DefaultBackoff, again, func() error {
		object, err := objects.Get(ctx, agent.ImagesObjectName, metav1.GetOptions{})
		absent := apierrors.IsNotFound(err)
		if absent {
			object, err = &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: agent.ImagesObjectName, Namespace: metav1.NamespaceSystem}}, nil
		}
		if err != nil {
			return err
		}
		if object.Data == nil {
			object.Data = map[string]string{}
		}
		if err := change(object.Data); err != nil {
			return err
		}
		if absent {
			_, err = objects.Create(ctx, object, metav1.CreateOptions{})
		} else {
			_, err = objects.Update(ctx, object, metav1.UpdateOptions{})
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("change the list of imported images: %w", err)
	}
	return nil
}

// readyNodes are the names of the nodes that are ready, and of the others.
func readyNodes(ctx context.Context, client kubernetes.Interface) (ready, away []string, err error) {
	nodes, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, nil, fmt.Errorf("list nodes: %w", err)
	}
	for _, node := range nodes.Items {
		if slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
			return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
		}) {
			ready = append(ready, node.Name)
		} else {
			away = append(away, node.Name)
		}
	}
	return ready, away, nil
}

// onNode directs a request at the node's list of images, through the API server.
func onNode(request *rest.Request, node string) *rest.Request {
	return request.Resource("nodes").Name(node).SubResource("proxy").Suffix(agent.ImagesPath)
}

func newImageRemove(streams Streams) *cobra.Command {
	return &cobra.Command{
		Use:   "rm IMAGE…",
		Short: "Remove images from all nodes, and imported ones from the cluster's list; pods that run them run on",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			client, _, err := newClient()
			if err != nil {
				return err
			}
			for _, arg := range args {
				name, err := images.Normalize(arg)
				if err != nil {
					return err
				}
				if err := removeImage(command.Context(), client, streams, name); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func removeImage(ctx context.Context, client kubernetes.Interface, streams Streams, name string) error {
	err := changeImported(ctx, client, func(data map[string]string) error { delete(data, agent.ImageKey(name)); return nil })
	if err != nil {
		return err
	}
	held, err := heldImages(ctx, client, func(text string) { fmt.Fprintln(streams.Err, text) })
	if err != nil {
		return err
	}
	var removed []string
	for _, image := range held {
		if image.Name != name {
			continue
		}
		for _, node := range image.Nodes {
			if _, err := onNode(client.CoreV1().RESTClient().Delete(), node).Param("name", name).DoRaw(ctx); err != nil {
				return fmt.Errorf("remove %s from %s: %w", name, node, err)
			}
			removed = append(removed, node)
		}
	}
	if len(removed) == 0 {
		fmt.Fprintf(streams.Out, "%s: no node holds it\n", name)
		return nil
	}
	fmt.Fprintf(streams.Out, "%s removed from %s\n", name, strings.Join(removed, ", "))
	return nil
}
