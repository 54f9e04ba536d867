// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"openshell.ai/openshell/internal/fileio"
	"openshell.ai/openshell/internal/rootfs"
	"openshell.ai/openshell/internal/state"
	"openshell.ai/openshell/netns"
)

// Info is what a running sandbox says of itself in sandbox.json.
type Info struct {
	Format   string    `json:"format,omitzero"` // infoFormat; empty in files from before there was one
	ID       string    `json:"id"`
	Policy   string    `json:"policy"`
	Mode     string    `json:"mode"`               // confine.ModePermissive or ModeEnforcing
	Deadline time.Time `json:"deadline,omitzero"`  // when permissive mode ends
	OnExpiry string    `json:"on_expiry,omitzero"` // what happens then
	TTL      string    `json:"ttl,omitzero"`
	// PolicyError says why the policy's files, as they are now, are not in force:
	// the last valid ones are.
	PolicyError string      `json:"policy_error,omitzero"`
	Started     time.Time   `json:"started"`
	Supervisor  ProcessRef  `json:"supervisor"`
	Keeper      ProcessRef  `json:"keeper,omitzero"` // starts the supervisor again
	Outer       netns.ID    `json:"outer"`           // where upstream connections start
	Shared      bool        `json:"shared,omitzero"` // other containers of that namespace join
	OuterPath   string      `json:"outer_path,omitzero"`
	Inner       string      `json:"inner"` // a path that opens the inner namespace
	InnerID     netns.ID    `json:"inner_id"`
	Pending     bool        `json:"pending,omitzero"` // its network is not complete, see CompleteNetwork
	Containers  []Container `json:"containers"`
	Cgroups     []string    `json:"cgroups,omitempty"` // of the supervisor, below /sys/fs/cgroup
	Health      Health      `json:"health,omitzero"`
	Version     string      `json:"version,omitzero"` // of the supervisor's program
	// LastState is what the supervisor last said; State tells what is.
	LastState State `json:"state,omitzero"`
	// Broken says why nothing but the ID is known of the sandbox.
	Broken error `json:"-"`
}

// ProcessRef names a process, and no other that has got its pid since.
type ProcessRef struct {
	PID       int    `json:"pid"`
	StartTime uint64 `json:"start_time"` // in clock ticks since boot, proc_pid_stat(5)
}

// Container is one container of a sandbox.
type Container struct {
	ID     string `json:"id"`
	Root   string `json:"root"` // the low-level runtime's state directory
	Bundle string `json:"bundle"`
	Image  string `json:"image,omitzero"`
	PID    int    `json:"pid,omitzero"` // of the first process, once known
	// Rootfs is its root file system.
	Rootfs rootfs.Location `json:"rootfs,omitzero"`
	// Mounts is what its bundle had under that name when it was created, where the network is completed at the
	// start: what has become of config.json by then has no effect.
	Mounts json.RawMessage `json:"mounts,omitempty"`
	// Claim is its claim on mount points that were made, see MakeMountPoints.
	Claim string `json:"claim,omitzero"`
	// BundleClaim is its claim on its bundle, see ClaimBundle.
	BundleClaim string `json:"bundle_claim,omitzero"`
	// Confined is what holds it, once its program has begun.
	Confined *Confined `json:"confined,omitempty"`
}

// Alive reports whether the supervisor still runs: the process with its pid is
// the one it was.
func (i Info) Alive() bool { return i.Supervisor.alive() }

// kept reports whether the keeper runs, which starts a dead supervisor again.
func (i Info) kept() bool { return i.Keeper.alive() }

// sameAs reports whether two say of the same sandbox, whoever supervises it.
func (i Info) sameAs(other Info) bool { return i.ID == other.ID && i.Started.Equal(other.Started) }

// List returns the sandboxes that have a directory in the run directory, whatever
// their state.
func List(runDir string) ([]Info, error) {
	entries, err := os.ReadDir(sandboxesDir(runDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list sandboxes: %w", err)
	}
	var out []Info
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue // being made, or being removed
		}
		if info, there := lookAgain(runDir, e.Name()); there {
			out = append(out, info)
		}
	}
	return out, nil
}

// look reads what a sandbox says of itself. Where that cannot be read, the
// information is Broken. there is false where the sandbox has gone.
func look(dir string) (info Info, there bool) {
	info, err := readInfo(dir)
	if err == nil {
		return info, true
	}
	if _, gone := os.Lstat(dir); errors.Is(gone, fs.ErrNotExist) {
		return Info{}, false
	}
	return Info{ID: filepath.Base(dir), Broken: err}, true
}

// lookAgain is look that has a supervisor write its file again where that cannot
// be read.
func lookAgain(runDir, id string) (Info, bool) {
	dir := filepath.Join(sandboxesDir(runDir), id)
	info, there := look(dir)
	if info.Broken == nil || !listens(dir) {
		return info, there
	}
	ctx, cancel := context.WithTimeout(context.Background(), stoppedWait)
	defer cancel()
	_ = call(ctx, runDir, info, "describe", nil, nil)
	return look(dir)
}

// ErrExists says that a container has the id already.
var ErrExists = errors.New("exists already")

// ErrNotFound says that no sandbox has the id asked for.
var ErrNotFound = errors.New("no such sandbox")

// Find returns the one sandbox whose id, or a container's id in it, is or
// begins with what is given.
func Find(runDir, id string) (Info, error) {
	all, err := List(runDir)
	if err != nil {
		return Info{}, err
	}
	found := slices.Collect(named(all, func(name string) bool { return name == id }))
	if len(found) == 0 && id != "" {
		found = slices.Collect(named(all, func(name string) bool { return strings.HasPrefix(name, id) }))
	}
	switch len(found) {
	case 0:
		return Info{}, fmt.Errorf("%s: %w", id, ErrNotFound)
	case 1:
		return found[0], nil
	}
	return Info{}, fmt.Errorf("%s: more than one sandbox has this id or an id that begins so", id)
}

// named yields the sandboxes that have an id, or a container with an id, that
// match holds for.
func named(all []Info, match func(string) bool) iter.Seq[Info] {
	return func(yield func(Info) bool) {
		for _, info := range all {
			if match(info.ID) || slices.ContainsFunc(info.Containers, func(c Container) bool { return match(c.ID) }) {
				if !yield(info) {
					return
				}
			}
		}
	}
}

const (
	infoFile   = "sandbox.json"
	infoFormat = "openshell.ai/sandbox/v1"
)

func readInfo(dir string) (Info, error) {
	path := filepath.Join(dir, infoFile)
	data, err := state.ReadFile(path)
	if err != nil {
		return Info{}, fmt.Errorf("read sandbox: %w", err)
	}
	var info Info
	if err := json.Unmarshal(data, &info); err != nil {
		return Info{}, fmt.Errorf("read %s: %w", path, err)
	}
	if err := state.CheckVersion(cmp.Or(info.Format, infoFormat), infoFormat); err != nil {
		return Info{}, fmt.Errorf("read %s: %w", path, err)
	}
	if !info.names(filepath.Base(dir)) {
		return Info{}, fmt.Errorf("read %s: it is of the sandbox %.140q", path, info.ID)
	}
	if why, err := state.ReadFile(filepath.Join(dir, closedFile)); err == nil {
		info.Health.LastError = strings.TrimSpace(string(why))
	}
	return info, nil
}

// writeInfo replaces sandbox.json. The run directory does not outlive a boot, so
// that the file need not reach the disk.
func writeInfo(dir string, info Info) error {
	info.Format = infoFormat
	data, err := json.MarshalIndent(info, "", "  ")
	if err == nil {
		err = fileio.Replace(filepath.Join(dir, infoFile), data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("write sandbox.json: %w", err)
	}
	return nil
}

// maxIDPart is how much of a container's id is kept in its sandbox's.
const maxIDPart = 100

// IDFor returns a sandbox's id: that of its first container, as far as names
// in the state directory allow, made unique among the state directories of
// low-level runtimes.
func IDFor(root, containerID string) string {
	name := strings.TrimLeft(strings.ReplaceAll(containerID, "+", "_"), "_-.")
	name = name[:min(len(name), maxIDPart)]
	if name == "" {
		name = "sandbox"
	}
	sum := sha256.Sum256([]byte(root + "\x00" + containerID))
	return name + "-" + hex.EncodeToString(sum[:3])
}
