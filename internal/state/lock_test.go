// SPDX-License-Identifier: Apache-2.0

package state

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The test binary is also the other process of the tests below.
func TestMain(m *testing.M) {
	switch os.Getenv("STATE_TEST_ROLE") {
	case "hold":
		unlock, err := Open(os.Args[1]).Lock("p")
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("locked")
		time.Sleep(time.Hour)
		unlock()
	case "write":
		for i := 0; ; i++ {
			data := strings.Repeat(strconv.Itoa(i%10), 100_000)
			if err := WriteFile(os.Args[1], []byte(data), 0o600); err != nil {
				fmt.Println(err)
				os.Exit(1)
			}
			if i == 0 {
				fmt.Println("written")
			}
		}
	}
	os.Exit(m.Run())
}

// child starts the test binary in a role and waits for its first line.
func child(t *testing.T, role, arg, want string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], arg)
	cmd.Env = append(os.Environ(), "STATE_TEST_ROLE="+role)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != want+"\n" {
		t.Fatalf("child says %q, %v", line, err)
	}
	return cmd
}

func TestLockExcludesCallers(t *testing.T) {
	s := Open(t.TempDir())
	var holders atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				unlock, err := s.Lock("p")
				if err != nil {
					t.Error(err)
					return
				}
				if n := holders.Add(1); n != 1 {
					t.Errorf("%d hold the lock", n)
				}
				runtime.Gosched()
				holders.Add(-1)
				unlock()
			}
		})
	}
	wg.Wait()
}

// The lock is held against another process until that one is gone, even by a kill.
func TestLockExcludesProcesses(t *testing.T) {
	dir := t.TempDir()
	holder := child(t, "hold", dir, "locked")
	locked := make(chan error)
	go func() {
		unlock, err := Open(dir).Lock("p")
		if err == nil {
			unlock()
		}
		locked <- err
	}()
	awaitWaiter(t)
	select {
	case err := <-locked:
		t.Fatalf("locked beside the holder: %v", err)
	default:
	}
	if err := holder.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	holder.Wait()
	select {
	case err := <-locked:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("not locked though the holder is gone")
	}
}

// Who waits for the lock of a policy that is removed meanwhile does not end up with a lock
// of its own.
func TestLockAfterRemoval(t *testing.T) {
	s := Open(t.TempDir())
	unlock, err := s.Lock("p")
	if err != nil {
		t.Fatal(err)
	}
	second := make(chan func())
	go func() {
		unlock, err := s.Lock("p")
		if err != nil {
			t.Error(err)
		}
		second <- unlock
	}()
	awaitWaiter(t)
	if err := os.RemoveAll(s.PolicyDir("p")); err != nil {
		t.Fatal(err)
	}
	unlock()
	if unlock = <-second; unlock == nil {
		t.FailNow()
	}
	defer unlock()
	f, err := os.Open(filepath.Join(s.PolicyDir("p"), "lock"))
	if err != nil {
		t.Fatalf("the lock that is held has no file: %v", err)
	}
	f.Close()
}

// awaitWaiter waits until this process waits for a lock (proc_locks(5)).
func awaitWaiter(t *testing.T) {
	t.Helper()
	waiting := regexp.MustCompile(fmt.Sprintf(`-> FLOCK +ADVISORY +WRITE +%d `, os.Getpid()))
	for late := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		locks, err := os.ReadFile("/proc/locks")
		if err != nil {
			t.Fatal(err)
		}
		if waiting.Match(locks) {
			return
		}
		if time.Now().After(late) {
			t.Fatalf("nobody waits:\n%s", locks)
		}
	}
}

// A reader sees whole files only, while a writer is at work and after it was killed.
func TestKillBetweenWrites(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	check := func() {
		t.Helper()
		data, err := ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if len(data) != 100_000 || strings.Trim(string(data), string(data[:1])) != "" {
			t.Fatalf("read a part of a file: %d bytes", len(data))
		}
	}
	for round := range 5 {
		writer := child(t, "write", path, "written")
		for range 20 {
			check()
		}
		time.Sleep(time.Duration(round) * 3 * time.Millisecond)
		if err := writer.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		writer.Wait()
		check()
	}
}
