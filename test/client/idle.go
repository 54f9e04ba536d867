// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// idle opens COUNT connections, some at once, says TEXT on each, prints how many
// of them stand, and keeps them until the end of its input. Who the server is
// does not matter to it.
func idle(args []string) (result, error) {
	o := newOptions()
	count := o.Int("n", 1, "")
	atOnce := o.Int("c", 16, "")
	overTLS := o.Bool("tls", false, "")
	alpn := o.String("alpn", "", "")
	escapes := o.Bool("e", false, "")
	answered := o.Bool("answered", false, "")
	if err := o.parse(args, 1, 2); err != nil {
		return result{}, err
	}
	text, err := unescape(o.Arg(1), *escapes)
	if err != nil {
		return result{}, err
	}
	r := result{Target: o.Arg(0)}
	host, _, err := net.SplitHostPort(o.Arg(0))
	if err != nil {
		return r, err
	}
	config := &tls.Config{ServerName: host, InsecureSkipVerify: true}
	if *alpn != "" {
		config.NextProtos = strings.Split(*alpn, ",")
	}
	open := func() (net.Conn, error) {
		conn, err := net.DialTimeout("tcp", o.Arg(0), o.timeout)
		if err != nil {
			return nil, err
		}
		_ = conn.SetDeadline(time.Now().Add(o.timeout))
		if *overTLS {
			conn = tls.Client(conn, config)
		}
		if _, err = io.WriteString(conn, text); err == nil && *overTLS {
			err = conn.(*tls.Conn).Handshake()
		}
		if err == nil && *answered {
			_, err = conn.Read(make([]byte, 4096))
		}
		return conn, err
	}
	var left, refused atomic.Int64
	left.Store(int64(*count))
	kept := make([][]net.Conn, *atOnce)
	var wg sync.WaitGroup
	for i := range *atOnce {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				conn, err := open()
				if conn != nil {
					kept[i] = append(kept[i], conn)
				}
				if err != nil {
					refused.Add(1)
				}
			}
		})
	}
	wg.Wait()
	fmt.Fprintf(os.Stdout, "{\"ok\":true,\"command\":\"idle\",\"bytes\":%d}\n", int64(*count)-refused.Load())
	_, _ = io.Copy(io.Discard, os.Stdin)
	for _, conns := range kept {
		for _, conn := range conns {
			if secured, ok := conn.(*tls.Conn); ok {
				conn = secured.NetConn() // no wait for a server that does not read
			}
			conn.Close()
		}
	}
	r.Bytes = int64(*count) - refused.Load()
	return r, nil
}

// ask sends a name server COUNT questions for different names below one, without
// waiting, and prints how many answers came.
func ask(args []string) (result, error) {
	o := newOptions()
	count := o.Int("n", 1, "")
	if err := o.parse(args, 1, 1); err != nil {
		return result{}, err
	}
	r := result{Target: o.Arg(0)}
	conn, err := net.Dial("udp", "192.0.2.53:53")
	if err != nil {
		return r, err
	}
	defer conn.Close()
	var answers sync.WaitGroup
	answers.Go(func() {
		buf := make([]byte, dns.MaxMsgSize)
		for {
			_ = conn.SetReadDeadline(time.Now().Add(o.timeout))
			if _, err := conn.Read(buf); err != nil {
				return
			}
			r.Bytes++
		}
	})
	for i := range *count {
		query, err := new(dns.Msg).SetQuestion(fmt.Sprintf("n%d.%s.", i, o.Arg(0)), dns.TypeA).Pack()
		if err != nil {
			return r, err
		}
		_, _ = conn.Write(query) // It may be lost, as any datagram.
	}
	answers.Wait()
	return r, nil
}
