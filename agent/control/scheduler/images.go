package scheduler

import (
	"strings"

	v1 "k8s.io/api/core/v1"
)

// Sizes between which images score, Kubernetes' figures: less is no reason to go anywhere, more no further one.
const (
	imagesMinBytes             = 23 << 20
	imagesMaxBytesPerContainer = 1000 << 20
)

// wantedImages are the images that a pod's containers and volumes run or mount, one for each, as nodes list them.
func wantedImages(spec *v1.PodSpec) []string {
	images := make([]string, 0, len(spec.InitContainers)+len(spec.Containers))
	add := func(image string) {
		if strings.LastIndex(image, ":") <= strings.LastIndex(image, "/") {
			image += ":latest"
		}
		images = append(images, image)
	}
	for i := range spec.InitContainers {
		add(spec.InitContainers[i].Image)
	}
	for i := range spec.Containers {
		add(spec.Containers[i].Image)
	}
	for i := range spec.Volumes {
		if source := spec.Volumes[i].Image; source != nil {
			add(source.Reference)
		}
	}
	return images
}

// findImages notes which of the class's images the node has.
func (e *evaluated) findImages(v *evaluation, object *v1.Node) {
	for k, size := range v.images {
		if size >= 0 {
			e.holders[k]--
			e.counted = false
		}
	}
	v.images = nil
	if object == nil {
		return
	}
	for i := range object.Status.Images {
		image := &object.Status.Images[i]
		for k, wanted := range e.c.images {
			for _, name := range image.Names {
				if name != wanted || v.images != nil && v.images[k] >= 0 {
					continue
				}
				if v.images == nil {
					v.images = absent(len(e.c.images))
				}
				v.images[k] = image.SizeBytes
				e.holders[k]++
				e.counted = false
			}
		}
	}
}

func absent(n int) []int64 {
	sizes := make([]int64, n)
	for i := range sizes {
		sizes[i] = -1
	}
	return sizes
}

// scoreImages scores the nodes by the size of the class's images that they have. An image that few nodes have counts
// for less, or all pods that use it would crowd onto them.
func (e *evaluated) scoreImages(present int) {
	e.present, e.counted = present, true
	most := int64(imagesMaxBytesPerContainer) * int64(len(e.c.images))
	for i := range e.nodes {
		var sum int64
		for k, size := range e.nodes[i].images {
			if size >= 0 {
				sum += int64(float64(size) * (float64(e.holders[k]) / float64(present)))
			}
		}
		sum = min(max(sum, imagesMinBytes), most)
		e.candidates[i].image = int32(maxScore * (sum - imagesMinBytes) / (most - imagesMinBytes))
		e.rate(i)
	}
}
