// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	"openshell.ai/openshell/internal/audit"
	"openshell.ai/openshell/internal/learn/paths"
)

// Bounds of what a proposal shows. The rule is not affected by them.
const (
	maxSamples     = 100
	maxReasons     = 16
	maxIPs         = 16
	maxRuns        = 128
	maxAncestors   = 64
	maxShownPath   = 512
	maxShownReason = 256
	maxShownName   = 256
	maxShownMethod = 32
)

// Evidence is what denials of one connection target add up to. Adding is commutative and associative:
// the order of denials, flushes, runs and containers does not matter.
type Evidence struct {
	policy string
	target target
	id     string // the proposal's

	connects bool // connections whose content was not seen
	raw      bool // content that is not HTTP
	tlsSkip  bool
	tlsFault string // why the origin's TLS could not be ended by the proxy, for one of the connections
	tls      string
	requests map[endpointKey]*paths.Set
	calls    map[endpointKey]*callSet
	files    *fileSet // nil for a target that is no tree

	inexpressible bool // requests were seen that no rule can name
	truncated     bool // some evidence was lost
	replaced      bool // the program's content changed

	permissive bool
	sha256     string
	ancestors  []string

	hits    int
	reasons map[string]int
	samples map[request]Sample
	ips     []netip.Addr // sorted
	runs    map[string]RunEvidence
	latest  latest
}

// size is about how many bytes of memory the evidence takes.
func (e *Evidence) size() int {
	n := evidenceSize + len(e.reasons)*(maxShownReason+mapEntry) + len(e.samples)*(maxShownPath/2+mapEntry) +
		len(e.runs)*2*mapEntry
	for _, set := range e.requests {
		n += 2 * set.Size()
	}
	for _, set := range e.calls {
		n += 2*set.bytes + len(set.calls)*2*mapEntry
	}
	if e.files != nil {
		n += e.files.bytes + len(e.files.uses)*8*mapEntry
	}
	return n
}

// evidenceSize is about how many bytes evidence takes without its parts that grow.
const evidenceSize = 2 << 10

type request struct{ method, path string }

// latest is what the newest denial's run says of itself.
type latest struct {
	seen             time.Time
	basePolicySHA256 string
	ttl              string
}

func newEvidence(policyName string, t target) *Evidence {
	e := &Evidence{
		policy: policyName, target: t, id: shortID(policyName, t),
		requests: map[endpointKey]*paths.Set{}, calls: map[endpointKey]*callSet{},
		reasons: map[string]int{}, samples: map[request]Sample{}, runs: map[string]RunEvidence{},
	}
	if t.tree != "" {
		e.files = newFileSet(t.tree)
	}
	return e
}

// add takes in one denial of the evidence's target.
func (e *Evidence) add(run Run, d Denial) {
	e.addHit(run, d.Time.UTC(), d.Permissive, d.SHA256)
	e.addAncestors(d.Ancestors)
	for _, ip := range d.IPs {
		e.addIP(ip.Unmap().WithZone(""))
	}
	e.addContent(d)
	e.addReason(reasonFor(d), 1)
}

// addHit takes in that there was a denial.
func (e *Evidence) addHit(run Run, seen time.Time, permissive bool, sha256 string) {
	e.hits++
	e.permissive = e.permissive || permissive
	e.addRun(RunEvidence{
		Run: run.ID, Sandbox: run.Sandbox, Image: audit.Escape(run.Image, maxShownName),
		Hits: 1, FirstSeen: seen, LastSeen: seen,
	})
	e.addLatest(latest{seen: seen, basePolicySHA256: run.BasePolicySHA256, ttl: run.TTL}, sha256)
}

// addContent takes in what was seen of the connection's content.
func (e *Evidence) addContent(d Denial) {
	if d.TLSSkip {
		e.addTLS("spliced")
	}
	if d.TLSFault != "" {
		// Whoever is at the origin chose that: it must not widen what was seen of it otherwise.
		e.tlsFault = cmp.Or(e.tlsFault, audit.Escape(d.TLSFault, maxShownReason))
		return
	}
	e.tlsSkip = e.tlsSkip || d.TLSSkip
	switch d.Kind {
	case KindConnect:
		e.connects = true
	case KindRaw:
		e.raw = true
		e.addTLS(cmp.Or(d.TLS, "none"))
	case KindHTTP, KindMessage:
		e.addRequest(d)
	}
}

func (e *Evidence) addRequest(d Denial) {
	method := strings.ToUpper(d.Method)
	e.addSample(Sample{
		Method: audit.Escape(method, maxShownMethod),
		Path:   audit.Escape(Mask(withoutQuery(d.Path)), maxShownPath),
		Count:  1, Status: d.Status,
	})
	e.addTLS(cmp.Or(d.TLS, "none"))
	if d.L7 != "" {
		e.addMissing(d)
		return
	}
	if len(d.Missing) == 0 {
		e.addRequestOf(undeclared, method, d.Path)
		return
	}
	for _, m := range d.Missing { // every way to read the path
		e.addMatch(undeclared, method, m)
	}
}

// isMethod reports whether a rule can name this method, and by it no other. The tokens of
// RFC 9110 that are left out, `*` among them, are not in use.
func isMethod(s string) bool {
	return s != "" && len(s) <= maxShownMethod && all(s, func(c byte) bool { return isUpper(c) || c == '-' || c == '_' })
}

func withoutQuery(path string) string {
	if i := strings.IndexAny(path, "?#"); i >= 0 {
		return path[:i]
	}
	return path
}

// reasonFor is the denial's reason with the request's path, which may hold a secret, in
// its general form.
func reasonFor(d Denial) string {
	reason := d.Reason
	if len(d.Path) > 1 && strings.Contains(reason, d.Path) {
		reason = strings.ReplaceAll(reason, d.Path, generalised(withoutQuery(d.Path)))
	}
	return audit.Escape(reason, maxShownReason)
}

// merge takes in other evidence of the same target.
func (e *Evidence) merge(o *Evidence) {
	e.hits += o.hits
	e.connects = e.connects || o.connects
	e.raw = e.raw || o.raw
	e.tlsSkip = e.tlsSkip || o.tlsSkip
	e.tlsFault = cmp.Or(e.tlsFault, o.tlsFault)
	e.inexpressible = e.inexpressible || o.inexpressible
	e.truncated = e.truncated || o.truncated
	e.replaced = e.replaced || o.replaced
	e.permissive = e.permissive || o.permissive
	e.addTLS(o.tls)
	e.mergeEndpoints(o)
	if o.files != nil {
		e.files.merge(o.files)
	}
	e.addLatest(o.latest, o.sha256)
	e.addAncestors(o.ancestors)
	for reason, n := range o.reasons {
		e.addReason(reason, n)
	}
	for _, s := range o.samples {
		e.addSample(s)
	}
	for _, ip := range o.ips {
		e.addIP(ip)
	}
	for _, r := range o.runs {
		e.addRun(r)
	}
}

// dropDetails leaves of evidence that there is no room for how much there was, and that it is lost.
func (e *Evidence) dropDetails() {
	e.truncated = true
	clear(e.requests)
	clear(e.calls)
	clear(e.reasons)
	clear(e.samples)
	e.ips = nil
	if e.files != nil {
		e.files = newFileSet(e.target.tree)
	}
}

// addTLS keeps what says most about how the content was, or could not be, looked into.
func (e *Evidence) addTLS(tls string) {
	order := []string{"", "none", "terminated", "spliced"}
	if slices.Index(order, tls) > slices.Index(order, e.tls) {
		e.tls = tls
	}
}

// addLatest keeps the newest; a program with new content is worth a warning.
func (e *Evidence) addLatest(l latest, sha256 string) {
	if sha256 != "" && e.sha256 != "" && sha256 != e.sha256 {
		e.replaced = true
	}
	newer := cmp.Or(
		l.seen.Compare(e.latest.seen),
		cmp.Compare(l.basePolicySHA256, e.latest.basePolicySHA256),
		cmp.Compare(l.ttl, e.latest.ttl),
		cmp.Compare(sha256, e.sha256),
	) > 0
	if newer {
		e.latest = l
	}
	if sha256 != "" && (newer || e.sha256 == "") {
		e.sha256 = audit.Escape(sha256, maxShownName)
	}
}

// addAncestors keeps one of the chains that were seen, always the same one.
func (e *Evidence) addAncestors(chain []string) {
	if len(chain) == 0 {
		return
	}
	shown := make([]string, 0, min(len(chain), maxAncestors))
	for _, a := range chain[:cap(shown)] {
		shown = append(shown, audit.Escape(a, maxShownName))
	}
	if e.ancestors == nil || slices.Compare(shown, e.ancestors) < 0 {
		e.ancestors = shown
	}
}

func (e *Evidence) addIP(ip netip.Addr) {
	i, found := slices.BinarySearchFunc(e.ips, ip, netip.Addr.Compare)
	if found || i == maxIPs || !ip.IsValid() {
		return
	}
	e.ips = slices.Insert(e.ips, i, ip)
	e.ips = e.ips[:min(len(e.ips), maxIPs)]
}

func (e *Evidence) addReason(reason string, n int) {
	if reason == "" {
		return
	}
	e.reasons[reason] += n
	keepSmallest(e.reasons, maxReasons, cmp.Compare)
}

func (e *Evidence) addSample(s Sample) {
	key := request{s.Method, s.Path}
	old := e.samples[key]
	s.Count += old.Count
	// The lowest status shows whether the request has ever worked.
	if old.Status != 0 && (s.Status == 0 || old.Status < s.Status) {
		s.Status = old.Status
	}
	e.samples[key] = s
	keepSmallest(e.samples, maxSamples, request.compare)
}

func (r request) compare(o request) int {
	return cmp.Or(cmp.Compare(r.path, o.path), cmp.Compare(r.method, o.method))
}

func (e *Evidence) addRun(r RunEvidence) {
	if old, ok := e.runs[r.Run]; ok {
		r.Hits += old.Hits
		r.Sandbox, r.Image = max(r.Sandbox, old.Sandbox), max(r.Image, old.Image)
		if old.FirstSeen.Before(r.FirstSeen) {
			r.FirstSeen = old.FirstSeen
		}
		if old.LastSeen.After(r.LastSeen) {
			r.LastSeen = old.LastSeen
		}
	}
	e.runs[r.Run] = r
	keepSmallest(e.runs, maxRuns, func(a, b string) int { // the newest
		return cmp.Or(e.runs[b].LastSeen.Compare(e.runs[a].LastSeen), cmp.Compare(a, b))
	})
}

// mapEntry is about what an entry of a map costs besides its text.
const mapEntry = 128

// keepSmallest bounds a map by its keys' order rather than by their order of arrival, so
// that what is kept does not depend on the latter.
func keepSmallest[K comparable, V any](m map[K]V, limit int, compare func(a, b K) int) {
	for len(m) > limit {
		delete(m, greatestKey(m, compare))
	}
}

// greatestKey is the greatest key of a map that is not empty.
func greatestKey[K comparable, V any](m map[K]V, compare func(a, b K) int) K {
	var greatest K
	first := true
	for key := range m {
		if first || compare(key, greatest) > 0 {
			greatest, first = key, false
		}
	}
	return greatest
}
