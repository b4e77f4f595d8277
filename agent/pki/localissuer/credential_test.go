package localissuer

import "syscall"

// as runs a process as a user without any further groups.
func as(id uint32) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: id, Gid: id}}
}
