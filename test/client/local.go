// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"
)

// statusFields of /proc/self/status (proc_pid_status(5)) show the confinement.
var statusFields = []string{"Seccomp", "Seccomp_filters", "NoNewPrivs", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "Uid"}

func status(args []string) (result, error) {
	if err := newOptions().parse(args, 0, 0); err != nil {
		return result{}, err
	}
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return result{}, err
	}
	r := result{Fields: map[string]string{}}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		for _, wanted := range statusFields {
			if name == wanted {
				r.Fields[name] = strings.TrimSpace(value)
			}
		}
	}
	return r, nil
}

// links prints the network interfaces with their addresses.
func links(args []string) (result, error) {
	if err := newOptions().parse(args, 0, 0); err != nil {
		return result{}, err
	}
	interfaces, err := net.Interfaces()
	if err != nil {
		return result{}, err
	}
	r := result{Fields: map[string]string{}}
	for _, link := range interfaces {
		addrs, err := link.Addrs()
		if err != nil {
			return r, err
		}
		var literals []string
		for _, addr := range addrs {
			literals = append(literals, addr.String())
		}
		r.Names = append(r.Names, link.Name)
		r.Fields[link.Name] = strings.Join(literals, " ")
	}
	return r, nil
}

func environment(args []string) (result, error) {
	o := newOptions()
	if err := o.parse(args, 1, -1); err != nil {
		return result{}, err
	}
	r := result{Fields: map[string]string{}}
	for _, name := range o.Args() {
		if value, ok := os.LookupEnv(name); ok {
			r.Fields[name] = value
		}
	}
	return r, nil
}

func readFile(args []string) (result, error) {
	o := newOptions()
	if err := o.parse(args, 1, 1); err != nil {
		return result{}, err
	}
	text, err := os.ReadFile(o.Arg(0))
	return result{Target: o.Arg(0), Bytes: int64(len(text)), Body: string(text[:min(len(text), bodyLimit)])}, err
}

// writeFile creates or truncates a file.
func writeFile(args []string) (result, error) {
	o := newOptions()
	if err := o.parse(args, 1, 2); err != nil {
		return result{}, err
	}
	text := o.Arg(1)
	return result{Target: o.Arg(0), Bytes: int64(len(text))}, os.WriteFile(o.Arg(0), []byte(text), 0o644)
}

func listDir(args []string) (result, error) {
	o := newOptions()
	if err := o.parse(args, 1, 1); err != nil {
		return result{}, err
	}
	entries, err := os.ReadDir(o.Arg(0))
	r := result{Target: o.Arg(0)}
	for _, entry := range entries {
		r.Names = append(r.Names, entry.Name())
	}
	return r, err
}

func sleep(args []string) (result, error) {
	o := newOptions()
	if err := o.parse(args, 1, 1); err != nil {
		return result{}, err
	}
	d, err := time.ParseDuration(o.Arg(0))
	if err != nil {
		return result{}, usageError{err.Error()}
	}
	time.Sleep(d)
	return result{}, nil
}

// spawn runs another program as a child, with the same standard streams, so that
// what it does has this one as an ancestor.
func spawn(args []string) (result, error) {
	if len(args) == 0 {
		return result{}, usageError{"no program"}
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err := cmd.Run()
	r := result{Target: args[0]}
	if status := new(exec.ExitError); errors.As(err, &status) {
		r.Status = status.ExitCode()
	}
	return r, err
}
