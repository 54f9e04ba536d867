// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v4"
	"golang.org/x/sys/unix"

	"openshell.ai/openshell/internal/fileio"
	"openshell.ai/openshell/internal/learn"
	"openshell.ai/openshell/internal/policystore"
	"openshell.ai/openshell/internal/state"
	"openshell.ai/openshell/policy"
)

func policyExportCommand() *cobra.Command {
	var output string
	var strict bool
	cmd := &cobra.Command{
		Use:   "export NAME [--output FILE] [--strict-openshell]",
		Short: "Write the effective policy for another node, or for OpenShell",
		Long: "Write the effective policy of a name as one file, which OpenShell loads too: what it does not\n" +
			"know is in comments. Equal policies are equal bytes, and the export of an export is the same.",
		Example: "  openshell policy export agent --output agent.yaml",
		Args:    args(1, 1),
		RunE: func(cmd *cobra.Command, given []string) error {
			c, store, err := load(cmd)
			if err != nil {
				return err
			}
			p, err := named(c, store, given[0])
			if err != nil {
				return err
			}
			var data bytes.Buffer
			fmt.Fprintf(&data, "# The effective policy %s, exported by openshell.\n", p.Name)
			if err := writeAnnotated(&data, store, p, p.Effective); err != nil {
				return err
			}
			_, warnings, err := policy.Parse(data.Bytes())
			if err == nil && strict {
				err = onlyOpenShell(p.Effective, warnings)
			}
			if err != nil {
				return fmt.Errorf("policy %s: is not exported: %w", p.Name, err)
			}
			if output == "" || output == "-" {
				_, err := cmd.OutOrStdout().Write(data.Bytes())
				return err
			}
			return replaceFile("--output", output, data.Bytes(), 0o644)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "the `FILE` to write, atomically (default standard output)")
	cmd.Flags().BoolVar(&strict, "strict-openshell", false, "refuse what OpenShell itself does not have")
	return cmd
}

// replaceFile writes a file whole or not at all. A device or a pipe could only be
// replaced by a file of its name, which is never meant.
func replaceFile(flag, path string, data []byte, mode fs.FileMode) error {
	info, err := os.Stat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", flag, err)
	}
	if err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("%s %s: is not a regular file: use %[1]s - to write to standard output", flag, path)
	}
	if err := fileio.Write(path, data, mode&^umask()); err != nil {
		return fmt.Errorf("%s: %w", flag, err)
	}
	return nil
}

// umask is the process's file mode creation mask, which can only be read by setting it.
func umask() fs.FileMode {
	mask := unix.Umask(0o077)
	unix.Umask(mask)
	return fs.FileMode(mask)
}

// maxOpenShellPaths is how many filesystem paths OpenShell accepts.
const maxOpenShellPaths = 256

// onlyOpenShell names what OpenShell would refuse.
func onlyOpenShell(p *policy.Policy, warnings []policy.Warning) error {
	var found []string
	for _, w := range warnings {
		if w.RefusedByOpenShell() {
			w.Line, w.Column = 0, 0 // of a file that is not written
			found = append(found, w.String())
		}
	}
	for key, r := range p.Network {
		for i := range r.Endpoints {
			if r.Endpoints[i].Protocol == policy.ProtocolUDP {
				found = append(found, fmt.Sprintf("network_policies.%s.endpoints[%d].protocol: OpenShell has no udp", key, i))
			}
		}
	}
	slices.Sort(found)
	files := p.FilesystemRules()
	if n := len(files.ReadOnly) + len(files.ReadWrite); n > maxOpenShellPaths {
		found = append(found, fmt.Sprintf("filesystem_policy: has %d paths, OpenShell accepts %d", n, maxOpenShellPaths))
	}
	if len(found) == 0 {
		return nil
	}
	return errors.New(strings.Join(found, "; "))
}

// writeAnnotated writes a policy with the provenance of its learned rules in comments.
func writeAnnotated(w io.Writer, store *state.Store, p *policystore.Policies, which *policy.Policy) error {
	notes, err := provenance(store, p)
	if err != nil {
		return err
	}
	data, err := policy.Marshal(which)
	if err != nil {
		return err
	}
	data, err = annotate(data, func(key string) []string {
		if r := which.Network[key]; r == nil || !r.Learned {
			return nil
		}
		return notes[key]
	})
	if err != nil {
		return fmt.Errorf("policy %s: %w", p.Name, err)
	}
	_, err = w.Write(data)
	return err
}

// provenance is what is known of where learned rules come from, by their keys: what the
// base's file says in comments, if it was exported, and the proposals.
func provenance(store *state.Store, p *policystore.Policies) (map[string][]string, error) {
	notes := map[string][]string{}
	if p.BaseFile != "" {
		data, err := readPolicy(nil, p.BaseFile)
		if err != nil {
			return nil, err
		}
		if notes, err = learnedComments(data); err != nil {
			return nil, fmt.Errorf("policy %s: %w", p.BaseFile, err)
		}
	}
	proposals, err := learn.List(store, p.Name)
	if err != nil {
		return nil, err
	}
	for i := range proposals {
		q := &proposals[i]
		if p.Learned.Network[q.RuleName] != nil {
			notes[q.RuleName] = []string{"# " + plain(q.Origin())}
		}
	}
	return notes, nil
}

// learnedComments are the comments that provenance was written in, by the rules' keys.
func learnedComments(data []byte) (map[string][]string, error) {
	notes := map[string][]string{}
	_, err := eachRule(data, func(key *yaml.Node) {
		for line := range strings.SplitSeq(key.HeadComment, "\n") {
			if strings.HasPrefix(line, "# proposal ") {
				notes[key.Value] = append(notes[key.Value], plain(line))
			}
		}
	})
	return notes, err
}

// annotate adds comments to the rules of a policy that policy.Marshal wrote, and changes
// nothing else.
func annotate(data []byte, notes func(key string) []string) ([]byte, error) {
	document, err := eachRule(data, func(key *yaml.Node) {
		for _, note := range notes(key.Value) {
			key.HeadComment += "\n" + note
		}
	})
	if err != nil {
		return nil, err
	}
	annotated, err := yaml.Dump(document, yaml.WithV4Defaults(), yaml.WithLineWidth(-1))
	if err != nil {
		return nil, fmt.Errorf("annotate policy: %w", err)
	}
	return bytes.TrimPrefix(annotated, []byte("---\n")), nil
}

// eachRule visits the keys of a policy's rules in its YAML.
func eachRule(data []byte, visit func(key *yaml.Node)) (*yaml.Node, error) {
	var document yaml.Node
	if err := yaml.Load(data, &document); err != nil {
		return nil, fmt.Errorf("annotate policy: %w", err)
	}
	if len(document.Content) == 0 {
		return &document, nil
	}
	top := document.Content[0].Content
	for i := 0; i+1 < len(top); i += 2 {
		if top[i].Value != "network_policies" {
			continue
		}
		rules := top[i+1].Content
		for j := 0; j+1 < len(rules); j += 2 {
			visit(rules[j])
		}
	}
	return &document, nil
}
