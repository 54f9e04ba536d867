// SPDX-License-Identifier: Apache-2.0

// Package policy owns the policy language: OpenShell's YAML schema, its strict
// parsing and validation, the compiled index that decides connections and
// requests, the address guard, and merging, comparing and writing policies.
//
// The package is pure: it does no I/O, reads no clock, starts no goroutine and
// knows nothing of sockets, files or processes. Who connected and what a name
// resolved to are the caller's facts; permissive mode is the caller's choice
// (except in Evaluate, which answers for it).
package policy
