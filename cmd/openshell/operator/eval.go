// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

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
			"order. The decisions are those of a sandbox's proxy. The exit code is 2 if the policy is invalid\n" +
			"and 1 if a line was malformed; its answer is {\"error\": ...}.",
		Example: `  echo '{"binary":"/usr/bin/curl","host":"api.github.com","port":443,"http":{"method":"GET","target":"/repos/a/b"}}' |
    openshell policy eval --policy agent.yaml`,
		Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				return errors.New("name the policy: " + usage(cmd))
			}
			engine, err := compileFile(file)
			if err != nil {
				writeProblems(cmd.ErrOrStderr(), file, err)
				return &exitError{exitInvalid}
			}
			return evaluate(engine, permissive, cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&file, "policy", "", "the policy `FILE` (required)")
	cmd.Flags().BoolVar(&permissive, "permissive", false, "decide as a permissive sandbox does")
	return cmd
}

// compileFile makes a policy file ready to decide. It is not read from standard input, where
// the requests come from.
func compileFile(file string) (*policy.Engine, error) {
	data, err := readPolicy(strings.NewReader(""), file)
	if err != nil {
		return nil, err
	}
	p, _, err := policy.Parse(data)
	if err != nil {
		return nil, err
	}
	return policy.Compile(p, policy.Options{})
}

// evaluate answers each request line with a decision.
func evaluate(engine *policy.Engine, permissive bool, in io.Reader, out io.Writer) error {
	return answerLines(in, out, func(w io.Writer, line []byte) error {
		decision, err := answer(engine, permissive, line)
		if err != nil {
			return err
		}
		return writeAnswer(w, decision)
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
func answerLines(in io.Reader, out io.Writer, answer func(io.Writer, []byte) error, refuse func(io.Writer, error) error) error {
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

func answer(engine *policy.Engine, permissive bool, line []byte) (policy.EvalDecision, error) {
	r, err := parseRequest(line)
	if err != nil {
		return policy.EvalDecision{}, err
	}
	return engine.Evaluate(r, permissive)
}

// parseRequest reads a request line.
func parseRequest(line []byte) (r policy.EvalRequest, err error) {
	err = parseStrictly(line, &r)
	return r, err
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
	dec := json.NewDecoder(bytes.NewReader(data))
	if start, err := dec.Token(); err != nil || start != json.Delim('{') {
		return err // another type is refused by whoever wants an object
	}
	seen := map[string]bool{}
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return err
		}
		name, _ := token.(string)
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return err
		}
		switch {
		case strings.Trim(name, "abcdefghijklmnopqrstuvwxyz_") != "":
			return fmt.Errorf("unknown field %q", name)
		case seen[name]:
			return fmt.Errorf("field %q is given twice", name)
		case slices.Contains(nestedFields, name):
			if err := checkFields(value); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		seen[name] = true
	}
	return nil
}
