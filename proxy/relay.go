package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
)

// relay carries an admitted connection.
func (f *flow) relay(upstream net.Conn, p plan) {
	up, ok := upstream.(*net.TCPConn)
	if !ok {
		upstream.Close()
		f.deny(LayerConnection, fmt.Sprintf("upstream connection is a %T", upstream))
		f.abort()
		return
	}
	if !p.inspect {
		f.splice(up, f.prefix, !p.skip)
		return
	}
	if len(f.prefix) == 0 && !firstSpeaker(f.ctx, f.client, up) {
		f.opaque(up, nil, p)
		return
	}
	s, prefix := listen(f.client, f.prefix, helloWait)
	switch s {
	case speaksTLS:
		f.terminate(up, prefix, p)
	case speaksHTTP:
		f.setTLS(TLSNone)
		f.scheme = "http"
		f.offer(up)
		f.p.toOrigin.give(newFlowConn(f, f.client, prefix))
	case silent:
		up.Close()
		f.finish()
	default:
		f.opaque(up, prefix, p)
	}
}

// opaque carries a connection that was to be inspected and is not HTTP. An
// endpoint that declares HTTP allows nothing else.
func (f *flow) opaque(up *net.TCPConn, prefix []byte, p plan) {
	if p.declared {
		r := f.refusedProtocol()
		outcome := Denied
		if f.p.View().Permissive {
			outcome = Logged
		}
		f.record(Record{Kind: Raw, Outcome: outcome, Layer: r.layer, Reason: r.reason})
		if outcome == Denied {
			up.Close()
			f.abort()
			return
		}
	} else {
		f.recordCarried(Raw, false)
	}
	f.splice(up, prefix, false)
}

// splice passes bytes both ways untouched, in the kernel where it can, until
// both sides have ended. With checkName, a TLS client that asks for another
// server than the one the connection is for is cut off: behind many addresses
// there are many servers.
func (f *flow) splice(up *net.TCPConn, prefix []byte, checkName bool) {
	defer f.finish()
	defer up.Close()
	stop := context.AfterFunc(f.ctx, func() { up.Close() })
	defer stop()

	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = io.Copy(f.client, up)
		_ = f.client.CloseWrite()
	})
	if err := f.sendFirst(up, prefix, checkName); err != nil {
		f.deny(LayerTLS, err.Error())
		up.Close()
		_ = f.client.SetLinger(0)
		f.client.Close()
	} else {
		_, _ = io.Copy(up, f.client)
		_ = up.CloseWrite()
	}
	wg.Wait()
}

// sendFirst passes on what the client said first.
func (f *flow) sendFirst(up *net.TCPConn, prefix []byte, checkName bool) error {
	if checkName {
		var err error
		if prefix, err = f.checkHello(prefix); err != nil {
			return err
		}
	}
	if len(prefix) > 0 {
		_, _ = up.Write(prefix) // Where it fails, the copy that follows does too.
	}
	return nil
}

// checkHello waits for the client's first bytes and, where they begin a
// ClientHello, for the whole of it. It returns what it read.
func (f *flow) checkHello(prefix []byte) ([]byte, error) {
	if len(prefix) == 0 {
		prefix = make([]byte, 4096)
		n, _ := f.client.Read(prefix) // The end of the stream is the relay's.
		prefix = prefix[:n]
	}
	if len(prefix) == 0 || prefix[0] != recordTypeHandshake {
		f.setTLS(TLSNone)
		return prefix, nil
	}
	name, read, err := readHello(f.client, prefix)
	var notTLS tls.RecordHeaderError
	switch {
	case errors.As(err, &notTLS):
		f.setTLS(TLSNone)
	case err != nil:
		return nil, fmt.Errorf("malformed ClientHello: %w", err)
	case !f.namesHost(name):
		return nil, fmt.Errorf("server name %q on a connection to %s", name, f.hostPort())
	default:
		f.setTLS(TLSSpliced)
	}
	return read, nil
}

// namesHost tells whether a server name or request authority is the host that
// the connection was opened for. A connection to an address was granted by
// address, and whoever is there may go by any name.
func (f *flow) namesHost(name string) bool {
	if _, err := netip.ParseAddr(f.host); err == nil || name == "" {
		return true
	}
	return strings.EqualFold(strings.TrimSuffix(name, "."), f.host)
}
