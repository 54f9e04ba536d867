// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"strings"
)

// Service is a port of one transport protocol.
type Service struct {
	Port uint16
	UDP  bool
}

// HostKind is the way an endpoint names its host, the most specific first.
type HostKind int

const (
	ExactHost HostKind = iota
	WildcardHost
	Hostless
)

// Kind is the way the endpoint names its host.
func (e *Endpoint) Kind() HostKind {
	switch {
	case e.Host == "":
		return Hostless
	case strings.Contains(e.Host, "*"):
		return WildcardHost
	default:
		return ExactHost
	}
}

// controlPlanePorts (etcd, Docker, Kubernetes) are closed wherever a policy
// opens more than public addresses, so that trust in a network is not trust in
// whoever runs it.
var controlPlanePorts = []uint16{2379, 2380, 6443, 10250, 10255}

// IsControlPlanePort reports whether a port is one of them.
func IsControlPlanePort(port uint16) bool { return slices.Contains(controlPlanePorts, port) }
