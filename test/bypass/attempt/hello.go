// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"slices"
	"time"
)

func init() { commands["hello"] = sendHello }

// sendHello connects to one host and asks for another in TLS, behind or around
// something that its server passes over, and sends a request over it.
//
//	hello HOST:PORT NAME WAY
func sendHello(args []string) error {
	way, ok := helloWays[args[2]]
	if !ok {
		return fmt.Errorf("no such way: %s", args[2])
	}
	conn, err := net.DialTimeout("tcp", args[0], 5*time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	secured := tls.Client(&firstWrite{Conn: conn, change: way}, &tls.Config{ServerName: args[1], InsecureSkipVerify: true})
	if err := secured.Handshake(); err != nil {
		return err
	}
	fmt.Fprintf(secured, "GET /%s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", args[2], args[1])
	answer, err := io.ReadAll(secured)
	fmt.Printf("%.200s\n", answer)
	return err
}

// warning is an alert that servers pass over: user_canceled.
var warning = []byte{21, 3, 1, 0, 2, 1, 90}

// helloWays are what a client may do to its ClientHello, which is one record.
var helloWays = map[string]func(hello []byte) [][]byte{
	"plainly":          func(hello []byte) [][]byte { return [][]byte{hello} },
	"behind-an-alert":  func(hello []byte) [][]byte { return [][]byte{warning, hello} },
	"in-one-segment":   func(hello []byte) [][]byte { return [][]byte{slices.Concat(warning, hello)} },
	"behind-alerts":    func(hello []byte) [][]byte { return [][]byte{warning, warning, warning, hello} },
	"alert-of-no-year": func(hello []byte) [][]byte { return [][]byte{{21, 0, 0, 0, 2, 1, 90}, hello} },
	"of-no-version": func(hello []byte) [][]byte {
		return [][]byte{slices.Concat([]byte{22, 0, 0}, hello[3:])}
	},
	"byte-by-byte": func(hello []byte) [][]byte {
		return slices.Collect(slices.Chunk(slices.Concat(warning, hello), 1))
	},
	"around-an-alert": func(hello []byte) [][]byte {
		record := func(b []byte) []byte {
			return slices.Concat(hello[:3], []byte{byte(len(b) >> 8), byte(len(b))}, b)
		}
		body := hello[5:]
		return [][]byte{record(body[:40]), warning, record(body[40:])}
	},
}

// firstWrite is a connection whose first write is another one.
type firstWrite struct {
	net.Conn
	change func([]byte) [][]byte
}

// Write implements net.Conn.
func (c *firstWrite) Write(b []byte) (int, error) {
	if c.change == nil {
		return c.Conn.Write(b)
	}
	pieces := c.change(b)
	c.change = nil
	for _, piece := range pieces {
		if _, err := c.Conn.Write(piece); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}
