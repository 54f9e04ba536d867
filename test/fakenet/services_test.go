// SPDX-License-Identifier: Apache-2.0

package fakenet

import (
	"archive/zip"
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestRawEchoes(t *testing.T) {
	n := newNet(t)
	for _, test := range []struct{ network, address, proto string }{
		{"tcp4", "echo.example:7", "tcp"},
		{"tcp6", "echo.example:7", "tcp"},
		{"udp4", "echo.example:7", "udp"},
		{"udp6", "echo.example:443", "udp"},
		{"tls", "tls.example:8883", "tls"},
	} {
		t.Run(test.network, func(t *testing.T) {
			n.Reset()
			network := test.network
			if network == "tls" {
				network = "tcp"
			}
			conn, err := n.DialContext(t.Context(), network, test.address)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(time.Minute))
			if test.network == "tls" {
				conn = tls.Client(conn, &tls.Config{RootCAs: n.ca.pool(), ServerName: TLSHost})
			}
			if _, err := io.WriteString(conn, "hello"); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, 5)
			if _, err := io.ReadFull(conn, got); err != nil || string(got) != "hello" {
				t.Fatalf("read %q, %v", got, err)
			}
			if seen := find(t, n, func(Request) bool { return true }); seen.Proto != test.proto || seen.Body != 5 {
				t.Errorf("recorded %+v", seen)
			}
		})
	}
}

func TestMailSpeaksFirst(t *testing.T) {
	n := newNet(t)
	conn, err := n.DialContext(t.Context(), "tcp", "mail.example:25")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	lines := bufio.NewReader(conn)
	for _, step := range []struct{ say, hear string }{
		{"", MailBanner}, {"EHLO x", "250 ok"}, {"SPAM", "502 command not implemented"}, {"QUIT", "221 bye"},
	} {
		if step.say != "" {
			fmt.Fprintf(conn, "%s\r\n", step.say)
		}
		if line, err := lines.ReadString('\n'); err != nil || strings.TrimSpace(line) != step.hear {
			t.Fatalf("to %q: heard %q, %v", step.say, line, err)
		}
	}
}

func TestEveryBlockedAddressIsReallyReachable(t *testing.T) {
	n := newNet(t)
	client := n.Client()
	client.Timeout = time.Minute
	for i, addr := range BlockedAddrs() {
		for scheme, port := range map[string]uint16{"http": 80, "https": 443} {
			n.Reset()
			_, body := fetch(t, client, fmt.Sprintf("%s://%s/secret", scheme, netip.AddrPortFrom(addr, port)))
			if echo := echoed(t, body); echo.Origin != "blocked" {
				t.Errorf("%s: answered by %s", addr, echo.Origin)
			}
		}
		if _, body := fetch(t, client, fmt.Sprintf("https://%d.%s:6443/", i, RangesHost)); echoed(t, body).Origin != "blocked" {
			t.Errorf("%d.%s: %s", i, RangesHost, body)
		}
	}
	for _, host := range []string{PrivateHost, MetadataHost, GoogleMetadata, CNAMEPrivate, MappedHost, NAT64Host, SixToFourHost, BenchmarkHost} {
		if _, body := fetch(t, client, "https://"+host+"/"); echoed(t, body).Origin != "blocked" {
			t.Errorf("%s: %s", host, body)
		}
	}
	for _, url := range []string{"http://127.0.0.1/", "http://[::1]/", "http://loopback.example/"} {
		if _, body := fetch(t, client, url); echoed(t, body).Origin != "loopback" {
			t.Errorf("%s: %s", url, body)
		}
	}
}

func TestGitCloneAndPush(t *testing.T) {
	n := newNet(t)
	home := t.TempDir()
	git := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("git", args...)
		cmd.Env = append(append(os.Environ(), gitEnv(home)...),
			"GIT_SSL_CAINFO="+n.CACert(), "GIT_TERMINAL_PROMPT=0", "no_proxy=*")
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := n.Do(cmd.Start); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, &out)
		}
		return out.String()
	}
	url := "https://" + GitHost + GitRepository
	first, second := filepath.Join(home, "first"), filepath.Join(home, "second")
	git("clone", url, first)
	if text, err := os.ReadFile(filepath.Join(first, "README.md")); err != nil || string(text) != "# project\n" {
		t.Fatalf("README: %q, %v", text, err)
	}
	// More than http.postBuffer, so that the push is chunked (HTTP/1.1); random, so that
	// git cannot pack it.
	big := make([]byte, 256<<10)
	if _, err := io.ReadFull(randomFile(t), big); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(first, "big"), big, 0o600); err != nil {
		t.Fatal(err)
	}
	git("-C", first, "add", "big")
	git("-C", first, "commit", "-m", "big")
	git("-C", first, "-c", "http.version=HTTP/1.1", "-c", "http.postBuffer=65536", "push", "origin", "main")
	git("clone", url, second)
	if text, err := os.ReadFile(filepath.Join(second, "big")); err != nil || !bytes.Equal(text, big) {
		t.Errorf("what was pushed did not come back: %v", err)
	}
	var pushed int64
	for _, r := range n.Requests() {
		if r.Origin == GitHost && r.Method == "POST" && r.Target == GitRepository+"/git-receive-pack" {
			pushed += r.Body
		}
	}
	if pushed < int64(len(big)) {
		t.Errorf("recorded a push of %d bytes", pushed)
	}
}

func randomFile(t *testing.T) io.Reader {
	f, err := os.Open("/dev/urandom")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestPythonPackage(t *testing.T) {
	n := newNet(t)
	_, index := fetch(t, n.Client(), "https://pypi.example/simple/"+PackageName+"/")
	link := regexp.MustCompile(`href="(.+)#sha256=(.+)"`).FindStringSubmatch(index)
	if link == nil {
		t.Fatalf("no link in %q", index)
	}
	_, wheel := fetch(t, n.Client(), "https://pypi.example"+link[1])
	if sum := fmt.Sprintf("%x", sha256.Sum256([]byte(wheel))); sum != link[2] {
		t.Errorf("sha256 %s, the index says %s", sum, link[2])
	}
	archive, err := zip.NewReader(strings.NewReader(wheel), int64(len(wheel)))
	if err != nil {
		t.Fatal(err)
	}
	var record strings.Builder
	for _, file := range archive.File {
		r, err := file.Open()
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.New()
		size, err := io.Copy(sum, r)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(file.Name, "/RECORD") {
			fmt.Fprintf(&record, "%s,,\n", file.Name)
			continue
		}
		fmt.Fprintf(&record, "%s,sha256=%s,%d\n", file.Name, base64.RawURLEncoding.EncodeToString(sum.Sum(nil)), size)
	}
	listed, err := archive.Open("fakenet_greeting-1.0.0.dist-info/RECORD")
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(listed); err != nil || string(text) != record.String() {
		t.Errorf("RECORD is %q (%v), want %q", text, err, &record)
	}
}

func TestNPMPackage(t *testing.T) {
	n := newNet(t)
	_, body := fetch(t, n.Client(), "https://npm.example/"+PackageName)
	var metadata struct {
		Versions map[string]struct {
			Dist struct{ Tarball, Integrity string }
		}
	}
	if err := json.Unmarshal([]byte(body), &metadata); err != nil {
		t.Fatal(err)
	}
	dist := metadata.Versions[PackageVersion].Dist
	response, tarball := fetch(t, n.Client(), dist.Tarball)
	sum := sha512.Sum512([]byte(tarball))
	if got := "sha512-" + base64.StdEncoding.EncodeToString(sum[:]); response.StatusCode != http.StatusOK || got != dist.Integrity {
		t.Errorf("%s: %s, the registry says %s", response.Status, got, dist.Integrity)
	}
}
