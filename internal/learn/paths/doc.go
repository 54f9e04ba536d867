// SPDX-License-Identifier: Apache-2.0

// Package paths generalises the requests that a workload made to one endpoint, as (method,
// path) pairs, into the templates of a rule: /users/1 and /users/2 become /users/*.
//
// It works in two steps. A [Set] takes requests in one at a time and keeps of each a pattern
// in which what is an identifier by its form alone (a number, a UUID, a digest, a token, an
// address, …) is replaced by its type, at once, so that no secret is kept. [Set.Templates] then
// looks at all patterns together and finds the segments whose other values are names that
// vary: siblings of one shape, with the same requests below them.
//
// The package is pure: no I/O, no clock, nothing random. What a set holds, and so its
// templates, depends on the requests only, not on their order or on how they were merged; every
// request that was added is matched by a template of its method, unless the set says it is
// [Set.Truncated]. The first static segment of a path and an API's version are
// never generalised, and `**` stands only for what is below [maxDepth] segments.
//
// The package does not know hosts, query strings or proposals; package learn does. Paths are
// spelt as policy.Target spells them. How well it does on real API descriptions is
// measured by test/learneval.
package paths
