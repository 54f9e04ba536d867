// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// ftpControl is the port by which an FTP client is told the one for each transfer (RFC 959).
const ftpControl = 21

// endFTPControl ends the control connections for whose transfer a refused connection was. Their client has nothing
// to say on that one: it waits for the server's word, and the server waits for the connection.
func (f *tcpFlow) endFTPControl() {
	to := f.endpoint()
	if to.processErr != nil || to.port < 1024 {
		return
	}
	for _, control := range f.p.flowsNow() {
		c := control.endpoint()
		if c.port != ftpControl || c.process.PID != to.process.PID || !c.isAlso(to.host) || !control.passthrough.Load() {
			continue
		}
		control.deny(LayerConnection, fmt.Sprintf("the connection for its transfer, to %s, was refused", to.hostPort()))
		control.conns.tell("421 The connection for the transfer is not permitted by policy.\r\n")
		control.finish()
	}
}

// isAlso reports whether the endpoint's host is called that too.
func (e *endpoint) isAlso(host string) bool {
	a, err := netip.ParseAddr(host)
	return e.host == host || err == nil && slices.Contains(e.addrs, a)
}

// tellWait bounds the wait for a client that does not read.
const tellWait = time.Second

// tell has the workload read a line before its connection ends.
func (c *connections) tell(line string) {
	c.mu.Lock()
	client := c.client
	c.mu.Unlock()
	if client != nil {
		_ = client.SetWriteDeadline(time.Now().Add(tellWait))
		_, _ = client.Write([]byte(line))
	}
}
