package agent

import (
	"net/http"

	"github.com/podvine/podvine/agent/pods/images"
)

// maxImageArchiveBytes bounds an archive that is imported over HTTP.
const maxImageArchiveBytes = 32 << 30

// imageRoutes are the kubelet API's own paths for images without a registry.
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
		"POST /" + ImagesPath: serveJSON(func(r *http.Request) ([]string, error) {
			return store().Import(r.Context(), http.MaxBytesReader(nil, r.Body, maxImageArchiveBytes))
		}),
	}
}
