// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"

	"go.yaml.in/yaml/v4"
)

// Protocol is what the language knows of one value of an endpoint's protocol. Each is in a
// file of its own, and protocols lists them; what decides by it is package engine's, and
// what compares it package prover's.
type Protocol struct {
	Name string
	// Rank is 0 where connections are decided, not requests. Of several for one path, the
	// protocol of the highest rank decides, which looks at most. Those of the same rank
	// read the content in different ways and exclude each other.
	Rank int
	// HTTP: rules may be on method, path and query.
	HTTP bool
	// Content: what requests or messages carry decides as well, or alone.
	Content bool
	// Malformed is what clients are told of content that cannot be read.
	Malformed string

	transport bool // it names only what carries the connection: no field of an inspected endpoint goes with it
	options   []option
	fields    []matchField // that its rules brought into the language
	alsoOf    []string     // protocols whose fields, and single fields, that its rules may have as well
	presets   map[string][]L7Match
	noPresets string // why access cannot be used

	// Each of these may be nil.

	noRules      func(e *Endpoint) (field, reason string) // what is missing where there are neither rules nor access; "": nothing
	check        func(v *validator, path string, e *Endpoint)
	checkOptions func(v *validator, path string, e *Endpoint) // whatever the endpoint's protocol is
	unused       func(v *validator, path string, e *Endpoint) // of options of an endpoint that has another protocol
	checkMatch   func(v *validator, path string, e *Endpoint, m *L7Match)
	maxBody      func(e *Endpoint) uint32
	traits       func(e *Endpoint) []trait
	canonicalize func(e *Endpoint)
	fit          func(e *Endpoint)
}

// option is a field of endpoints that is for single protocols.
type option struct {
	name   string
	given  func(e *Endpoint) bool
	decode func(d *decoder, to *Endpoint) field
}

// matchField is a field of L7Match. Which protocols have it is theirs to say.
type matchField struct {
	name    string
	present func(m *L7Match) bool
	refused string // why another protocol, which it names, does not have it
	decode  func(d *decoder, to *L7Match) field
	words   func(m *L7Match) string // for people
}

// trait is something that endpoints of a protocol for the same requests have to agree on.
type trait struct {
	name  string
	value any
}

// protocols are those of the language, in the order in which messages name them. They are
// set by init, since the functions of some of them go through all.
var protocols []*Protocol

func init() {
	protocols = []*Protocol{&tcp, &udp, &rest, &websocket, &graphql, &sql, &jsonRPC, &mcp}
}

// ProtocolOf returns the protocol of a name, or nil where there is none.
func ProtocolOf(name string) *Protocol {
	if name == "" {
		return &unnamed
	}
	for _, p := range protocols {
		if p.Name == name {
			return p
		}
	}
	return nil
}

// Inspected reports whether a protocol is decided per request.
func Inspected(protocol string) bool {
	p := ProtocolOf(protocol)
	return p != nil && p.Rank > 0
}

// protocol is the endpoint's, or what an absent one means where it is unknown.
func (e *Endpoint) protocol() *Protocol {
	if p := ProtocolOf(e.Protocol); p != nil {
		return p
	}
	return &unnamed
}

// Allowed returns what an inspected endpoint allows: its rules, or what its
// access stands for.
func (e *Endpoint) Allowed() []L7Match {
	if e.Access != "" {
		return e.protocol().presets[e.Access]
	}
	allowed := make([]L7Match, len(e.Rules))
	for i := range e.Rules {
		allowed[i] = e.Rules[i].Allow
	}
	return allowed
}

// What is read of one request that is decided by its body, in bytes.
const (
	defaultInspectedBytes = 64 << 10
	maxInspectedBytes     = 64 << 20
)

// MaxBody returns how many bytes of a request's body are inspected.
func (e *Endpoint) MaxBody() int {
	if maxBody := e.protocol().maxBody; maxBody != nil {
		if limit := maxBody(e); limit != 0 {
			return int(limit)
		}
	}
	return defaultInspectedBytes
}

// Fit sets the options that an endpoint needs for its rules, which name literally what was seen.
func (e *Endpoint) Fit() {
	if fit := e.protocol().fit; fit != nil {
		fit(e)
	}
}

// Special is what an endpoint says besides what is compared field by field. It
// has to be the same in both policies.
func (e Endpoint) Special() Endpoint {
	e.Host, e.Path, e.Port, e.Ports, e.Protocol, e.TLS, e.Enforcement = "", "", 0, nil, "", "", ""
	e.Access, e.Rules, e.DenyRules, e.AllowedIPs, e.AllowEncodedSlash = "", nil, nil, nil, false
	return e
}

// options are the fields of endpoints that are for single protocols.
func (d *decoder) options(to *Endpoint, fields map[string]field) {
	for _, p := range protocols {
		for _, o := range p.options {
			fields[o.name] = o.decode(d, to)
		}
	}
}

func (d *decoder) match(to *L7Match) field {
	fields := map[string]field{}
	for _, p := range protocols {
		for _, f := range p.fields {
			fields[f.name] = f.decode(d, to)
		}
	}
	return func(n *yaml.Node, path string) { d.mapping(n, path, fields) }
}

// borrows reports whether the protocol's rules may have a field that is another protocol's.
func (p *Protocol) borrows(field, of string) bool {
	return slices.Contains(p.alsoOf, of) || slices.Contains(p.alsoOf, field)
}
