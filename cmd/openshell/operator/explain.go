// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"openshell.ai/openshell/internal/decision"
	"openshell.ai/openshell/policy"
)

// explainFlags are the action to explain, and how.
type explainFlags struct {
	file, binary, url, method string
	ancestors, resolved       []string
	permissive, asJSON        bool
}

func policyExplainCommand() *cobra.Command {
	var f explainFlags
	cmd := &cobra.Command{
		Use:   "explain NAME | --policy FILE [--binary PATH --url URL [--method METHOD]] [--permissive] [--json]",
		Short: "Say why a policy allows or denies something, and what would change that",
		Long: "Explain a decision: what each layer found, the rules that come nearest, and the rule that would\n" +
			"allow it. URLs of http and https are requests; tcp://HOST:PORT and udp://HOST:PORT are connections.\n" +
			"Without --url, requests are read from standard input, as policy eval reads them. The exit code is\n" +
			"2 if the policy is invalid and 1 if a request was malformed.",
		Example: "  openshell policy explain agent --binary /usr/bin/curl --url https://api.github.com/repos/a/b --method DELETE\n" +
			"  openshell policy explain --policy agent.yaml --binary /usr/bin/git --url tcp://github.com:22",
		Args: args(0, 1),
		RunE: func(cmd *cobra.Command, given []string) error {
			p, err := f.policy(cmd, given)
			if err != nil {
				return err
			}
			s, err := snapshotOf(cmd, p, f.permissive)
			if err != nil {
				return err
			}
			if f.url == "" {
				return f.explainLines(s, p, cmd.InOrStdin(), cmd.OutOrStdout())
			}
			a, err := f.action()
			if err != nil {
				return err
			}
			x, err := s.Explain(p, a)
			if err != nil {
				return err
			}
			return f.write(cmd.OutOrStdout(), x)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.file, "policy", "", "a policy `FILE`, in place of a name")
	flags.StringVar(&f.binary, "binary", "", "the program's `PATH`, as the kernel knows it")
	flags.StringVar(&f.url, "url", "", "the `URL` that it opens")
	flags.StringVar(&f.method, "method", "GET", "the HTTP `METHOD`")
	flags.StringArrayVar(&f.ancestors, "ancestor", nil, "the `PATH` of the program that started it; repeat it, the nearest first")
	flags.StringArrayVar(&f.resolved, "resolved-ip", nil, "an `ADDRESS` that the host resolves to; may be repeated")
	flags.BoolVar(&f.permissive, "permissive", false, "decide as a permissive sandbox does")
	flags.BoolVar(&f.asJSON, "json", false, "write JSON, one object a line")
	return cmd
}

func (f *explainFlags) policy(cmd *cobra.Command, given []string) (*policy.Policy, error) {
	switch {
	case (f.file == "") == (len(given) == 0):
		return nil, errors.New("name the policy, or its file with --policy: " + usage(cmd))
	case f.file != "":
		return policyFrom(cmd, f.file, asFile)
	}
	return policyFrom(cmd, given[0], asName)
}

// action is what the flags describe.
func (f *explainFlags) action() (decision.Action, error) {
	r := decision.Action{Binary: f.binary, Ancestors: f.ancestors, ResolvedIPs: f.resolved}
	if f.binary == "" {
		return r, errors.New("--binary: the program is missing")
	}
	u, err := url.Parse(f.url)
	var wrong *url.Error
	switch {
	case errors.As(err, &wrong):
		return r, fmt.Errorf("--url: %w", wrong.Err)
	case err != nil:
		return r, fmt.Errorf("--url: %w", err)
	case u.Hostname() == "":
		return r, fmt.Errorf("--url %q: is not a URL with a host, such as https://api.example.com/path", f.url)
	}
	r.Host = u.Hostname()
	port := u.Port()
	switch u.Scheme {
	case "http":
		port = cmp.Or(port, "80")
	case "https":
		port = cmp.Or(port, "443")
	case "tcp", "udp":
		r.Protocol = u.Scheme
	default:
		return r, fmt.Errorf("--url %q: its scheme must be http, https, tcp or udp", f.url)
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || number == 0 {
		return r, fmt.Errorf("--url %q: needs a port from 1 to 65535", f.url)
	}
	r.Port = uint16(number)
	if r.Protocol == "" {
		// As it was written: what a client would make of it is not decided here.
		_, rest, _ := strings.Cut(f.url, "://")
		target := "/"
		if at := strings.IndexAny(rest, "/?#"); at >= 0 {
			target = rest[at:]
		}
		if strings.HasPrefix(target, "?") {
			target = "/" + target
		}
		target, _, _ = strings.Cut(target, "#")
		r.HTTP = &decision.RequestLine{Method: f.method, Target: cmp.Or(target, "/")}
	}
	return r, nil
}

// explainLines explains each request line.
func (f *explainFlags) explainLines(s decision.Snapshot, p *policy.Policy, in io.Reader, out io.Writer) error {
	return answerLines(in, out, func(w io.Writer, line []byte) error {
		a, err := parseAction(line)
		if err != nil {
			return err
		}
		x, err := s.Explain(p, a)
		if err != nil {
			return err
		}
		if err := f.write(w, x); err != nil {
			return writeError{err}
		}
		return nil
	}, f.writeError)
}

func (f *explainFlags) writeError(w io.Writer, malformed error) error {
	if !f.asJSON {
		_, err := fmt.Fprintf(w, "error: %s\n\n", plain(malformed.Error()))
		return err
	}
	return jsonLine(w, errorAnswer{plain(malformed.Error())})
}

func jsonLine(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// layers are what an explanation's layers are called for people.
var layers = map[string]string{"l4": "connection", "ssrf": "addresses", "l7": "request"}

// write writes an explanation for people, or as a line of JSON.
func (f *explainFlags) write(w io.Writer, x decision.Explanation) error {
	if f.asJSON {
		return jsonLine(w, x)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n", x.Decision.Decision, plain(x.Action))
	for _, s := range x.Steps {
		fmt.Fprintf(&b, "  %-11s %-5s  %s", layers[s.Layer], s.Outcome, plain(s.Reason))
		if len(s.Rules) > 0 {
			fmt.Fprintf(&b, " (%s)", plain(strings.Join(s.Rules, ", ")))
		}
		b.WriteByte('\n')
	}
	if len(x.Nearest) > 0 {
		b.WriteString("nearest rules:\n")
	}
	for _, n := range x.Nearest {
		fmt.Fprintf(&b, "  %s: %s\n", plain(n.Rule), plain(n.Reason))
	}
	if x.Add != "" {
		b.WriteString("to allow it, add to network_policies:\n")
		for line := range strings.Lines(x.Add) {
			b.WriteString("  " + line)
		}
	}
	if x.Advice != "" {
		b.WriteString(plain(x.Advice) + "\n")
	}
	b.WriteByte('\n')
	_, err := io.WriteString(w, b.String())
	return err
}
