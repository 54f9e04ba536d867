// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"openshell.ai/openshell/test/cases"
	"openshell.ai/openshell/test/fakenet"
	"openshell.ai/openshell/test/node"
)

// onlyInside is a name that no DNS server knows, but the site's proxy does.
const onlyInside = "mirror.onlyinside.example"

// siteProxy is a site's HTTP proxy in the fake internet. It tunnels for whoever has its password.
type siteProxy struct {
	w    *node.World
	port int

	mu    sync.Mutex
	asked []string // host:port of every tunnel
}

// siteProxyAddr is where a siteProxy listens: an address of the site's own.
const siteProxyAddr = "172.30.45.1"

const siteUser, sitePassword = "node", "pass:word"

func (p *siteProxy) start(secured bool) {
	t := p.w.T
	var l net.Listener
	node.Must(t, p.w.Net.DoInternet(func() (err error) {
		l, err = net.Listen("tcp", siteProxyAddr+":0")
		return err
	}))
	t.Cleanup(func() { l.Close() })
	p.port = l.Addr().(*net.TCPAddr).Port
	if secured {
		node.Must(t, p.w.Net.WriteCertificate(p.w.Dir, "proxy.corp.example", siteProxyAddr))
		cert, err := tls.LoadX509KeyPair(filepath.Join(p.w.Dir, "cert.pem"), filepath.Join(p.w.Dir, "key.pem"))
		node.Must(t, err)
		l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{cert}})
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(conn)
		}
	}()
}

func (p *siteProxy) serve(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	r, err := http.ReadRequest(in)
	if err != nil {
		return
	}
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte(siteUser+":"+sitePassword))
	if r.Method != http.MethodConnect || r.Header.Get("Proxy-Authorization") != want {
		_, _ = io.WriteString(conn, "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=site\r\nContent-Length: 0\r\n\r\n")
		return
	}
	p.mu.Lock()
	p.asked = append(p.asked, r.RequestURI)
	p.mu.Unlock()
	host, port, _ := net.SplitHostPort(r.RequestURI)
	if host == onlyInside {
		host = fakenet.WebHost
	}
	to, err := netip.ParseAddr(host)
	if addrs := fakenet.Addrs(host); err != nil && len(addrs) > 0 {
		to = addrs[0]
	}
	var origin net.Conn
	err = p.w.Net.DoInternet(func() (err error) {
		origin, err = net.Dial("tcp", net.JoinHostPort(to.String(), port))
		return err
	})
	if err != nil {
		_, _ = io.WriteString(conn, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
		return
	}
	defer origin.Close()
	_, _ = io.WriteString(conn, "HTTP/1.1 200 Connection established\r\n\r\n")
	go func() {
		_, _ = io.Copy(origin, in)
		_ = origin.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(conn, origin)
}

func (p *siteProxy) tunnels() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := slices.Clone(p.asked)
	slices.Sort(list)
	return slices.Compact(list)
}

func TestUpstreamProxy(t *testing.T) {
	for _, scheme := range []string{"http", "https"} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			cases.Show(t, "clients/site's proxy")
			p := new(siteProxy)
			w := node.New(t)
			p.w = w
			p.start(scheme == "https")
			credentials := filepath.Join(w.Dir, "credentials")
			node.Must(t, os.WriteFile(credentials, []byte(siteUser+":"+sitePassword+"\n"), 0o600))
			settings := map[string]any{
				"url":              fmt.Sprintf("%s://%s:%d", scheme, siteProxyAddr, p.port),
				"credentials_file": credentials,
				"no_proxy":         []string{fakenet.StreamHost, "45.64.45.14/32", "2a0e:b107:45::e/128"}, // the latter are CDNHost's
			}
			if scheme == "https" {
				settings["ca"] = w.Net.CACert()
			}
			w.Configure(map[string]any{"upstream_proxy": settings})

			through := [][]string{
				{"get", "https://" + fakenet.GitHubHost + "/user"},
				{"get", "http://" + onlyInside + "/packages"},
				{"banner", fakenet.MailHost + ":25"},
				{"tls-raw", fakenet.TLSHost + ":8883", "hello"},
				{"get", "http://" + fakenet.Addrs(fakenet.WebHost)[0].String() + "/by-address"},
			}
			direct := [][]string{
				{"get", "http://" + fakenet.StreamHost + "/by-name"},
				{"get", "https://" + fakenet.CDNHost + "/by-range"},
			}
			all := slices.Concat(through, direct)
			permissive := w.Container(node.Policy("agent"), node.Permissive).Start()
			for _, argv := range all {
				if r := permissive.Client(argv...); !r.OK {
					t.Errorf("permissive, %q: %+v", argv, r)
				}
			}
			want := []string{fakenet.Addrs(fakenet.WebHost)[0].String() + ":80", fakenet.GitHubHost + ":443", fakenet.MailHost + ":25",
				onlyInside + ":80", fakenet.TLSHost + ":8883"}
			slices.Sort(want)
			if got := p.tunnels(); !slices.Equal(got, want) {
				t.Errorf("the proxy was asked for %q, want %q", got, want)
			}
			// It is no way around the guard of addresses, nor to itself.
			for _, target := range []string{"http://" + fakenet.MetadataHost + "/", "http://169.254.169.254/", "http://" + fakenet.GoogleMetadata + "/",
				"http://" + fakenet.PrivateHost + "/", fmt.Sprintf("http://%s:%d/", siteProxyAddr, p.port)} {
				if r := permissive.Client("get", target); !strings.Contains(r.Body, "ssrf_denied") {
					t.Errorf("%s: %+v", target, r)
				}
			}
			if got := p.tunnels(); !slices.Equal(got, want) {
				t.Errorf("the proxy was asked for %q after that, want %q", got, want)
			}
			permissive.Delete()
			permissive.AwaitEnd()
			w.Operate("approve", "agent", "--all")

			enforcing := w.Container(node.Policy("agent")).Start()
			for _, argv := range all {
				if r := enforcing.Client(argv...); !r.OK {
					t.Errorf("enforcing, %q: %+v", argv, r)
				}
			}
			if denied := w.Denied(enforcing); len(denied) > 0 {
				t.Errorf("denied: %+v", denied)
			}
			if r := enforcing.Client("get", "http://"+onlyInside+"/other"); !strings.Contains(r.Body, "policy_denied") {
				t.Errorf("a request that nobody approved: %+v", r)
			}
			if doctor := w.OpenShell("doctor"); !strings.Contains(doctor.Stdout, "ok    upstream_proxy") {
				t.Errorf("doctor: %s", doctor)
			}

			// The password changes, which is told, and is not repeated.
			node.Must(t, os.WriteFile(credentials, []byte(siteUser+":old-secret\n"), 0o600))
			r := enforcing.Client(through[0]...)
			if r.Status != http.StatusBadGateway || !strings.Contains(r.Body, "upstream_unreachable") {
				t.Errorf("with a wrong password: %+v", r)
			}
			node.Eventually(t, node.Patience, "the reason in the log", func() bool {
				return strings.Contains(w.AuditLog(enforcing), "407 Proxy Authentication Required")
			})
			if strings.Contains(w.AuditLog(enforcing), "old-secret") {
				t.Error("the log has the password")
			}
		})
	}
}
