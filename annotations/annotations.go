// SPDX-License-Identifier: Apache-2.0

// Package annotations parses and validates what a container asks of openshell
// through its OCI annotations.
//
// It owns the keys below the prefix openshell.ai/, their syntax and their error
// messages. It does not know what the node's administrator allows (package
// config), whether a policy of that name exists (package state), or how the
// annotations of a pod and of its containers relate (package runtime).
package annotations

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"openshell.ai/openshell/internal/validname"
)

// Prefix is what every annotation meant for openshell starts with.
const Prefix = "openshell.ai/"

// The annotations that a user may set.
const (
	// KeyPolicy names the policy; without it the container's id is the name.
	KeyPolicy = Prefix + "policy"
	// KeyPermissive is "true" or "false": log what the policy denies instead of denying it.
	KeyPermissive = Prefix + "permissive"
	// KeyPermissiveTTL is a Go duration: how long permissive mode may last.
	KeyPermissiveTTL = Prefix + "permissive-ttl"
	// KeyPermissiveOnExpiry is OnExpiryEnforce or OnExpiryStop.
	KeyPermissiveOnExpiry = Prefix + "permissive-on-expiry"
)

// What happens to a sandbox whose permissive time is over.
const (
	// OnExpiryEnforce goes on running, with the policy enforced.
	OnExpiryEnforce = "enforce"
	// OnExpiryStop stops the sandbox.
	OnExpiryStop = "stop"
)

var keys = []string{KeyPolicy, KeyPermissive, KeyPermissiveTTL, KeyPermissiveOnExpiry}

// Keys returns every key that Parse takes.
func Keys() []string { return slices.Clone(keys) }

// Request is what a container's annotations ask for. The zero value is what a
// container without annotations gets.
type Request struct {
	// Policy is the policy's name; empty when the container names none.
	Policy string
	// Permissive is true when denials are to be logged and not enforced.
	Permissive bool
	// TTL is how long permissive mode may last; 0 leaves it to the node.
	TTL time.Duration
	// OnExpiry is OnExpiryEnforce, OnExpiryStop, or empty to leave it to the node.
	OnExpiry string
}

// Parse reads the annotations below Prefix; all others are left alone. Every
// problem is reported at once, on one line, each with the key, the bad value and
// the fix.
func Parse(a map[string]string) (Request, error) {
	var (
		req  Request
		errs []string
	)
	for _, key := range slices.Sorted(maps.Keys(a)) {
		if !strings.HasPrefix(key, Prefix) {
			continue
		}
		if err := req.set(key, a[key]); err != nil {
			errs = append(errs, err.Error())
		}
	}
	if a[KeyPermissive] != "true" {
		for _, key := range []string{KeyPermissiveTTL, KeyPermissiveOnExpiry} {
			if value, ok := a[key]; ok {
				errs = append(errs, fmt.Sprintf("annotation %s=%s has no meaning without %s=true: set that, or leave this out",
					key, quote(value), KeyPermissive))
			}
		}
	}
	if errs != nil {
		return Request{}, errors.New(strings.Join(errs, "; "))
	}
	return req, nil
}

// set stores one annotation's value in its field.
func (r *Request) set(key, value string) (err error) {
	switch key {
	case KeyPolicy:
		r.Policy = value
		err = validname.Check(value)
	case KeyPermissive:
		r.Permissive = value == "true"
		if value != "true" && value != "false" {
			err = errors.New(`use "true" or "false"`)
		}
	case KeyPermissiveTTL:
		r.TTL, err = parseTTL(value)
	case KeyPermissiveOnExpiry:
		r.OnExpiry = value
		if value != OnExpiryEnforce && value != OnExpiryStop {
			err = fmt.Errorf("use %q or %q", OnExpiryEnforce, OnExpiryStop)
		}
	default:
		return unknownKey(key)
	}
	if err != nil {
		return fmt.Errorf("annotation %s=%s: %w", key, quote(value), err)
	}
	return nil
}

func parseTTL(value string) (time.Duration, error) {
	ttl, err := time.ParseDuration(value)
	if err != nil || ttl <= 0 {
		return 0, errors.New(`use a positive duration such as "30m" or "1h"`)
	}
	return ttl, nil
}

// maxQuoted bounds how much of a hostile value an error message repeats.
const maxQuoted = 64

func quote(s string) string {
	if len(s) > maxQuoted {
		return fmt.Sprintf("%q...", s[:maxQuoted])
	}
	return fmt.Sprintf("%q", s)
}
