// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

const patience = 30 * time.Second

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for late := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(late) {
			t.Fatal(what)
		}
		runtime.GC()
	}
}

func TestLimitIsTheSumOfTheClaims(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	a, b := New(1<<30, func() {}), New(2<<30, func() {})
	for _, step := range []struct {
		close *Claim
		want  int64
	}{{nil, 3 << 30}, {a, 2 << 30}, {a, 2 << 30}, {b, before}} {
		if step.close != nil {
			step.close.Close()
		}
		if got := debug.SetMemoryLimit(-1); got != step.want {
			t.Errorf("the limit is %d, want %d", got, step.want)
		}
	}
}

// What is alive makes the process tight, and then has to be given up. Afterwards there is
// room again.
func TestShed(t *testing.T) {
	held := make([][]byte, 64)
	for i := range held {
		held[i] = make([]byte, 1<<20)
	}
	shed := make(chan struct{}, 100)
	c := New(64<<20, func() { shed <- struct{}{} })
	defer c.Close()
	eventually(t, "nobody was asked to give up anything", func() bool { return len(shed) > 0 && Tight() })
	runtime.KeepAlive(held)
	eventually(t, "there is no room again", func() bool { return !Tight() })
}

func TestGiveBack(t *testing.T) {
	load := make([]byte, 96<<20)
	for i := 0; i < len(load); i += 4096 {
		load[i] = 1
	}
	runtime.KeepAlive(load)
	GiveBack()
	for late := time.Now().Add(patience); held() > 48<<20; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(late) {
			t.Fatalf("%d bytes are kept", held())
		}
	}
}
