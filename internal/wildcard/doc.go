// SPDX-License-Identifier: Apache-2.0

// Package wildcard owns the patterns of the policy language: globs over paths and
// values, wildcard names of hosts and the paths of endpoints, and indexes of many.
package wildcard
