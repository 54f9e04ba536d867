// SPDX-License-Identifier: Apache-2.0

// Command client is a box of small network clients for containers in tests: one
// static program, no shell, no files of its own.
//
// Each subcommand does one thing and prints one JSON line for each result. The
// exit status is 0 when every action worked, 1 when one did not (its line says
// why) and 2 for a wrong command line. An HTTP status is reported, not judged: a
// 403 that arrived is a success.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"
)

// result is one line of output. What a subcommand does not know is absent.
type result struct {
	OK       bool              `json:"ok"`
	Command  string            `json:"command"`
	Target   string            `json:"target,omitempty"`
	Status   int               `json:"status,omitempty"`   // HTTP
	Connect  int               `json:"connect,omitempty"`  // HTTP status of a CONNECT
	Proto    string            `json:"proto,omitempty"`    // HTTP version
	Hints    []int             `json:"hints,omitempty"`    // 1xx statuses
	Header   http.Header       `json:"header,omitempty"`   //
	Trailer  http.Header       `json:"trailer,omitempty"`  //
	Body     string            `json:"body,omitempty"`     // at most 64 KiB
	Bytes    int64             `json:"bytes,omitempty"`    // all of the body
	SHA256   string            `json:"sha256,omitempty"`   // of all of the body, where it is longer than Body
	Issuer   string            `json:"issuer,omitempty"`   // common name of who issued the server's certificate
	ALPN     string            `json:"alpn,omitempty"`     //
	Answers  []string          `json:"answers,omitempty"`  // DNS
	Rcode    string            `json:"rcode,omitempty"`    // DNS
	Messages []string          `json:"messages,omitempty"` // WebSocket, gRPC
	Close    int               `json:"close,omitempty"`    // WebSocket: the code that the other side closed with
	Fields   map[string]string `json:"fields,omitempty"`   // status, env
	Names    []string          `json:"names,omitempty"`    // links, list
	Local    string            `json:"local,omitempty"`    // own address and port
	Remote   string            `json:"remote,omitempty"`   // the other side's
	Millis   int64             `json:"ms"`
	Error    string            `json:"error,omitempty"`
}

// command runs with the arguments after its name. It returns what to print; an
// error makes the result a failure. Commands with several results print all but
// the last themselves.
type command struct {
	usage string
	run   func(args []string) (result, error)
}

// usageError is a wrong command line.
type usageError struct{ message string }

func (e usageError) Error() string { return e.message }

var commands map[string]command

// Filled here and not in its declaration, since seq refers back to it.
func init() {
	commands = map[string]command{
		"get":           {"get [-X METHOD] [-d BODY] [-upload BYTES] [-H 'K: V'] [-L] [-http1] [-ca FILE] [-t TIMEOUT] URL…", get},
		"connect-proxy": {"connect-proxy [-plain] [-ca FILE] [-t TIMEOUT] PROXY HOST:PORT [PATH]", connectProxy},
		"forward-proxy": {"forward-proxy [-X METHOD] [-d BODY] [-H 'K: V'] [-t TIMEOUT] PROXY URL", forwardProxy},
		"tcp":           {"tcp [-e] [-shut] [-t TIMEOUT] HOST:PORT [TEXT]", sendTCP},
		"banner":        {"banner [-t TIMEOUT] HOST:PORT", banner},
		"tls-raw":       {"tls-raw [-sni NAME] [-alpn A,B] [-ca FILE] [-fragment N] [-e] [-t TIMEOUT] HOST:PORT [TEXT]", sendTLS},
		"udp":           {"udp [-t TIMEOUT] HOST:PORT TEXT", sendUDP},
		"dns":           {"dns [-server HOST:PORT] [-tcp] [-t TIMEOUT] NAME [TYPE]", lookup},
		"ws":            {"ws [-H 'K: V'] [-p SUBPROTOCOL] [-z] [-t TIMEOUT] URL TEXT…", webSocket},
		"grpc":          {"grpc [-plain] [-ca FILE] [-t TIMEOUT] HOST:PORT /SERVICE/METHOD TEXT…", callGRPC},
		"load":          {"load [-n COUNT] [-c AT-ONCE] HOST:PORT", load},
		"ask":           {"ask [-n COUNT] [-t SILENCE] NAME", ask},
		"idle":          {"idle [-n COUNT] [-c AT-ONCE] [-tls] [-alpn A,B] [-e] [-answered] [-t TIMEOUT] HOST:PORT [TEXT]", idle},
		"listen":        {"listen [-http] [-udp] [-n COUNT] [-t TIMEOUT] ADDR:PORT", listen},
		"links":         {"links", links},
		"status":        {"status", status},
		"env":           {"env NAME…", environment},
		"read":          {"read PATH", readFile},
		"write":         {"write PATH [TEXT]", writeFile},
		"list":          {"list PATH", listDir},
		"sleep":         {"sleep DURATION", sleep},
		"spawn":         {"spawn PROGRAM [ARG…]", spawn},
		"seq":           {"seq COMMAND [ARG…] [, COMMAND [ARG…]]…", sequence},
	}
}

func main() { os.Exit(dispatch(os.Args[1:])) }

// dispatch runs one subcommand and returns the exit status.
func dispatch(args []string) int {
	if len(args) == 0 {
		return usage("no command")
	}
	cmd, ok := commands[args[0]]
	if !ok {
		return usage(fmt.Sprintf("unknown command %q", args[0]))
	}
	start := time.Now()
	r, err := cmd.run(args[1:])
	if wrong := (usageError{}); errors.As(err, &wrong) {
		return usage(wrong.message + ": " + cmd.usage)
	}
	r.Command = args[0]
	return emit(r, err, start)
}

// emit completes a result and prints it.
func emit(r result, err error, start time.Time) int {
	r.OK = err == nil
	r.Millis = time.Since(start).Milliseconds()
	if err != nil {
		r.Error = err.Error()
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(r); err != nil {
		fmt.Fprintln(os.Stderr, "client:", err)
		return 1
	}
	if !r.OK {
		return 1
	}
	return 0
}

func usage(message string) int {
	fmt.Fprintln(os.Stderr, "client:", message)
	for _, name := range slices.Sorted(maps.Keys(commands)) {
		fmt.Fprintln(os.Stderr, "  client", commands[name].usage)
	}
	return 2
}

// sequence runs commands, separated by arguments that are a comma, in one
// process; it fails with the last one that failed.
func sequence(args []string) (result, error) {
	failed := 0
	for i, args := range splitCommands(args) {
		if code := dispatch(args); code != 0 {
			failed = i + 1
		}
	}
	if failed != 0 {
		return result{}, fmt.Errorf("command %d failed", failed)
	}
	return result{}, nil
}

func splitCommands(args []string) [][]string {
	var out [][]string
	for {
		i := slices.Index(args, ",")
		if i < 0 {
			return append(out, args)
		}
		out, args = append(out, args[:i]), args[i+1:]
	}
}

// options are the flags of one subcommand.
type options struct {
	*flag.FlagSet
	timeout time.Duration
}

func newOptions() *options {
	o := &options{FlagSet: flag.NewFlagSet("", flag.ContinueOnError)}
	o.SetOutput(io.Discard)
	o.DurationVar(&o.timeout, "t", 10*time.Second, "")
	return o
}

// parse reads the flags and checks how many arguments are left: at least least,
// at most most unless that is negative.
func (o *options) parse(args []string, least, most int) error {
	if err := o.FlagSet.Parse(args); err != nil {
		return usageError{err.Error()}
	}
	if o.NArg() < least || most >= 0 && o.NArg() > most {
		return usageError{"wrong number of arguments"}
	}
	return nil
}

// headers collects repeated -H flags.
type headers http.Header

func (h headers) String() string { return "" }

func (h headers) Set(line string) error {
	name, value, ok := strings.Cut(line, ":")
	if !ok {
		return errors.New("want 'Name: value'")
	}
	http.Header(h).Add(name, strings.TrimSpace(value))
	return nil
}
