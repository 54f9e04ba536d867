// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Owner says which user namespace is to own a network namespace: the one of Path, or
// where there is no path, a new one with the mappings.
type Owner struct {
	Path string      `json:"path,omitempty"`
	UIDs []IDMapping `json:"uids,omitempty"`
	GIDs []IDMapping `json:"gids,omitempty"`
}

// IDMapping is a line of a user namespace's uid_map or gid_map (user_namespaces(7)).
type IDMapping struct {
	Inside  uint32 `json:"inside"`
	Outside uint32 `json:"outside"`
	Size    uint32 `json:"size"`
}

// ownerWait bounds how long making a namespace takes.
const ownerWait = 10 * time.Second

// NewOwned is New for a namespace that belongs to a user namespace: processes in that
// one may mount sysfs of it, and set its keys below /proc/sys/net, as far as they
// have capabilities. A process makes it that has a single thread, as setns(2)
// demands: holder is its command line, to which a path is added where there is a user
// namespace to join. See network.c of openshell-init.
func NewOwned(o Owner, holder ...string) (*Namespace, error) {
	ns, err := newOwned(o, holder)
	if err != nil {
		return nil, fmt.Errorf("make network namespace of the container's user namespace: %w", err)
	}
	return ns, nil
}

func newOwned(o Owner, holder []string) (*Namespace, error) {
	cmd := exec.Command(holder[0], holder[1:]...)
	cmd.Env, cmd.Dir = []string{}, "/"
	if o.Path != "" {
		userns, err := os.Open(o.Path)
		if err != nil {
			return nil, err
		}
		defer userns.Close()
		if own, err := ownUserNamespace(userns); err != nil || own {
			if own {
				return New()
			}
			return nil, err
		}
		// By its descriptor: what the path leads to may change.
		cmd.Args, cmd.ExtraFiles = append(cmd.Args, "/proc/self/fd/3"), []*os.File{userns}
	} else {
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET,
			UidMappings: mappings(o.UIDs), GidMappings: mappings(o.GIDs), GidMappingsEnableSetgroups: true,
		}
	}
	// It ends when its standard input does, and so with this process at the latest.
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	said := &firstLine{}
	cmd.Stderr = said
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	timeout := time.AfterFunc(ownerWait, func() { _ = cmd.Process.Kill() })
	defer func() {
		timeout.Stop()
		stdin.Close()
		_ = cmd.Wait()
	}()
	if _, err := io.ReadFull(stdout, make([]byte, 1)); err != nil {
		stdin.Close()
		_ = cmd.Wait()
		return nil, errors.Join(err, said.err())
	}
	return Open(fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid))
}

// ownUserNamespace reports whether a file is this process's own user namespace,
// which cannot be joined.
func ownUserNamespace(f *os.File) (bool, error) {
	kind, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE) // ioctl_nsfs(2)
	if err != nil || kind != unix.CLONE_NEWUSER {
		return false, fmt.Errorf("%s: not a user namespace", f.Name())
	}
	own, err := os.Stat("/proc/self/ns/user")
	if err != nil {
		return false, err
	}
	other, err := f.Stat()
	return err == nil && os.SameFile(own, other), err
}

func mappings(list []IDMapping) (out []syscall.SysProcIDMap) {
	for _, m := range list {
		out = append(out, syscall.SysProcIDMap{ContainerID: int(m.Inside), HostID: int(m.Outside), Size: int(m.Size)})
	}
	return out
}

// firstLine keeps the beginning of what a program says.
type firstLine struct{ text []byte }

func (l *firstLine) Write(p []byte) (int, error) {
	const enough = 512
	l.text = append(l.text, p[:min(len(p), enough-min(enough, len(l.text)))]...)
	return len(p), nil
}

func (l *firstLine) err() error {
	if len(l.text) == 0 {
		return nil
	}
	return fmt.Errorf("%q", l.text)
}

// OwnerFile opens the user namespace that owns the network namespace.
func (n *Namespace) OwnerFile() (*os.File, error) { return ownerOf(n.file) }

// UserNamespace returns the identity of the user namespace that owns the network namespace.
func (n *Namespace) UserNamespace() (ID, error) { return UserNamespaceOf(n.file) }

// UserNamespaceOf returns the identity of the user namespace that owns a namespace of any kind.
func UserNamespaceOf(namespace *os.File) (ID, error) {
	f, err := ownerOf(namespace)
	if err != nil {
		return ID{}, err
	}
	defer f.Close()
	return fileID(f)
}

func ownerOf(namespace *os.File) (*os.File, error) {
	fd, err := unix.IoctlRetInt(int(namespace.Fd()), unix.NS_GET_USERNS) // its descriptor is closed on exec
	if err != nil {
		return nil, fmt.Errorf("open the user namespace of a namespace: %w", err)
	}
	return os.NewFile(uintptr(fd), "user namespace"), nil
}
