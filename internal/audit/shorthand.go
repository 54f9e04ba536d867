// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"cmp"
	"net"
	"strconv"
	"strings"
	"time"
)

// How many bytes of a field a line shows.
const (
	maxWord    = 64  // methods, activities, engines
	maxName    = 255 // hosts, rules
	maxPath    = 1024
	maxReason  = 256
	maxMessage = 512
)

// Shorthand is the event in one line for people, without a line end, in OpenShell's
// form:
//
//	2026-08-01T10:00:00.000Z OCSF NET:OPEN [MED] DENIED /usr/bin/curl(64) -> example.com:443 [policy:- engine:l4] [reason:…]
//
// A permissive allowance says mode:permissive and why it would have been denied. The line is
// bounded, and what came from the workload is escaped: it cannot end the line, control a
// terminal, or look like another field.
func Shorthand(e Event) string {
	var b strings.Builder
	b.WriteString(e.Time.UTC().Format("2006-01-02T15:04:05.000Z07:00"))
	b.WriteString(" OCSF " + e.Class.info().short + ":")
	b.WriteString(escapeToken(strings.ToUpper(e.Activity), maxWord))
	b.WriteString(" [" + severityNames[e.severity()][1] + "]")
	if e.Action != 0 {
		b.WriteString(" " + strings.ToUpper(actionNames[e.Action]))
	}
	if e.Process != nil || e.addressed() {
		b.WriteString(" " + e.process())
	}
	if e.addressed() {
		b.WriteString(" -> " + e.target())
	}
	if e.Message != "" {
		b.WriteString(" " + escape(e.Message, maxMessage, "[]"))
	}
	if e.Policy != "" || e.Engine != "" {
		b.WriteString(" [policy:" + escapeToken(e.Policy, maxName) + " engine:" + escapeToken(e.Engine, maxWord))
		if e.Disposition == DispositionLogged {
			b.WriteString(" mode:" + escapeToken(e.Mode, maxWord))
		}
		b.WriteString("]")
	}
	if e.Reason != "" {
		b.WriteString(" [reason:" + Escape(e.Reason, maxReason) + "]")
	}
	return b.String()
}

// addressed reports whether the event has a destination.
func (e *Event) addressed() bool { return e.Host != "" || e.IP.IsValid() || e.HTTP != nil }

func (e *Event) process() string {
	if e.Process == nil {
		return "-"
	}
	return escapeToken(e.Process.Path, maxPath) + "(" + strconv.Itoa(e.Process.PID) + ")"
}

// target is host:port, or the method and URL of a request.
func (e *Event) target() string {
	host := e.Host
	if host == "" && e.IP.IsValid() {
		host = e.IP.String()
	}
	host = escapeToken(host, maxName)
	if e.Port != 0 {
		host = net.JoinHostPort(host, strconv.Itoa(int(e.Port)))
	}
	if e.HTTP == nil {
		return host
	}
	s := escapeToken(e.HTTP.Method, maxWord) + " " +
		escapeToken(cmp.Or(e.HTTP.Scheme, "http"), maxWord) + "://" + host
	if path := e.HTTP.path(); path != "" {
		s += escapeToken(path, maxPath)
	}
	if e.HTTP.Status != 0 {
		s += " " + strconv.Itoa(e.HTTP.Status)
	}
	return s
}

// path is the request's path without what a secret may be in.
func (h *HTTP) path() string {
	if i := strings.IndexAny(h.Path, "?#"); i >= 0 {
		return h.Path[:i]
	}
	return h.Path
}

// millis is OCSF's timestamp_t.
func millis(t time.Time) int64 { return t.UnixMilli() }
