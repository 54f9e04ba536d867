// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"openshell.ai/openshell/internal/decision"
	"openshell.ai/openshell/internal/policystore"
	"openshell.ai/openshell/internal/strictjson"
	"openshell.ai/openshell/policy"
)

// maxRequestLine bounds a request line, in bytes.
const maxRequestLine = 4 << 20

func policyEvalCommand() *cobra.Command {
	var file string
	var permissive bool
	cmd := &cobra.Command{
		Use:   "eval --policy FILE [--permissive]",
		Short: "Say what a policy would decide, without running anything",
		Long: "Read requests from standard input, one JSON object a line, and write a decision for each, in\n" +
			"order. The decisions are those of the proxy of a sandbox on this node, which maximum_policy and\n" +
			"permissive.never of the configuration bind too. The exit code is 2 if the policy is invalid and 1\n" +
			"if a line was malformed; its answer is {\"error\": ...}.",
		Example: `  echo '{"binary":"/usr/bin/curl","host":"api.github.com","port":443,"http":{"method":"GET","target":"/repos/a/b"}}' |
    openshell policy eval --policy agent.yaml`,
		Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				return errors.New("name the policy: " + usage(cmd))
			}
			// Not from standard input, where the requests come from.
			p, err := parseFile(file)
			if err != nil {
				writeProblems(cmd.ErrOrStderr(), file, err)
				return &exitError{exitInvalid}
			}
			snapshot, err := snapshotOf(cmd, p, permissive)
			if err != nil {
				return err
			}
			return evaluate(snapshot, cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&file, "policy", "", "the policy `FILE` (required)")
	cmd.Flags().BoolVar(&permissive, "permissive", false, "decide as a permissive sandbox does")
	return cmd
}

// parseFile reads a policy file.
func parseFile(file string) (*policy.Policy, error) {
	data, err := readPolicy(strings.NewReader(""), file)
	if err != nil {
		return nil, err
	}
	p, _, err := policy.Parse(data)
	return p, err
}

// snapshotOf is what decides in a sandbox of this node whose effective policy is p.
func snapshotOf(cmd *cobra.Command, p *policy.Policy, permissive bool) (decision.Snapshot, error) {
	c, _, err := load(cmd)
	if err != nil {
		return decision.Snapshot{}, err
	}
	s, err := policystore.Snapshot(c, p)
	s.Permissive = permissive
	return s, err
}

// evaluate answers each request line with a decision.
func evaluate(s decision.Snapshot, in io.Reader, out io.Writer) error {
	return answerLines(in, out, func(w io.Writer, line []byte) error {
		a, err := parseAction(line)
		if err != nil {
			return err
		}
		e, err := s.Evaluate(a)
		if err != nil {
			return err
		}
		return writeAnswer(w, e.Answer)
	}, func(w io.Writer, malformed error) error { return jsonLine(w, errorAnswer{plain(malformed.Error())}) })
}

// errorAnswer answers a line that is malformed.
type errorAnswer struct {
	Error string `json:"error"`
}

// writeError is a failure to write, which ends everything.
type writeError struct{ error }

func (e writeError) Unwrap() error { return e.error }

// writeAnswer writes a JSON answer.
func writeAnswer(w io.Writer, v any) error {
	if err := jsonLine(w, v); err != nil {
		return writeError{err}
	}
	return nil
}

// answerLines answers each line, or says with refuse why it cannot be. Answers are written at the
// latest when the next line is not there yet, so that a program can wait for each. An error of
// answer is the line's, unless it is a writeError.
func answerLines(in io.Reader, out io.Writer, answer func(io.Writer, []byte) error,
	refuse func(io.Writer, error) error) error {
	lines := newLineReader(in, maxRequestLine)
	answers := bufio.NewWriter(out)
	malformed := false
	for {
		line, err := lines.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil && !errors.Is(err, errLineTooLong) {
			return errors.Join(fmt.Errorf("read requests: %w", err), answers.Flush())
		}
		if err == nil {
			err = answer(answers, line)
		}
		if err != nil && !errors.As(err, new(writeError)) {
			malformed = true
			err = refuse(answers, err)
		}
		if err == nil && !lines.buffered() {
			err = answers.Flush()
		}
		if err != nil {
			return fmt.Errorf("write answers: %w", err)
		}
	}
	if err := answers.Flush(); err != nil {
		return fmt.Errorf("write answers: %w", err)
	}
	if malformed {
		return &exitError{exitFailed}
	}
	return nil
}

// parseAction reads a request line.
func parseAction(line []byte) (a decision.Action, err error) {
	err = parseStrictly(line, &a)
	return a, err
}

// parseStrictly reads a line's JSON object. A field that is misspelt, such as resolved_ips, must
// not go missing from the decision, nor one that is given twice be decided by either.
func parseStrictly(line []byte, to any) error {
	if !utf8.Valid(line) {
		return errors.New("request: is not valid UTF-8")
	}
	if json.Valid(line) {
		if err := checkFields(line); err != nil {
			return fmt.Errorf("request: %w", err)
		}
	}
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	err := dec.Decode(to)
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.As(err, &wrong) && wrong.Field != "":
		return fmt.Errorf("%s: %s is not a %s", wrong.Field, wrong.Value, wrong.Type)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("request: is not a whole JSON object")
	case err != nil:
		return fmt.Errorf("request: %s", strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("request: text after the JSON object")
	}
	return nil
}

// nestedFields are those with an object of fields of its own. What is in others is what a workload
// sent, and decided with the request.
var nestedFields = []string{"http", "file"}

// checkFields refuses what package json would pass over in a JSON object: fields given twice, and
// names in another case.
func checkFields(data []byte) error {
	if !bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) {
		return nil // another type is refused by whoever wants an object
	}
	fields, err := strictjson.Object(data)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if strings.Trim(name, "abcdefghijklmnopqrstuvwxyz_") != "" {
			return fmt.Errorf("unknown field %q", name)
		}
		if slices.Contains(nestedFields, name) {
			if err := checkFields(fields[name]); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return nil
}
