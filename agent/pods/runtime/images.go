package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/platforms"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ImageInfo is what running an image needs to know of it.
type ImageInfo struct {
	// Name in the store, and the digest it stands for.
	Name, Digest string
	// ConfigDigest identifies the content whatever its name: Kubernetes' image ID.
	ConfigDigest string
	// ChainID names the snapshot of all layers.
	ChainID string
	Config  ocispec.ImageConfig
	// SizeBytes is the size of the packed content.
	SizeBytes int64
	CreatedAt time.Time
}

// ImageInfo looks an image up by its exact name in the store.
func (r *Runtime) ImageInfo(ctx context.Context, name string) (ImageInfo, error) {
	ctx = r.Context(ctx)
	c := r.Client()
	img, err := c.ImageService().Get(ctx, name)
	if err != nil {
		return ImageInfo{}, fmt.Errorf("find image %s: %w", name, err)
	}
	return r.describe(ctx, img)
}

// describe reads an image's manifest and config, which never change for one
// digest and are remembered.
func (r *Runtime) describe(ctx context.Context, img images.Image) (ImageInfo, error) {
	if v, ok := r.described.Get(img.Target.Digest.String()); ok {
		v.Name, v.CreatedAt = img.Name, img.CreatedAt
		return v, nil
	}
	cs := r.client.ContentStore()
	m, err := images.Manifest(ctx, cs, img.Target, platforms.Default())
	if err != nil {
		return ImageInfo{}, fmt.Errorf("read manifest of %s: %w", img.Name, err)
	}
	raw, err := content.ReadBlob(ctx, cs, m.Config)
	if err != nil {
		return ImageInfo{}, fmt.Errorf("read config of %s: %w", img.Name, err)
	}
	var oci ocispec.Image
	if err := json.Unmarshal(raw, &oci); err != nil {
		return ImageInfo{}, fmt.Errorf("decode config of %s: %w", img.Name, err)
	}
	info := ImageInfo{
		Name: img.Name, Digest: img.Target.Digest.String(), ConfigDigest: m.Config.Digest.String(),
		ChainID: identity.ChainID(oci.RootFS.DiffIDs).String(), Config: oci.Config, CreatedAt: img.CreatedAt,
		SizeBytes: m.Config.Size,
	}
	for _, l := range m.Layers {
		info.SizeBytes += l.Size
	}
	r.described.Add(info.Digest, info)
	return info, nil
}

// maxDescribed bounds the images whose description is remembered.
const maxDescribed = 256

// Images lists the store.
func (r *Runtime) Images(ctx context.Context) ([]ImageInfo, error) {
	ctx = r.Context(ctx)
	all, err := r.Client().ImageService().List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	out := make([]ImageInfo, 0, len(all))
	for _, img := range all {
		info, err := r.describe(ctx, img)
		if err != nil {
			// An image of another platform or half a pull is not usable here.
			continue
		}
		out = append(out, info)
	}
	return out, nil
}

func (r *Runtime) unpack(ctx context.Context, name string) error {
	c := r.Client()
	img, err := c.ImageService().Get(ctx, name)
	if err != nil {
		return fmt.Errorf("find image %s: %w", name, err)
	}
	if err := client.NewImage(c, img).Unpack(ctx, Snapshotter); err != nil {
		return fmt.Errorf("unpack image %s: %w", name, err)
	}
	return nil
}

// User is who a container's process runs as.
type User struct {
	UID, GID uint32
	Groups   []uint32
	Home     string
}

// userCache remembers users by image content, which never changes.
type userCache struct {
	mu    sync.Mutex
	known map[string]User // guarded by mu
}

// maxCachedUsers bounds the cache; it is emptied when full.
const maxCachedUsers = 1024

// LookupUser finds user, a number or a name with an optional ":group", in an
// image's own /etc/passwd and /etc/group. Numbers need no entry.
func (r *Runtime) LookupUser(ctx context.Context, image, user string) (User, error) {
	ctx = r.Context(ctx)
	info, err := r.ImageInfo(ctx, image)
	if err != nil {
		return User{}, err
	}
	key := info.ChainID + "\x00" + user
	r.users.mu.Lock()
	u, ok := r.users.known[key]
	r.users.mu.Unlock()
	if ok {
		return u, nil
	}
	layers, err := r.layerFolders(ctx, image, info)
	if err != nil {
		return User{}, err
	}
	u, err = resolveUser(user, readLayers(layers, "etc/passwd"), readLayers(layers, "etc/group"))
	if err != nil {
		return User{}, fmt.Errorf("look up user %q in image: %w", user, err)
	}
	r.users.mu.Lock()
	defer r.users.mu.Unlock()
	if r.users.known == nil || len(r.users.known) >= maxCachedUsers {
		r.users.known = map[string]User{}
	}
	r.users.known[key] = u
	return u, nil
}

// layerFolders are the unpacked layers of an image, topmost first.
func (r *Runtime) layerFolders(ctx context.Context, image string, info ImageInfo) ([]string, error) {
	sn := r.Client().SnapshotService(Snapshotter)
	key := fmt.Sprintf("look-%d-%s", time.Now().UnixNano(), info.ChainID)
	view := func() ([]mount.Mount, error) { return sn.View(ctx, key, info.ChainID) }
	mounts, err := view()
	if err != nil {
		if err := r.unpack(ctx, image); err != nil {
			return nil, err
		}
		if mounts, err = view(); err != nil {
			return nil, fmt.Errorf("view image: %w", err)
		}
	}
	defer func() {
		if err := sn.Remove(ctx, key); err != nil {
			r.cfg.Log.Warn("remove image view", "err", err)
		}
	}()
	var out []string
	for _, m := range mounts {
		if m.Type == "bind" {
			out = append(out, m.Source)
		}
		for _, o := range m.Options {
			if dirs, ok := strings.CutPrefix(o, "lowerdir="); ok {
				out = append(out, strings.Split(dirs, ":")...)
			}
		}
	}
	return out, nil
}

// readLayers reads a file as an overlay of layers shows it; what is absent
// reads as empty. Links that leave the layer are not followed.
func readLayers(layers []string, name string) string {
	for _, dir := range layers {
		f, err := os.OpenInRoot(dir, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return ""
		}
		defer f.Close()
		st, err := f.Stat()
		if err != nil || !st.Mode().IsRegular() {
			return ""
		}
		b := make([]byte, min(st.Size(), maxUserFileBytes))
		n, err := f.Read(b)
		if err != nil {
			return ""
		}
		return string(b[:n])
	}
	return ""
}

// maxUserFileBytes bounds how much of an image's /etc/passwd is read.
const maxUserFileBytes = 1 << 20

func resolveUser(user, passwd, group string) (User, error) {
	name, groupName, hasGroup := strings.Cut(user, ":")
	if name == "" {
		name = "0"
	}
	u := User{Home: "/"}
	login := name
	uid, numErr := strconv.ParseUint(name, 10, 32)
	u.UID = uint32(uid)
	found := false
	for line := range strings.Lines(passwd) {
		f := strings.Split(strings.TrimSpace(line), ":")
		// A number is a number, also where an image names an account like one.
		if len(f) < 6 || (numErr != nil && f[0] != name) || (numErr == nil && f[2] != name) {
			continue
		}
		id, err1 := strconv.ParseUint(f[2], 10, 32)
		gid, err2 := strconv.ParseUint(f[3], 10, 32)
		if err1 != nil || err2 != nil {
			continue
		}
		u.UID, u.GID, u.Home, login, found = uint32(id), uint32(gid), f[5], f[0], true
		break
	}
	if !found && numErr != nil {
		return User{}, fmt.Errorf("no user %s", name)
	}
	for line := range strings.Lines(group) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) < 4 {
			continue
		}
		gid, err := strconv.ParseUint(f[2], 10, 32)
		if err != nil {
			continue
		}
		if hasGroup && f[0] == groupName {
			u.GID, hasGroup = uint32(gid), false
		}
		for member := range strings.SplitSeq(f[3], ",") {
			if member == login {
				u.Groups = append(u.Groups, uint32(gid))
			}
		}
	}
	if hasGroup {
		gid, err := strconv.ParseUint(groupName, 10, 32)
		if err != nil {
			return User{}, fmt.Errorf("no group %s", groupName)
		}
		u.GID = uint32(gid)
	}
	return u, nil
}
