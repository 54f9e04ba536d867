// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

func init() { commands["datagrams"] = sendDatagrams }

// sendDatagrams sends datagrams on one socket, each after an answer to the one
// before or a while. Each is in hexadecimal, with zeros behind it to a size.
//
//	datagrams HOST:PORT HEX[+SIZE]…
func sendDatagrams(args []string) error {
	conn, err := net.Dial("udp", args[0])
	if err != nil {
		return err
	}
	answer := make([]byte, 2048)
	var failed error
	for _, arg := range args[1:] {
		text, size, _ := strings.Cut(arg, "+")
		b, err := hex.DecodeString(text)
		if err != nil {
			return err
		}
		n := len(b)
		if size != "" {
			if _, err := fmt.Sscan(size, &n); err != nil {
				return err
			}
		}
		b = append(b, make([]byte, max(0, n-len(b)))...)
		_ = conn.SetDeadline(time.Now().Add(3 * time.Second))
		_, err = conn.Write(b)
		if err == nil {
			_, err = conn.Read(answer)
		}
		failed = errors.Join(failed, err)
	}
	return failed
}
