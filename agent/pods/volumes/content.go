package volumes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/podvine/podvine/agent/pods/environ"
)

// content gathers the files of one volume of objects.
type content struct {
	pod     Pod
	files   map[string]File
	secret  bool
	refresh time.Time
}

const defaultMode = int32(0o644)

func modeOf(m *int32, otherwise int32) os.FileMode {
	if m != nil {
		return os.FileMode(*m)
	}
	return os.FileMode(otherwise)
}

func (c *content) volume(ctx context.Context, v *corev1.Volume) error {
	mode := func(m *int32) int32 {
		if m != nil {
			return *m
		}
		return defaultMode
	}
	switch {
	case v.ConfigMap != nil:
		return c.configMap(v.ConfigMap.Name, v.ConfigMap.Items, v.ConfigMap.Optional, mode(v.ConfigMap.DefaultMode))
	case v.Secret != nil:
		return c.secretFiles(v.Secret.SecretName, v.Secret.Items, v.Secret.Optional, mode(v.Secret.DefaultMode))
	case v.DownwardAPI != nil:
		return c.downward(v.DownwardAPI.Items, mode(v.DownwardAPI.DefaultMode))
	case v.Projected != nil:
		for i := range v.Projected.Sources {
			if err := c.projected(ctx, &v.Projected.Sources[i], mode(v.Projected.DefaultMode)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *content) projected(ctx context.Context, s *corev1.VolumeProjection, mode int32) error {
	switch {
	case s.ConfigMap != nil:
		return c.configMap(s.ConfigMap.Name, s.ConfigMap.Items, s.ConfigMap.Optional, mode)
	case s.Secret != nil:
		return c.secretFiles(s.Secret.Name, s.Secret.Items, s.Secret.Optional, mode)
	case s.DownwardAPI != nil:
		return c.downward(s.DownwardAPI.Items, mode)
	case s.ServiceAccountToken != nil:
		return c.token(ctx, s.ServiceAccountToken, mode)
	}
	return errors.New("this projected source is not supported by this version")
}

func optionalMissing(err error, optional *bool) bool {
	return apierrors.IsNotFound(err) && optional != nil && *optional
}

func (c *content) configMap(name string, items []corev1.KeyToPath, optional *bool, mode int32) error {
	cm, err := c.pod.Source.ConfigMap(c.pod.Facts.Pod.Namespace, name)
	if err != nil {
		if optionalMissing(err, optional) {
			return nil
		}
		return err
	}
	data := map[string][]byte{}
	for k, v := range cm.Data {
		data[k] = []byte(v)
	}
	for k, v := range cm.BinaryData {
		data[k] = v
	}
	return c.pick(data, items, optional, mode)
}

func (c *content) secretFiles(name string, items []corev1.KeyToPath, optional *bool, mode int32) error {
	c.secret = true
	s, err := c.pod.Source.Secret(c.pod.Facts.Pod.Namespace, name)
	if err != nil {
		if optionalMissing(err, optional) {
			return nil
		}
		return err
	}
	return c.pick(s.Data, items, optional, mode)
}

func (c *content) pick(data map[string][]byte, items []corev1.KeyToPath, optional *bool, mode int32) error {
	if len(items) == 0 {
		for k, v := range data {
			c.files[k] = File{Data: v, Mode: os.FileMode(mode)}
		}
		return nil
	}
	for _, it := range items {
		v, ok := data[it.Key]
		if !ok {
			if optional != nil && *optional {
				continue
			}
			return fmt.Errorf("references non-existent config key: %s", it.Key)
		}
		c.files[filepath.Clean(it.Path)] = File{Data: v, Mode: modeOf(it.Mode, mode)}
	}
	return nil
}

func (c *content) downward(items []corev1.DownwardAPIVolumeFile, mode int32) error {
	for _, it := range items {
		var text string
		var err error
		switch {
		case it.FieldRef != nil:
			text, err = environ.Field(c.pod.Facts, it.FieldRef.FieldPath)
		case it.ResourceFieldRef != nil:
			text, err = environ.Resource(c.pod.Facts, it.ResourceFieldRef, nil)
		}
		if err != nil {
			return err
		}
		c.files[filepath.Clean(it.Path)] = File{Data: []byte(text), Mode: modeOf(it.Mode, mode)}
	}
	return nil
}

// ownerOnly is a token's mode when one known user is to read it.
const ownerOnly = 0o600

func (c *content) token(ctx context.Context, src *corev1.ServiceAccountTokenProjection, mode int32) error {
	c.secret = true
	tok, refresh, err := c.pod.Tokens.Token(ctx, c.pod.Facts.Pod, src)
	if err != nil {
		return err
	}
	f := File{Data: []byte(tok), Mode: os.FileMode(mode)}
	if uid := soleUser(c.pod.Facts.Pod); uid != nil && c.pod.fsGroup() == nil {
		f.UID, f.Mode = uid, ownerOnly
	}
	c.files[filepath.Clean(src.Path)] = f
	if c.refresh.IsZero() || refresh.Before(c.refresh) {
		c.refresh = refresh
	}
	return nil
}

// soleUser is the user that all containers run as, if the spec says so.
func soleUser(pod *corev1.Pod) *int64 {
	var uid *int64
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			var own *int64
			if pod.Spec.SecurityContext != nil {
				own = pod.Spec.SecurityContext.RunAsUser
			}
			if sc := list[i].SecurityContext; sc != nil && sc.RunAsUser != nil {
				own = sc.RunAsUser
			}
			if own == nil || (uid != nil && *uid != *own) {
				return nil
			}
			uid = own
		}
	}
	return uid
}
