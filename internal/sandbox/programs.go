// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
	"openshell.ai/openshell/proxy/identity"
)

// programs are what the paths of programs mean in each container of a sandbox. A
// rule may name a program by a symbolic link, and the kernel knows a process by
// what the link leads to. So a link holds for the processes of the container only
// whose root file system has it: elsewhere the same path may be another program.
type programs struct {
	mu         sync.Mutex
	named      int
	containers []*containerPrograms
}

// containerPrograms are one container's.
type containerPrograms struct {
	Container
	name string // which no other container of the sandbox ever has
	// targets are what links lead to, since they were first asked for: what the
	// workload makes of them later is its own affair.
	targets        map[string]string
	firstPID       int    // of its first process; 0 until it is known
	mountNamespace uint64 // of that
}

// add makes a container known, which is about to be made.
func (p *programs) add(c Container) *containerPrograms {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.named++
	added := &containerPrograms{Container: c, name: strconv.Itoa(p.named), targets: map[string]string{}}
	p.containers = append(p.containers, added)
	return added
}

// remove forgets a container. Processes of it that live on have no links.
func (p *programs) remove(c *containerPrograms) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.containers = slices.DeleteFunc(p.containers, func(other *containerPrograms) bool { return other == c })
}

// aliases returns what a path leads to in each container where it is a link, for
// policy.Options.
func (p *programs) aliases(path string) (aliases []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.containers {
		if target := c.target(path); target != "" && target != path {
			aliases = append(aliases, identity.Alias(c.name, target))
		}
	}
	return aliases
}

// container returns the name of the container that has a mount namespace, for
// identity.Finder. A container is asked for its own when somebody wants to know,
// since its first process may connect before it is noticed.
func (p *programs) container(mountNamespace uint64) (name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.containers {
		if c.firstPID == 0 {
			c.readMountNamespace()
		}
		switch {
		case c.mountNamespace != mountNamespace || !c.lives():
		case name != "":
			return "" // nobody can tell which
		default:
			name = c.name
		}
	}
	return name
}

// roots are the containers' root file systems, for identity.Finder.
func (p *programs) roots() (roots []identity.Root) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.containers {
		pid, _ := c.init() // 0 where it cannot be told
		roots = append(roots, identity.Root{PID: pid, Image: c.Rootfs})
	}
	return roots
}

// after has names begin behind those that were saved.
func (p *programs) after(list []savedPrograms) {
	for _, saved := range list {
		if n, err := strconv.Atoi(saved.Name); err == nil {
			p.named = max(p.named, n)
		}
	}
}

// save returns what the containers' links lead to, as far as it was asked for.
func (p *programs) save() (list []savedPrograms) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.containers {
		list = append(list, savedPrograms{c.Root, c.ID, c.name, maps.Clone(c.targets)})
	}
	return list
}

// restore gives a container the name and the links that it had.
func (p *programs) restore(c *containerPrograms, saved savedPrograms) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.name, c.targets = saved.Name, saved.Targets
}

func (c *containerPrograms) target(path string) string {
	target, ok := c.targets[path]
	if ok {
		return target
	}
	if root, err := c.Rootfs.Open(); err == nil {
		target, _ = root.Resolve(path) // "" where it fails
		root.Close()
	}
	c.targets[path] = target
	return target
}

// lives reports whether the first process is in its namespace still. The kernel
// gives the number of a namespace that has gone to the next one.
func (c *containerPrograms) lives() bool {
	inode, err := mountNamespaceOf(strconv.Itoa(c.firstPID))
	return err == nil && inode == c.mountNamespace
}

// readMountNamespace finds the first process, if there is one by now.
func (c *containerPrograms) readMountNamespace() {
	pid, err := c.init()
	if err != nil {
		return
	}
	inode, err := mountNamespaceOf(strconv.Itoa(pid))
	own, ownErr := mountNamespaceOf("self")
	again, againErr := c.init()
	if err == nil && ownErr == nil && againErr == nil && again == pid && inode != own {
		c.firstPID, c.mountNamespace = pid, inode
	}
}

func mountNamespaceOf(process string) (inode uint64, err error) {
	var st unix.Stat_t
	err = unix.Stat(fmt.Sprintf("/proc/%s/ns/mnt", process), &st)
	return st.Ino, err
}
