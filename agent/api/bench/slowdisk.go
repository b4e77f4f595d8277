package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// mountSlow mounts a file system on dir whose files lie beside it and whose fsync takes longer by delay.
func mountSlow(dir string, delay time.Duration) (unmount func() error, err error) {
	backing := filepath.Clean(dir) + "-backing"
	if err := os.MkdirAll(backing, 0o700); err != nil {
		return nil, err
	}
	root := &fs.LoopbackRoot{Path: backing}
	root.NewNode = func(data *fs.LoopbackRoot, _ *fs.Inode, _ string, _ *syscall.Stat_t) fs.InodeEmbedder {
		return &slowNode{LoopbackNode: fs.LoopbackNode{RootData: data}, delay: delay}
	}
	root.RootNode = &slowNode{LoopbackNode: fs.LoopbackNode{RootData: root}, delay: delay}
	server, err := fs.Mount(dir, root.RootNode, &fs.Options{MountOptions: fuse.MountOptions{DirectMountStrict: true, FsName: "podvine-bench"}})
	if err != nil {
		return nil, fmt.Errorf("mount the slow disk: %w", err)
	}
	return func() error {
		if err := server.Unmount(); err != nil {
			return fmt.Errorf("unmount the slow disk: %w", err)
		}
		return os.RemoveAll(backing)
	}, nil
}

// slowNode is a file whose fsync is slow.
type slowNode struct {
	fs.LoopbackNode
	delay time.Duration
}

var _ fs.NodeFsyncer = (*slowNode)(nil)

// Fsync implements fs.NodeFsyncer. It really syncs first; the delay stands for what a slower disk would add.
func (n *slowNode) Fsync(ctx context.Context, file fs.FileHandle, flags uint32) syscall.Errno {
	syncer, ok := file.(fs.FileFsyncer)
	if !ok {
		return syscall.ENOTSUP
	}
	errno := syncer.Fsync(ctx, flags)
	time.Sleep(n.delay)
	return errno
}
