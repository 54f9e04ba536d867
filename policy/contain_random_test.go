package policy

import (
	"math/rand/v2"
	"strconv"
	"testing"
)

// dice makes policies and requests of a small world, in which they meet often.
type dice struct{ *rand.Rand }

func newDice(seed uint64) dice { return dice{rand.New(rand.NewPCG(seed, 1))} }

func (d dice) one(of ...string) string { return of[d.IntN(len(of))] }

func (d dice) chance(percent int) bool { return d.IntN(100) < percent }

func (d dice) policy() *Policy {
	p := &Policy{Version: 1, Network: map[string]*Rule{}}
	for i := range 1 + d.IntN(3) {
		p.Network["r"+strconv.Itoa(i)] = d.rule()
	}
	return p
}

func (d dice) rule() *Rule {
	r := &Rule{}
	if d.chance(70) {
		for range 1 + d.IntN(2) {
			r.Binaries = append(r.Binaries, Binary{d.one("/bin/a", "/bin/b", "/bin/*", "/opt/**", "/opt/x/*", "**", "/opt/x/{a,b}*")})
		}
		r.Learned = d.chance(40)
	}
	for range 1 + d.IntN(2) {
		r.Endpoints = append(r.Endpoints, d.endpoint())
	}
	return r
}

func (d dice) endpoint() Endpoint {
	e := Endpoint{
		Host: d.one("a.example.com", "a.example.com", "b-x.example.com", "*.example.com", "**.example.com", "*-x.example.com", "a.*.example.com", "10.0.0.1", "1.1.1.1"),
		Port: 443,
	}
	if d.chance(10) {
		e.Port = 6443
	}
	if d.chance(30) {
		e.AllowedIPs = []string{d.one("10.0.0.0/8", "10.0.0.0/24", "1.1.1.0/24", "10.0.0.1")}
		if d.chance(20) {
			e.Host = ""
		}
	}
	if d.chance(30) {
		e.TLS = d.one("", TLSSkip)
		return e
	}
	e.Protocol = ProtocolREST
	e.Enforcement = d.one(EnforcementEnforce, EnforcementEnforce, EnforcementEnforce, EnforcementAudit)
	e.Path = d.one("", "", "", "/x/**", "/x/*", "/**", "/y/**")
	e.AllowEncodedSlash = d.chance(15)
	if d.chance(30) {
		e.Access = d.one(AccessReadOnly, AccessReadWrite, AccessFull)
	} else {
		for range 1 + d.IntN(3) {
			e.Rules = append(e.Rules, L7Allow{d.match()})
		}
	}
	for range max(0, d.IntN(4)-2) {
		e.DenyRules = append(e.DenyRules, d.match())
	}
	return e
}

func (d dice) match() L7Match {
	m := L7Match{
		Method: d.one("GET", "HEAD", "POST", "*", "get"),
		Path:   d.one("**", "/**", "/x/**", "/x/*", "/x/a", "/x/?", "/x/[ab]", "/x/{a,b}", "/y/a", "/**/a", "/x/a*"),
	}
	if d.chance(25) {
		m.Query = map[string]Matcher{d.one("q", "r"): {Any: [][]string{{"1"}, {"*"}, {"1", "2"}, {"?"}, {"1*"}}[d.IntN(5)]}}
	}
	return m
}

// wider returns a policy that often allows what p does.
func (d dice) wider(p *Policy) *Policy {
	w := p.Clone()
	if d.chance(50) {
		w.Network["more"] = d.rule()
	}
	for _, key := range []string{"r0", "r1", "r2"} {
		r := w.Network[key]
		if r == nil || d.chance(30) {
			continue
		}
		if d.chance(20) {
			r.Binaries, r.Learned = nil, false
		}
		for i := range r.Endpoints {
			d.widen(&r.Endpoints[i], r)
		}
	}
	return w
}

func (d dice) widen(e *Endpoint, r *Rule) {
	switch d.IntN(7) {
	case 0:
		e.DenyRules = nil
	case 1:
		if e.Host != "" {
			e.AllowedIPs = nil
		}
		r.Learned = false
	case 2:
		e.Path, e.DenyRules = "", nil
	case 3:
		if e.Protocol == ProtocolREST {
			e.Access, e.Rules = AccessFull, nil
		}
	case 4:
		*e = Endpoint{Host: e.Host, Port: e.Port, AllowedIPs: e.AllowedIPs}
	case 5:
		if e.Host == "a.example.com" {
			e.Host = d.one("*.example.com", "**.example.com")
		}
	case 6:
		for i := range e.Rules {
			e.Rules[i].Allow.Path = d.one("/**", "/x/**", e.Rules[i].Allow.Path)
			e.Rules[i].Allow.Query = nil
		}
	}
}

func (d dice) request() EvalRequest {
	binary := func() string { return d.one("/bin/a", "/bin/b", "/bin/c", "/opt/y", "/opt/x/a", "/opt/x/c/d") }
	r := EvalRequest{
		Binary: binary(),
		Host:   d.one("a.example.com", "a.example.com", "A.example.com.", "b-x.example.com", "a.b.example.com", "c.example.com", "10.0.0.1", "1.1.1.1", "10.0.0.2"),
		Port:   443,
	}
	if d.chance(30) {
		r.Ancestors = []string{binary()}
	}
	if d.chance(10) {
		r.Port = 6443
	}
	if _, literal := hostAddr(r.Host); !literal && d.chance(60) {
		r.ResolvedIPs = []string{d.one("1.1.1.1", "1.1.2.1", "10.0.0.1", "10.0.0.9", "10.9.9.9", "127.0.0.1", "2606:4700::1")}
	}
	if d.chance(85) {
		r.HTTP = &EvalHTTP{
			Method: d.one("GET", "HEAD", "POST", "PUT", "DELETE"),
			Target: d.one("/x/a", "/x/b", "/x/ab", "/y/a", "/", "/x", "/x/a/a", "/x/%2Fa", "/z/a") +
				d.one("", "", "?q=1", "?q=2", "?q=12", "?q=1&q=2", "?r=1", "?q=1&r=1", "?q=%zz", "?q=1.1"),
		}
	}
	return r
}

// checkWithin compares two random policies, and asks both the same if the one is
// within the other. It returns whether it is, and how much was allowed.
func checkWithin(t *testing.T, seed uint64) (bool, int) {
	t.Helper()
	d := newDice(seed)
	p := d.policy()
	maximum := d.policy()
	if d.chance(80) {
		maximum = d.wider(p)
	}
	if p.Validate() != nil || maximum.Validate() != nil {
		t.Fatalf("seed %d: not valid: %v, %v", seed, p.Validate(), maximum.Validate())
	}
	if err := Within(p, p); err != nil {
		t.Errorf("seed %d: not within itself: %v\n%s", seed, err, text(t, p))
	}
	if Within(p, maximum) != nil {
		return false, 0
	}
	own, most := mustCompile(t, p), mustCompile(t, maximum)
	allowed := 0
	for range 300 {
		r := d.request()
		a, err := own.Evaluate(r, false)
		if err != nil {
			t.Fatal(err)
		}
		if a.Decision == Deny.String() {
			continue
		}
		allowed++
		if b, _ := most.Evaluate(r, false); b.Decision == Deny.String() {
			t.Fatalf("seed %d: %+v %+v is %+v, but the maximum says %+v\n%s\nmaximum:\n%s", seed, r, r.HTTP, a, b, text(t, p), text(t, maximum))
		}
	}
	return true, allowed
}

func text(t *testing.T, p *Policy) string {
	data, err := Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// Whatever is shown to be within a maximum is decided so.
func TestWithinIsSound(t *testing.T) {
	within, allowed, n := 0, 0, 600
	if testing.Short() {
		n = 150
	}
	for seed := range n {
		ok, some := checkWithin(t, uint64(seed))
		if ok {
			within++
		}
		allowed += some
	}
	t.Logf("%d of %d within, %d requests allowed", within, n, allowed)
	if within < n/5 || allowed < n*5 {
		t.Errorf("%d of %d within, %d requests allowed: the test says too little", within, n, allowed)
	}
}

func FuzzWithin(f *testing.F) {
	f.Add(uint64(1))
	f.Fuzz(func(t *testing.T, seed uint64) { checkWithin(t, seed) })
}
