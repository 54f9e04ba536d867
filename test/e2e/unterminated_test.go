// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"openshell.ai/openshell/internal/learn"
	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/test/cases"
	"openshell.ai/openshell/test/fakenet"
	"openshell.ai/openshell/test/node"
)

// What only the client can make something of is the client's, at its first attempt:
// the origin is met before the client is answered.
func TestTLSThatIsTheClients(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, row string
		serve     func(*server)
		curl      string // options
		why       string // in the proposal
	}{
		{"self-signed", "clients/self-signed origin", func(s *server) {
			s.selfSigned("-addext", "subjectAltName=DNS:"+serverHost)
			s.handleTLS(8443, hello, nil, "own.pem", "own-key.pem")
		}, "-k", "unknown authority"},
		{"own CA", "clients/self-signed origin", func(s *server) {
			s.selfSigned("-addext", "subjectAltName=DNS:"+serverHost)
			s.handleTLS(8443, hello, nil, "own.pem", "own-key.pem")
		}, "--cacert own.pem", "unknown authority"},
		{"old TLS", "clients/old TLS", func(s *server) {
			s.selfSigned() // a common name only
			s.handleTLS(8443, hello, &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256}},
				"own.pem", "own-key.pem")
		}, "--cacert own.pem", "handshake failure"},
		{"client certificate", "clients/client certificate", func(s *server) {
			s.selfSigned() // the client's
			node.Must(s.t, s.w.Net.WriteCertificate(s.dir, serverHost))
			s.handleTLS(8443, named, &tls.Config{ClientAuth: tls.RequireAnyClientCert}, "cert.pem", "key.pem")
		}, "--cacert ca.pem --cert own.pem --key own-key.pem", "client certificate"},
		{"client certificate in TLS 1.2", "clients/client certificate", func(s *server) {
			s.selfSigned()
			node.Must(s.t, s.w.Net.WriteCertificate(s.dir, serverHost))
			s.handleTLS(8443, named, &tls.Config{ClientAuth: tls.RequireAnyClientCert, MaxVersion: tls.VersionTLS12}, "cert.pem", "key.pem")
		}, "--cacert ca.pem --cert own.pem --key own-key.pem", "client certificate"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cases.Show(t, tt.row)
			w := node.New(t)
			in := newServer(w)
			tt.serve(in)
			node.Must(t, os.MkdirAll(w.TryDir(), 0o755))
			node.Must(t, node.CopyFile(w.Net.CACert(), filepath.Join(w.TryDir(), "ca.pem")))
			for _, name := range []string{"own.pem", "own-key.pem"} {
				node.Must(t, node.CopyFile(in.path(name), filepath.Join(w.TryDir(), name)))
			}
			script := "curl -sS " + tt.curl + " https://" + serverHost + ":8443/"
			if o := shell(w, "--permissive", "agent", script); o.Status != 0 || o.Stdout != "hello" {
				t.Fatalf("permissive, at once: %s", o)
			}
			p := w.ProposalFor("agent", serverHost)
			if p.Rule.Endpoints[0].TLS != policy.TLSSkip || !strings.Contains(strings.Join(p.SecurityNotes, "\n"), tt.why) {
				t.Errorf("proposed %+v, %q", p.Rule.Endpoints, p.SecurityNotes)
			}
			w.Operate("approve", "agent", "--all")
			if o := shell(w, "", "agent", script); o.Status != 0 || o.Stdout != "hello" {
				t.Errorf("enforcing: %s", o)
			}

			// An endpoint whose requests are decided stays one, in both modes.
			w.Policy("strict", fmt.Sprintf("version: 1\nnetwork_policies:\n  api:\n    endpoints: [{host: %s, port: 8443, protocol: rest, enforcement: enforce, access: full}]\n", serverHost))
			for _, mode := range []string{"", "--permissive"} {
				o := shell(w, mode, "strict", "curl -sS -k -w '%{http_code}' https://"+serverHost+":8443/")
				if o.Status != 0 || !strings.HasSuffix(o.Stdout, "502") || !strings.Contains(o.Stdout, tt.why) {
					t.Errorf("%q: %s", mode, o)
				}
			}
			for _, p := range w.Proposals("strict") {
				t.Errorf("proposed %+v", p.Rule)
			}
		})
	}
}

var (
	hello = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") })
	named = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.TLS.PeerCertificates) == 1 && r.TLS.PeerCertificates[0].Subject.CommonName == serverHost {
			hello(w, r)
		}
	})
)

// selfSigned leaves own.pem and own-key.pem, of RSA.
func (s *server) selfSigned(options ...string) {
	s.do(append([]string{"openssl", "req", "-x509", "-newkey", "rsa:2048", "-noenc", "-days", "2", "-subj", "/CN=" + serverHost,
		"-keyout", s.path("own-key.pem"), "-out", s.path("own.pem")}, options...)...)
}

// A bad certificate on one connection does not widen what others have shown.
func TestBadCertificateWidensNothing(t *testing.T) {
	t.Parallel()
	w := node.New(t)
	c := w.Container(node.Policy("agent"), node.Permissive).Start()
	node.Worked(t, c.Client("get", "https://"+fakenet.WeatherHost+"/forecast"))
	c.Client("get", "https://"+fakenet.UntrustedHost+"/x") // refused by the client itself
	p := w.ProposalFor("agent", fakenet.UntrustedHost)
	if p.Kind != learn.KindNetwork || p.Rule.Endpoints[0].TLS != policy.TLSSkip {
		t.Errorf("proposed %+v", p.Rule)
	}
	if p := w.ProposalFor("agent", fakenet.WeatherHost); p.Rule.Endpoints[0].TLS != "" || len(p.Rule.Endpoints[0].Rules) == 0 {
		t.Errorf("proposed %+v", p.Rule)
	}
}
