// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"time"

	"openshell.ai/openshell/internal/rootfs"
	"openshell.ai/openshell/netns"
	"openshell.ai/openshell/proxy/ingress"
)

// Request is what a sandbox is started with. It crosses a process boundary as
// JSON.
type Request struct {
	ID     string `json:"id"`
	Policy string `json:"policy"`
	// PolicyNamed is true where the container asked for the policy by name,
	// so that it must exist.
	PolicyNamed bool          `json:"policy_named"`
	Permissive  bool          `json:"permissive"`
	TTL         time.Duration `json:"ttl"` // of permissive mode
	OnExpiry    string        `json:"on_expiry"`

	// Said are the container's own annotations of openshell, valid ones.
	Said map[string]string `json:"said,omitempty"`

	Outer Outer `json:"outer"`
	// User is the user namespace that the container is in, and that the inner
	// network namespace is to belong to; nil: this process's.
	User *netns.Owner `json:"user,omitempty"`
	// HostNetwork says that the container was to have the host's network itself: what
	// listens in it is reachable there.
	HostNetwork bool `json:"host_network,omitzero"`
	// Publish are the ports of the outer namespace that lead to the workload.
	Publish []ingress.Publication `json:"publish,omitempty"`
	// Owner is a process that the containers do not outlive; 0: there is none.
	Owner int `json:"owner,omitzero"`
	// WithoutWorkdir takes include_workdir out of the policy, where the working
	// directory holds what is not the workload's.
	WithoutWorkdir bool     `json:"without_workdir,omitzero"`
	DNS            Resolver `json:"dns"`

	Container Container `json:"container"`
	// Stores are the container's trust stores, those first that most clients use.
	Stores []TrustStore `json:"stores,omitempty"`
	// Cgroup is the container's, as its config.json names it.
	Cgroup string `json:"cgroup,omitzero"`
	// Creator is the process that makes the first container: it becomes the
	// low-level runtime.
	Creator int `json:"creator"`
}

// Outer says where upstream connections start.
type Outer struct {
	Kind OuterKind `json:"kind"`
	Path string    `json:"path,omitzero"` // for OuterPath
	// Fallback is for OuterLate: the kind where no device has appeared by the
	// first container's start, OuterHost or OuterEmpty.
	Fallback OuterKind `json:"fallback,omitzero"`
	// Placeholders is for OuterLate: the engine will look for its devices where it put
	// them, see netns.Placeholders.
	Placeholders bool `json:"stand_ins,omitzero"`
}

// identify returns the identity of a namespace with a path, by which its
// containers find their sandbox. A path that leads to this process's own
// namespace is the host's network, whatever it is called: then, as for every
// other kind, the identity is zero.
func (o *Outer) identify() (netns.ID, error) {
	if o.Kind != OuterPath {
		return netns.ID{}, nil
	}
	home, err := netns.Home()
	if err != nil {
		return netns.ID{}, err
	}
	ns, err := netns.Open(o.Path)
	if err != nil {
		return netns.ID{}, err
	}
	defer ns.Close()
	if ns.ID() == home.ID() {
		*o = Outer{Kind: OuterHost}
		return netns.ID{}, nil
	}
	return ns.ID(), nil
}

// OuterKind is how the engine prepared the network.
type OuterKind string

const (
	OuterHost  OuterKind = "host"  // it prepared none, or chose the host's
	OuterPath  OuterKind = "path"  // a namespace with a path
	OuterEmpty OuterKind = "empty" // a namespace in which nothing is reachable
	OuterLate  OuterKind = "late"  // it may put devices into the container's namespace before the start
)

// Resolver is how a container finds names: its resolv.conf(5), and the text of
// its hosts(5) where the engine wrote one.
type Resolver struct {
	Servers []string `json:"servers"`
	Search  []string `json:"search"`
	Hosts   string   `json:"hosts,omitempty"`
	// HostsFile is the file of Hosts: what a running container has mounted its
	// workload may have written to.
	HostsFile rootfs.ID `json:"hosts_file,omitzero"`
	// Embedded is true where docker's resolver is named, which answers inside the
	// container's own namespace.
	Embedded bool `json:"embedded,omitzero"`
}

// Ready is what a container's bundle needs to know of its sandbox.
type Ready struct {
	Inner   string `json:"inner"`          // a path that opens the inner namespace
	User    string `json:"user,omitempty"` // one that opens its user namespace, where that was made with it
	Confine string `json:"confine"`        // the directory for confine.Dir
	TLS     string `json:"tls"`            // the directory for TrustDir
	// Covers are what is to be mounted over the container's trust stores.
	Covers []Cover `json:"covers,omitempty"`
	// Required are the paths that must exist in the container, for the policy
	// insists on Landlock and names them.
	Required []string `json:"required,omitempty"`
}
