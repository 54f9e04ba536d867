// SPDX-License-Identifier: Apache-2.0

// Package policy owns the policy language: OpenShell's YAML schema, its strict
// parsing and validation, the canonical form, and merging, comparing and writing
// policies. Package engine decides by a policy, and package prover shows that one
// allows no more than another.
//
// The packages are pure: they do no I/O, read no clock, start no goroutine and know
// nothing of sockets, files or processes.
package policy
