// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"path"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"openshell.ai/openshell/internal/audit"
	"openshell.ai/openshell/internal/confine"
	"openshell.ai/openshell/internal/decision"
	"openshell.ai/openshell/internal/learn"
	"openshell.ai/openshell/internal/validname"
	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/policy/engine"
)

func policyProposeCommand() *cobra.Command {
	var base, name string
	var asJSON bool
	var include learn.Include
	cmd := &cobra.Command{
		Use:   "propose [--base FILE] [--name NAME] [--json | [--include-truncated] [--include-sensitive] [--include-varying-ports]]",
		Short: "Make a policy from a log of what was done",
		Long: "Read what a workload did from standard input, and write the policy that allows it: the base, and\n" +
			"what approving every proposal would add. Each line is a request, as openshell policy eval reads\n" +
			"them, with \"run\" and \"time\" besides if they are known; or a file in the place of the host,\n" +
			`as "file": {"path": "/data/x", "access": "read|write|execute"}; or an OCSF event, as` + "\n" +
			"openshell logs SANDBOX --json prints them. No state is read or changed. What no rule can be made for is\n" +
			"told on standard error. Left out are proposals that do not tell all that was seen, or allow more than\n" +
			"that because there was too much of it, unless --include-truncated is given, and those that grant a\n" +
			"sensitive directory whole, unless --include-sensitive is, and those for ports that the server chooses\n" +
			"anew each time, unless --include-varying-ports is. The exit code is 2 if the base is invalid,\n" +
			"and 1 if a line was malformed or something was left out.",
		Example: "  openshell logs build-1 --json | openshell policy propose --name build > build.yaml\n" +
			"  openshell policy propose --base build.yaml --json < requests.jsonl",
		Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := validname.Check(name); err != nil {
				return fmt.Errorf("--name: %w", err)
			}
			p, err := newProposer(base, name)
			if invalid := new(policy.Errors); errors.As(err, invalid) {
				writeProblems(cmd.ErrOrStderr(), base, err)
				return &exitError{exitInvalid}
			}
			if err != nil {
				return err
			}
			malformed, err := p.readAll(cmd.InOrStdin(), cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			complete, err := p.write(cmd.OutOrStdout(), cmd.ErrOrStderr(), asJSON, include)
			if err != nil {
				return err
			}
			if malformed || !complete {
				return &exitError{exitFailed}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&base, "base", "", "the policy `FILE` to add to; the built-in default if absent")
	cmd.Flags().StringVar(&name, "name", "proposed", "the policy's `NAME`, which the proposals' ids are made from")
	cmd.Flags().BoolVar(&asJSON, "json", false, "write the proposals instead, one JSON object a line")
	includeFlags(cmd, &include, "")
	cmd.MarkFlagsMutuallyExclusive("json", "include-truncated")
	cmd.MarkFlagsMutuallyExclusive("json", "include-sensitive")
	cmd.MarkFlagsMutuallyExclusive("json", "include-varying-ports")
	return cmd
}

// proposer holds what was done against a base policy, and gathers what it denies.
type proposer struct {
	base   *policy.Policy
	digest string            // the base's
	rules  decision.Snapshot // the base, permissively
	files  learn.FileRules
	found  *learn.Gatherer
}

func newProposer(file, name string) (*proposer, error) {
	p := &proposer{base: policy.Default(), found: learn.NewGatherer(name)}
	if file != "" {
		data, err := readPolicy(strings.NewReader(""), file)
		if err != nil {
			return nil, err
		}
		if p.base, _, err = policy.Parse(data); err != nil {
			return nil, err
		}
	}
	p.digest = p.base.Digest()
	rules := confine.RulesetFor(p.base)
	p.files = learn.FileRules{ReadOnly: rules.ReadOnly, ReadWrite: rules.ReadWrite}
	var err error
	p.rules.Permissive = true
	p.rules.Effective, err = engine.Compile(p.base, engine.Options{})
	return p, err
}

// readAll takes in all lines. Those that cannot be read are told, and left out.
func (p *proposer) readAll(in io.Reader, problems io.Writer) (malformed bool, err error) {
	lines := newLineReader(in, maxRequestLine)
	for n := 1; ; n++ {
		line, err := lines.next()
		if errors.Is(err, io.EOF) {
			return malformed, nil
		}
		if err != nil && !errors.Is(err, errLineTooLong) {
			return malformed, fmt.Errorf("read requests: %w", err)
		}
		if err == nil && len(bytes.TrimSpace(line)) > 0 {
			err = p.take(line)
		}
		if err != nil {
			malformed = true
			fmt.Fprintf(problems, "line %d: %s\n", n, plain(err.Error()))
		}
	}
}

// logged is a line: a request, or an access to a file, of a run.
type logged struct {
	decision.Action
	Run  string     `json:"run"`
	Time time.Time  `json:"time"`
	File *fileField `json:"file"`
}

type fileField struct {
	Path   string `json:"path"`
	Access string `json:"access"`
}

var fileAccesses = map[string]learn.FileOp{
	"read": learn.OpRead, "write": learn.OpWrite | learn.OpCreate, "execute": learn.OpExecute | learn.OpRead,
}

func (p *proposer) take(line []byte) error {
	r, ok, err := parseEvent(line)
	if err != nil {
		return err
	}
	if !ok {
		if err := parseStrictly(line, &r); err != nil {
			return err
		}
	} else if r.Host == "" && r.File == nil {
		return nil // an event about something else
	}
	run := learn.Run{ID: r.Run, Policy: "", Mode: learn.ModePermissive, Started: r.Time, BasePolicySHA256: p.digest}
	if run.ID == "" {
		run.ID = "log"
	}
	if r.File != nil {
		return p.takeFile(run, &r)
	}
	v, err := p.rules.Evaluate(r.Action)
	if err != nil {
		return err
	}
	switch v.Decision {
	case decision.Allowed.String():
		return nil
	case decision.Denied.String(): // in permissive mode: what no rule could allow
		p.found.Note(noteOf(&r, v))
		return nil
	}
	d := learn.Denial{
		Time: r.Time, Permissive: true, Layer: v.Layer, Host: r.Host, Port: r.Port, Protocol: r.Protocol,
		Binary: r.Binary, Ancestors: r.Ancestors, Reason: v.Reason,
		Method: v.HTTP.Method, Path: v.HTTP.Path,
	}
	for _, text := range r.ResolvedIPs {
		ip, err := netip.ParseAddr(text)
		if err != nil {
			return err
		}
		d.IPs = append(d.IPs, ip)
	}
	switch {
	case r.HTTP == nil:
		p.found.Observe(run, d)
	case !v.Connection.Ruled():
		d.Kind, d.Missing = learn.KindHTTP, v.Request.Missing
		p.found.Observe(run, d)
	default:
		p.observe(run, d, learn.KindHTTP, v.Request)
		p.observe(run, d, learn.KindMessage, v.Message)
	}
	return nil
}

// noteOf says why there can be no proposal for a request.
func noteOf(r *logged, v decision.Evaluation) learn.Note {
	n := learn.Note{Kind: learn.NoteMalformed, Host: r.Host, Port: r.Port, Binary: r.Binary, Reason: v.Reason}
	if v.Layer == decision.LayerSSRF {
		n.Kind = learn.NoteAddress
	}
	return n
}

// observe takes in what a request or a message lacks.
func (p *proposer) observe(run learn.Run, d learn.Denial, kind learn.Kind, what decision.Decision) {
	if !what.Learnable {
		return // allowed, audited or not decided
	}
	d.Kind, d.L7, d.EndpointPath, d.Missing, d.Reason = kind, what.Protocol, what.EndpointPath, what.Missing, what.Reason
	p.found.Observe(run, d)
}

func (p *proposer) takeFile(run learn.Run, r *logged) error {
	op, ok := fileAccesses[r.File.Access]
	switch {
	case r.Host != "":
		return errors.New("file and host exclude each other: a line is about one thing")
	case !ok:
		return fmt.Errorf("file.access must be read, write or execute, not %q", r.File.Access)
	case !path.IsAbs(r.File.Path):
		return fmt.Errorf("file.path must be absolute (start with '/'): %q", r.File.Path)
	}
	a := learn.FileAccess{Time: r.Time, Path: path.Clean(r.File.Path), Op: op,
		Binary: r.Binary, Ancestors: r.Ancestors, Permissive: true}
	if !p.files.Allows(a) {
		p.found.ObserveFile(run, a)
	}
	return nil
}

// write writes the proposals, or the policy with all of them. It is not complete where something was
// left out that there are, or should be, proposals for.
func (p *proposer) write(out, problems io.Writer, asJSON bool, include learn.Include) (complete bool, err error) {
	proposals := p.found.Proposals()
	complete = p.found.Lost() == 0
	for _, n := range p.found.Notes() {
		fmt.Fprintf(problems, "not proposed: %s: %s\n", count(n.Count, "line", "lines"), n.Kind.Explain())
		for _, s := range n.Samples {
			fmt.Fprintf(problems, "  %s\n", plain(s))
		}
	}
	if asJSON {
		enc := json.NewEncoder(out)
		enc.SetEscapeHTML(false)
		for i := range proposals {
			if err := enc.Encode(&proposals[i]); err != nil {
				return false, fmt.Errorf("write proposals: %w", err)
			}
		}
		return complete, nil
	}
	learned := &policy.Policy{Version: 1}
	for i := range proposals {
		if why := include.LeavesOut(&proposals[i]); why != "" {
			complete = false
			flag := ""
			for _, by := range learn.Reasons() {
				if by.Reason == why {
					flag = by.Flag
				}
			}
			fmt.Fprintf(problems, "left out, because %s: proposal %s: %s: look at it with --json, or use --%s\n",
				why, proposals[i].ID, subject(&proposals[i]), flag)
			continue
		}
		proposals[i].AddTo(learned)
	}
	data, err := policy.Marshal(policy.Merge(p.base, learned))
	if err != nil {
		return false, err
	}
	_, err = out.Write(data)
	return complete, err
}

// parseEvent reads an OCSF event. It is false for a line that is none.
func parseEvent(line []byte) (logged, bool, error) {
	var e struct {
		Class uint32 `json:"class_uid"`
		Time  int64  `json:"time"` // in milliseconds since 1970
		Actor struct {
			Process struct {
				Path     string                  `json:"path"`
				Ancestry []struct{ Path string } `json:"ancestry"`
			} `json:"process"`
		} `json:"actor"`
		Destination struct {
			Domain string `json:"domain"`
			IP     string `json:"ip"`
			Port   uint16 `json:"port"`
		} `json:"dst_endpoint"`
		Connection struct {
			Protocol string `json:"protocol_name"`
		} `json:"connection_info"`
		Request *struct {
			Method string `json:"http_method"`
			URL    struct {
				Path string `json:"path"`
			} `json:"url"`
		} `json:"http_request"`
		Unmapped struct {
			Sandbox string `json:"sandbox"`
		} `json:"unmapped"`
	}
	// Strictness is for requests, which are written for this command.
	if err := json.Unmarshal(line, &e); err != nil || e.Class == 0 {
		return logged{}, false, nil
	}
	r := logged{Run: e.Unmapped.Sandbox, Time: time.UnixMilli(e.Time).UTC()}
	class := audit.Class(e.Class)
	if class != audit.ClassNetwork && class != audit.ClassHTTP || e.Actor.Process.Path == "" || e.Destination.Port == 0 {
		return r, true, nil
	}
	r.Binary, r.Port, r.Protocol = e.Actor.Process.Path, e.Destination.Port, e.Connection.Protocol
	for _, a := range e.Actor.Process.Ancestry {
		r.Ancestors = append(r.Ancestors, a.Path)
	}
	if r.Host = e.Destination.Domain; r.Host == "" {
		r.Host = e.Destination.IP
	}
	if e.Destination.IP != "" {
		r.ResolvedIPs = []string{e.Destination.IP}
	}
	if e.Request != nil {
		r.HTTP = &decision.RequestLine{Method: e.Request.Method, Target: unmask(e.Request.URL.Path)}
	}
	return r, true, nil
}

// unmask puts an identifier into the place of each segment that the log hides: a rule for it is as general
// as one for the secret.
func unmask(target string) string {
	segments := strings.Split(target, "/")
	for i, s := range segments {
		if s == "*" {
			segments[i] = strings.Repeat("0123456789abcdef", 4)
		}
	}
	return strings.Join(segments, "/")
}
