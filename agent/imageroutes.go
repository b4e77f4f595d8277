package agent

import (
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/podvine/podvine/agent/pods/images"
)

const (
	// maxImageArchiveBytes bounds an archive that is imported over HTTP.
	maxImageArchiveBytes = 32 << 30
	// maxImageRecordBytes bounds the record of an image to fetch.
	maxImageRecordBytes = 64 << 10
)

// imageRoutes are the kubelet API's own paths for images without a registry. As all of that API's paths they are for those
// who may use the node's proxy.
func imageRoutes(store func() *images.Store) map[string]http.Handler {
	return map[string]http.Handler{
		"GET /" + ImagesPath: serveJSON(func(r *http.Request) ([]Image, error) {
			held, err := store().List(r.Context())
			if err != nil {
				return nil, err
			}
			list := []Image{}
			for _, image := range held {
				list = append(list, Image{Name: image.Name, Digest: image.Digest, SizeBytes: image.SizeBytes})
			}
			return list, nil
		}),
		"POST /" + ImagesPath: serveJSON(func(r *http.Request) ([]images.Record, error) {
			return store().Import(r.Context(), http.MaxBytesReader(nil, r.Body, maxImageArchiveBytes))
		}),
		"PUT /" + ImagesPath: serveJSON(func(r *http.Request) (Image, error) {
			var record images.Record
			if err := json.NewDecoder(http.MaxBytesReader(nil, r.Body, maxImageRecordBytes)).Decode(&record); err != nil {
				return Image{}, fmt.Errorf("read the record of an image: %w", err)
			}
			got, err := store().Fetch(r.Context(), record)
			return Image{Name: got.Name, Digest: got.Digest, SizeBytes: got.SizeBytes}, err
		}),
		"DELETE /" + ImagesPath: serveJSON(func(r *http.Request) (string, error) {
			return "", store().Remove(r.Context(), r.URL.Query().Get("name"))
		}),
	}
}
