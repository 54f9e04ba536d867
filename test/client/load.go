// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// load opens COUNT connections, some at once, and reads each to its end. The
// server speaks and closes.
func load(args []string) (result, error) {
	o := newOptions()
	count := o.Int("n", 1, "")
	atOnce := o.Int("c", 1, "")
	if err := o.parse(args, 1, 1); err != nil {
		return result{}, err
	}
	r := result{Target: o.Arg(0)}
	var bytes, left atomic.Int64
	left.Store(int64(*count))
	errs := make([]error, *atOnce)
	var wg sync.WaitGroup
	for i := range *atOnce {
		wg.Go(func() {
			buf := make([]byte, 1<<20)
			for left.Add(-1) >= 0 && errs[i] == nil {
				errs[i] = drain(o.Arg(0), buf, &bytes)
			}
		})
	}
	wg.Wait()
	r.Bytes = bytes.Load()
	for _, err := range errs {
		if err != nil {
			return r, err
		}
	}
	return r, nil
}

func drain(addr string, buf []byte, bytes *atomic.Int64) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	for {
		n, err := conn.Read(buf)
		bytes.Add(int64(n))
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
