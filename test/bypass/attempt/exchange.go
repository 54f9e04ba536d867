// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

func init() { commands["exchange"] = exchange }

// exchange exchanges pairs of paths all the time.
func exchange(args []string) error {
	if len(args)%2 != 0 {
		return errors.New("usage: exchange A B [A B]…")
	}
	fmt.Println("exchanging")
	for {
		for i := 0; i < len(args); i += 2 {
			if err := unix.Renameat2(unix.AT_FDCWD, args[i], unix.AT_FDCWD, args[i+1], unix.RENAME_EXCHANGE); err != nil {
				return err
			}
		}
	}
}
