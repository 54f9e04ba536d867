// SPDX-License-Identifier: Apache-2.0

// Package engine decides by a policy: it compiles one into an index, and matches
// connections, addresses, requests and messages against it.
//
// Who connected and what a name resolved to are the caller's facts; permissive mode
// is the caller's choice.
package engine
