// SPDX-License-Identifier: Apache-2.0

package launcher_test

import (
	"bufio"
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"openshell.ai/openshell/internal/confine"
)

func TestUsage(t *testing.T) {
	for _, args := range []string{"", "--", "a", "a -- b", "--dir", "--dir /d", "--dir /d --", "--dir /d a", "--help", "--dir=/d -- a",
		"--stay", "--stay --", "--dir /d --stay -- a", "--attend a b c", "--network a b", "--version x"} {
		refused(t, exec.Command(initPath, strings.Fields(args)...), 126, "usage: ")
	}
}

func TestConfinesTheProcess(t *testing.T) {
	for mode, c := range map[string]confine.Confinement{"enforcing": enforcing(rules()), "permissive": permissive} {
		t.Run(mode, func(t *testing.T) {
			status := output(t, command(files(t, c), "status"))
			for _, line := range []string{"Seccomp:\t2\n", "NoNewPrivs:\t1\n"} {
				if !strings.Contains(status, line) {
					t.Errorf("status lacks %q", line)
				}
			}
		})
	}
}

func TestReplacesItself(t *testing.T) {
	cmd := command(files(t, enforcing(rules())), "pid")
	if got := output(t, cmd); got != strconv.Itoa(cmd.Process.Pid) {
		t.Errorf("the workload has pid %s, the launcher had %d", got, cmd.Process.Pid)
	}
}

func TestExitCodePasses(t *testing.T) {
	for _, code := range []int{0, 1, 37, 126, 127, 255} {
		r := finish(t, command(files(t, permissive), "exit", strconv.Itoa(code)))
		if r.code != code || r.stderr != "" {
			t.Errorf("exit code %d, stderr %q, want %d", r.code, r.stderr, code)
		}
	}
}

func TestArgumentsPassByteForByte(t *testing.T) {
	// Through PATH, so that the program's path and its argv[0] differ.
	bin := testDir(t)
	if err := os.Symlink(probe, filepath.Join(bin, "agent")); err != nil {
		t.Fatal(err)
	}
	argv := []string{"agent", "", "--", "--dir", "-x", "a b\n\t", "\xff\xfe", "$HOME 'q'", strings.Repeat("l", 100_000)}
	cmd := exec.Command(initPath, append([]string{"--dir", files(t, permissive), "--"}, argv...)...)
	cmd.Env = []string{"PATH=" + bin, probeVariable + "=cmdline"}
	if got, want := output(t, cmd), strings.Join(argv, "\x00")+"\x00"; got != want {
		t.Errorf("got %.200q, want %.200q", got, want)
	}
}

func TestEnvironmentPasses(t *testing.T) {
	cmd := command(files(t, permissive), "environ")
	cmd.Env = []string{probeVariable + "=environ", "EMPTY=", "LINES=a\nb", "BYTES=\xff", "GODEBUG=x=1"}
	if got, want := output(t, cmd), strings.Join(cmd.Env, "\x00")+"\x00"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// The Go runtime raises the soft limit for itself; the workload must not see it.
func TestOpenFilesLimitPasses(t *testing.T) {
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(probe, initPath, "--dir", files(t, permissive), "--", sh, "-c", "ulimit -S -n")
	cmd.Env = append(os.Environ(), probeVariable+"=exec-with-soft-limit")
	if got := output(t, cmd); got != "123\n" {
		t.Errorf("the workload's soft limit is %q, want 123", got)
	}
}

func TestProgramsThatCannotRun(t *testing.T) {
	dir := testDir(t)
	write := func(name, content string, mode fs.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, tt := range []struct {
		name, program string
		code          int
		message       string
	}{
		{"not on PATH", "no-such-program", 127, `"no-such-program": not found`},
		{"no such path", dir + "/missing", 127, "/missing\": not found"},
		{"empty name", "", 127, `"": not found`},
		{"hostile name", "a\nb\x1b[2J", 127, `"a\nb\x1b[2J"`},
		{"directory", dir, 126, "is a directory"},
		{"no execute permission", write("plain", "#!/bin/sh\n", 0o644), 126, "permission denied"},
		{"no known format", write("data", "\x00\x01\x02\x03", 0o755), 126, "exec format error"},
		{"no interpreter", write("script", "#!/nonexistent/sh\n", 0o755), 127, "no such file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cmd := exec.Command(initPath, "--dir", files(t, permissive), "--", tt.program)
			refused(t, cmd, tt.code, tt.message)
		})
	}
	t.Run("without PATH", func(t *testing.T) {
		cmd := exec.Command(initPath, "--dir", files(t, permissive), "--", "sh")
		cmd.Env = []string{"A=b"}
		refused(t, cmd, 127, "not found")
	})
	t.Run("interpreter outside of the rules", func(t *testing.T) {
		requireLandlock(t)
		r := rules()
		r.ReadOnly = r.ReadOnly[1:] // the probe
		script := write("of-probe", "#!"+probe+"\n", 0o755)
		refused(t, exec.Command(initPath, "--dir", files(t, enforcing(r)), "--", script), 126, "permission denied")
	})
}

// Whatever is wrong with the files, the workload does not run.
func TestFailsClosed(t *testing.T) {
	write := func(name, content string) func(string) error {
		return func(dir string) error { return os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644) }
	}
	remove := func(name string) func(string) error {
		return func(dir string) error { return os.Remove(filepath.Join(dir, name)) }
	}
	for _, tt := range []struct {
		name    string
		damage  func(dir string) error
		message string
	}{
		{"no directory", os.RemoveAll, "no such file"},
		{"no filter", remove(confine.FilterName), confine.FilterName},
		{"no quiet filter", remove(confine.QuietName), confine.QuietName},
		{"no confinement", remove(confine.ConfigName), confine.ConfigName},
		{"empty filter", write(confine.FilterName, ""), confine.FilterName},
		{"filter cut within an instruction", write(confine.FilterName, string(compiled.Loud[:12])), confine.FilterName},
		{"filter cut between instructions", write(confine.FilterName, string(compiled.Loud[:len(compiled.Loud)-8])), "load the seccomp filter"},
		{"filter of rubbish", write(confine.FilterName, strings.Repeat("\xff", 64)), "load the seccomp filter"},
		{"not started", remove(confine.ConfigName), "the container has not been started yet"},
		{"no profile", remove(confine.ProfileName), confine.ProfileName},
		{"profile of rubbish", write(confine.ProfileName, strings.Repeat("\xff", 64)), "load the seccomp filter"},
		{"profile that is cut", write(confine.ProfileName, "1234567"), confine.ProfileName},
		{"filter that is too long", write(confine.FilterName, strings.Repeat("\x06\x00\x00\x00\x00\x00\x00\x00", 4097)), confine.FilterName},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := files(t, enforcing(rules()))
			if err := tt.damage(dir); err != nil {
				t.Fatal(err)
			}
			refused(t, command(dir, "pid"), 126, tt.message)
		})
	}
	t.Run("wrong usage", func(t *testing.T) { refused(t, exec.Command(initPath, probe), 126, "usage") })
}

// A workload that runs the launcher with files of its own gains nothing: what it is under stays.
func TestWorkloadGainsNothingFromTheLauncher(t *testing.T) {
	requireLandlock(t)
	inner := files(t, permissive)
	dir, r := tree(t)
	r.ReadOnly = append(r.ReadOnly, inner)
	cmd := command(files(t, enforcing(r)), "exec", initPath, "--dir", inner, "--", "/bin/sh", "-c", "cat "+dir+"/ro/f; echo >"+dir+"/ro/f; mount -t tmpfs x /mnt")
	got := finish(t, cmd)
	if got.stdout != "data" || strings.Count(got.stderr, "ermission denied") != 2 {
		t.Errorf("%+v", got)
	}
}

// An exec session has a Landlock domain of its own, and must still be able to
// signal the main process.
func TestSignalsAcrossSessions(t *testing.T) {
	confinement := files(t, enforcing(rules()))
	main := command(confinement, "sleep")
	stdout, err := main.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := main.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		main.Process.Kill()
		main.Wait()
	}()
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "ready\n" {
		t.Fatalf("got %q, %v", line, err)
	}
	session := command(confinement, "files", fmt.Sprintf("kill %d", main.Process.Pid))
	if got := output(t, session); got != "ok\n" {
		t.Errorf("kill: %s", got)
	}
}

// A new confinement counts for what is started afterwards.
func TestConfinementIsReplaced(t *testing.T) {
	requireLandlock(t)
	dir, r := tree(t)
	confinement := files(t, permissive)
	if got := operate(t, confinement, dir, "write D/other/f"); got[0] != "ok" {
		t.Fatalf("permissive: %s", got[0])
	}
	if err := confine.WriteConfinement(confinement, enforcing(r)); err != nil {
		t.Fatal(err)
	}
	if got := operate(t, confinement, dir, "write D/other/f"); got[0] != "EACCES" {
		t.Errorf("enforcing: %s", got[0])
	}
}

// The launcher runs in images that have no libraries, and is started often.
func TestIsStaticAndSmall(t *testing.T) {
	f, err := elf.Open(initPath)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("it is linked dynamically")
		}
	}
	info, err := os.Stat(initPath)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > 1<<20 {
		t.Errorf("it has %d bytes", info.Size())
	}
}
