// SPDX-License-Identifier: Apache-2.0

// Package prover shows that one policy allows no more than another. It does not decide:
// what cannot be shown counts as not contained.
package prover
