// SPDX-License-Identifier: Apache-2.0

// Package runtime makes openshell an OCI runtime: it understands the command
// line of runc, rewrites a container's bundle for its sandbox, and hands over
// to the low-level runtime by replacing the process. What a sandbox is, and
// what runs in it, is package sandbox's.
package runtime

import (
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Invocation is an OCI runtime command line taken apart, without losing a byte
// of it: whatever is not understood is handed on.
type Invocation struct {
	Args    []string // after the program's name
	Command string   // "" where there is none
	ID      string   // the first positional argument behind the command

	Root      string // --root
	Log       string // --log
	LogFormat string // --log-format
	Bundle    string // --bundle of create, run and restore
	Process   string // --process of exec
	Preserved int    // --preserve-fds
	Force     bool   // --force of delete

	specFile string // --config of crun's create and run
	surplus  string // the second positional argument where the command has one only

	commandAt    int    // index of Command in Args, or -1
	idAt         int    // index of ID in Args, or -1
	process      flag   // the last --process
	capabilities []flag // every --cap
}

// flag is one flag that has a value, and where it is. at and valueAt are the
// same where flag and value are one argument: --name=value.
type flag struct {
	name, value string
	at, valueAt int
}

// The flags that take a value, of runc 1.1 to 1.5 and crun. A flag that is in
// no table is taken to have none.
var (
	globalValues = set("root", "log", "log-format", "rootless", "criu", "cgroup-manager")

	// globalSwitches are the global flags that are known to take no value.
	globalSwitches = set("debug", "systemd-cgroup", "help", "h", "version", "v")

	createValues = set("bundle", "b", "config", "f", "console-socket", "pidfd-socket", "pid-file", "preserve-fds")

	commandValues = map[string]map[string]bool{
		"create": createValues,
		"run":    createValues,
		"restore": merge(createValues, "image-path", "work-path", "manage-cgroups-mode", "empty-ns",
			"lsm-profile", "lsm-mount-context"),
		"exec": set("console-socket", "pidfd-socket", "cwd", "env", "e", "user", "u", "additional-gids", "g",
			"process", "p", "pid-file", "process-label", "apparmor", "cap", "c", "preserve-fds", "cgroup"),
	}

	commands = set("checkpoint", "create", "delete", "events", "exec", "features", "init", "kill", "list",
		"pause", "ps", "restore", "resume", "run", "spec", "start", "state", "update", "help", "h")
)

// IsCommand reports whether a name is one of the OCI runtime's commands.
func IsCommand(name string) bool { return commands[name] && name != "help" && name != "h" }

// Commands are the OCI runtime's commands, in no order.
func Commands() iter.Seq[string] { return maps.Keys(commands) }

// ParseArgs takes the arguments behind the program's name apart.
func ParseArgs(args []string) Invocation {
	inv := Invocation{Args: args, commandAt: -1, idAt: -1, process: flag{at: -1, valueAt: -1}}
	if i := inv.parseGlobal(); i < len(args) {
		inv.Command, inv.commandAt = args[i], i
		inv.parseCommand(i + 1)
		inv.Force = inv.Command == "delete" && forces(args[i+1:])
	}
	return inv
}

// forces reports whether --force is among a command's arguments.
func forces(args []string) bool {
	for _, arg := range args {
		if arg == "--" {
			return false
		}
		name, value, inline := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		if on, err := strconv.ParseBool(value); isFlag(arg) && (name == "force" || name == "f") &&
			(!inline || err == nil && on) {
			return true
		}
	}
	return false
}

// parseGlobal reads the flags before the command and returns its index.
func (inv *Invocation) parseGlobal() int {
	at, _ := inv.scan(0, globalValues, func(f flag) {
		switch f.name {
		case "root":
			inv.Root = f.value
		case "log":
			inv.Log = f.value
		case "log-format":
			inv.LogFormat = f.value
		}
	})
	// The value of an unknown flag looks like a command. Where a known command
	// follows it, that is the one: a newer flag must not let a container go
	// unconfined.
	if at > 0 && at < len(inv.Args) && !commands[inv.Args[at]] && isUnknown(inv.Args[at-1]) {
		next := slices.IndexFunc(inv.Args[at:], func(arg string) bool { return commands[arg] })
		if next >= 0 {
			return at + next
		}
	}
	return at
}

// isUnknown reports whether an argument is a global flag without a value that is
// in no table.
func isUnknown(arg string) bool {
	return isFlag(arg) && arg != "--" && !strings.Contains(arg, "=") && !globalSwitches[strings.TrimLeft(arg, "-")]
}

func (inv *Invocation) parseCommand(from int) {
	values := commandValues[inv.Command]
	at, flagsEnd := inv.scan(from, values, inv.commandFlag)
	if at >= len(inv.Args) {
		return
	}
	inv.ID, inv.idAt = inv.Args[at], at
	if inv.Command == "exec" {
		return // behind the id comes the program that is executed
	}
	// Elsewhere runc takes flags behind the id too.
	for !flagsEnd {
		if at, flagsEnd = inv.scan(at+1, values, inv.commandFlag); at >= len(inv.Args) {
			return
		}
		inv.addSurplus(inv.Args[at])
	}
	for _, arg := range inv.Args[at+1:] {
		inv.addSurplus(arg)
	}
}

func (inv *Invocation) addSurplus(arg string) {
	if inv.surplus == "" {
		inv.surplus = arg
	}
}

func (inv *Invocation) commandFlag(f flag) {
	switch f.name {
	case "bundle", "b":
		inv.Bundle = f.value
	case "config", "f":
		inv.specFile = f.value
	case "process", "p":
		inv.Process, inv.process = f.value, f
	case "cap", "c":
		inv.capabilities = append(inv.capabilities, f)
	case "preserve-fds":
		n, _ := strconv.Atoi(f.value) // the low-level runtime complains of a bad one
		inv.Preserved = max(0, min(n, maxPreserved))
	}
}

// maxPreserved bounds --preserve-fds: no process has more descriptors, unless
// fs.nr_open was raised (proc_sys_fs(5)).
const maxPreserved = 1 << 20

// scan reads flags from an index on and returns the index of the first
// positional argument, and whether "--" came before it, behind which nothing is
// a flag. found gets each flag that has a value.
func (inv *Invocation) scan(from int, values map[string]bool, found func(flag)) (at int, flagsEnd bool) {
	args := inv.Args
	for i := from; i < len(args); i++ {
		if args[i] == "--" {
			return i + 1, true
		}
		if !isFlag(args[i]) {
			return i, false
		}
		name, value, inline := strings.Cut(strings.TrimLeft(args[i], "-"), "=")
		switch {
		case inline:
			found(flag{name, value, i, i})
		case values[name] && i+1 < len(args):
			i++
			found(flag{name, args[i], i - 1, i})
		}
	}
	return len(args), false
}

// isFlag reports whether an argument is a flag, with one dash or two, as
// urfave/cli takes them. A lone dash is a name: standard input.
func isFlag(arg string) bool { return len(arg) > 1 && arg[0] == '-' }

// withProcess returns the arguments with another file for --process.
func (inv *Invocation) withProcess(path string) []string {
	out := slices.Clone(inv.Args)
	if f := inv.process; f.at == f.valueAt {
		name, _, _ := strings.Cut(out[f.at], "=")
		path = name + "=" + path
	}
	out[inv.process.valueAt] = path
	return out
}

// withPrefix returns exec's arguments with a program put before the command,
// and without those --cap flags that unwanted holds for.
func (inv *Invocation) withPrefix(unwanted func(capability string) bool, prefix ...string) []string {
	var out []string
	next := 0
	for _, f := range inv.capabilities {
		out = append(out, inv.Args[next:f.at]...)
		if next = f.valueAt + 1; !unwanted(f.value) {
			out = append(out, inv.Args[f.at:next]...)
		}
	}
	return slices.Concat(out, inv.Args[next:inv.idAt+1], prefix, inv.Args[inv.idAt+1:])
}

func set(names ...string) map[string]bool {
	m := make(map[string]bool, len(names))
	for _, n := range names {
		m[n] = true
	}
	return m
}

func merge(base map[string]bool, names ...string) map[string]bool {
	m := set(names...)
	for n := range base {
		m[n] = true
	}
	return m
}
