// Package runtime makes openshell an OCI runtime: it understands the command
// line of runc, rewrites a container's bundle for its sandbox, and hands over
// to the low-level runtime by replacing the process. What a sandbox is, and
// what runs in it, is package sandbox's.
package runtime

import (
	"slices"
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

	commandAt int // index of Command in Args
	idAt      int // index of ID in Args, or -1
	processAt int // index in Args where Process's value is, or -1
	inline    bool
}

// The flags that take a value, of runc 1.1 to 1.5 and crun. A flag that is in
// no table is taken to have none; the subcommand is found all the same, since
// no value of an unknown flag is a subcommand's name.
var (
	globalValues = set("root", "log", "log-format", "rootless", "criu", "cgroup-manager")

	createValues = set("bundle", "b", "console-socket", "pidfd-socket", "pid-file", "preserve-fds")

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

// IsCommand tells whether a name is one of the OCI runtime's commands.
func IsCommand(name string) bool { return commands[name] && name != "help" && name != "h" }

// ParseArgs takes the arguments behind the program's name apart.
func ParseArgs(args []string) Invocation {
	inv := Invocation{Args: args, commandAt: -1, idAt: -1, processAt: -1}
	i := inv.parseGlobal()
	if i < len(args) {
		inv.Command, inv.commandAt = args[i], i
		inv.parseCommand(i + 1)
	}
	return inv
}

func (inv *Invocation) parseGlobal() int {
	values := inv.scan(0, globalValues, func(name, value string, _ int, _ bool) {
		switch name {
		case "root":
			inv.Root = value
		case "log":
			inv.Log = value
		case "log-format":
			inv.LogFormat = value
		}
	})
	// The value of an unknown flag looks like a command. Where a known one
	// follows it, that is the command.
	if values < len(inv.Args) && !commands[inv.Args[values]] && values > 0 && isFlag(inv.Args[values-1]) {
		for i := values + 1; i < len(inv.Args); i++ {
			if commands[inv.Args[i]] {
				return i
			}
		}
	}
	return values
}

func (inv *Invocation) parseCommand(from int) {
	found := func(name, value string, valueAt int, inline bool) {
		switch name {
		case "bundle", "b":
			inv.Bundle = value
		case "process", "p":
			inv.Process, inv.processAt, inv.inline = value, valueAt, inline
		case "preserve-fds":
			inv.Preserved = atoi(value)
		}
	}
	values := commandValues[inv.Command]
	at := inv.scan(from, values, found)
	if at >= len(inv.Args) {
		return
	}
	inv.ID, inv.idAt = inv.Args[at], at
	// Behind exec's id comes the command; elsewhere runc takes flags there too.
	for inv.Command != "exec" && at < len(inv.Args) {
		at = inv.scan(at+1, values, found)
	}
}

// scan reads flags from an index on and returns the index of the first
// positional argument. found gets each flag that has a value: where the value
// is, and whether it is in one argument with its flag.
func (inv *Invocation) scan(from int, values map[string]bool, found func(name, value string, at int, inline bool)) int {
	args := inv.Args
	for i := from; i < len(args); i++ {
		if args[i] == "--" {
			return i + 1
		}
		if !isFlag(args[i]) {
			return i
		}
		name, value, inline := strings.Cut(strings.TrimLeft(args[i], "-"), "=")
		switch {
		case inline:
			found(name, value, i, true)
		case values[name] && i+1 < len(args):
			i++
			found(name, args[i], i, false)
		}
	}
	return len(args)
}

// isFlag tells whether an argument is a flag, with one dash or two, as
// urfave/cli takes them. A lone dash is a name: standard input.
func isFlag(arg string) bool { return len(arg) > 1 && arg[0] == '-' }

// withProcess returns the arguments with another file for --process.
func (inv *Invocation) withProcess(path string) []string {
	out := append([]string(nil), inv.Args...)
	if inv.inline {
		name, _, _ := strings.Cut(out[inv.processAt], "=")
		path = name + "=" + path
	}
	out[inv.processAt] = path
	return out
}

// withPrefix returns exec's arguments with a program put before the command.
func (inv *Invocation) withPrefix(prefix ...string) []string {
	at := inv.idAt + 1
	return slices.Concat(inv.Args[:at], prefix, inv.Args[at:])
}

func atoi(s string) int {
	n := 0
	for _, r := range s {
		if r < '0' || r > '9' || n > 1<<16 {
			return 0
		}
		n = n*10 + int(r-'0')
	}
	return n
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
