// SPDX-License-Identifier: Apache-2.0

// Package learneval measures how well package learn/paths generalises, on descriptions of real
// APIs.
//
// Of each API one half of the operations, drawn by a fixed seed, is what a workload uses: the
// learner sees k requests for each of them, made from the description's parameters, and nothing
// of the description itself. Then
//
//   - coverage is the part of fresh requests for the same operations that its templates allow,
//   - over-permission is the part of requests for the other half that they allow.
//
// Parameters are tuned on the APIs of providers whose name hashes to an even number and
// reported on the others.
package learneval
