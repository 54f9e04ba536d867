// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"openshell.ai/openshell/internal/learn"
	"openshell.ai/openshell/test/cases"
	"openshell.ai/openshell/test/node"
)

// ftpServer serves one file by FTP (RFC 959, RFC 2428) to whoever asks, passively: each transfer has a port that the
// kernel chooses, and which the server waits at for as long as the client stays.
type ftpServer struct{ w *node.World }

func (s *ftpServer) start() {
	l := s.listen(21)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go s.serve(conn)
		}
	}()
}

func (s *ftpServer) listen(port int) (l net.Listener) {
	node.Must(s.w.T, s.w.Net.DoInternet(func() (err error) {
		l, err = net.Listen("tcp", fmt.Sprintf("0.0.0.0:%d", port))
		return err
	}))
	s.w.T.Cleanup(func() { l.Close() })
	return l
}

func (s *ftpServer) serve(conn net.Conn) {
	defer conn.Close()
	say := func(format string, args ...any) { fmt.Fprintf(conn, format+"\r\n", args...) }
	say("220 ready")
	var data net.Listener
	commands := bufio.NewScanner(conn)
	for commands.Scan() {
		switch command, _, _ := strings.Cut(commands.Text(), " "); strings.ToUpper(command) {
		case "USER":
			say("331 and the password?")
		case "PASS":
			say("230 welcome")
		case "PWD":
			say(`257 "/"`)
		case "EPSV", "PASV":
			data = s.listen(0)
			port := data.Addr().(*net.TCPAddr).Port
			if command == "EPSV" {
				say("229 entering extended passive mode (|||%d|)", port)
				continue
			}
			ip := conn.LocalAddr().(*net.TCPAddr).IP.To4()
			say("227 entering passive mode (%d,%d,%d,%d,%d,%d)", ip[0], ip[1], ip[2], ip[3], port/256, port%256)
		case "RETR":
			c, err := data.Accept()
			if err != nil {
				return
			}
			say("150 here it comes")
			_, _ = io.WriteString(c, "the file\n")
			c.Close()
			say("226 that was it")
		case "QUIT":
			say("221 bye")
			return
		case "TYPE", "CWD":
			say("200 well")
		default:
			say("502 not here")
		}
	}
}

// Passive FTP works permissively. The port of its data connection is another one each time: the proposal says so, and
// is not approved unseen. Enforcing, the connection is refused at once, with the reason in the log: the client is told
// on its control connection, where it waits.
func TestPassiveFTP(t *testing.T) {
	cases.Show(t, "clients/port of the server's choice")
	t.Parallel()
	wantCommand(t, "curl")
	wantCommand(t, "python3")
	w := node.New(t)
	(&ftpServer{w}).start()
	const script = `
curl -sS --max-time 60 ftp://` + serverHost + `/file
python3 -c 'import ftplib
f = ftplib.FTP("` + serverHost + `", timeout=60); f.login(); f.af = 0; f.retrbinary("RETR file", lambda b: print(b.decode(), end=""))'
`
	if o := shell(w, "--permissive", "ftp", script+script); o.Status != 0 || o.Stdout != strings.Repeat("the file\n", 4) {
		t.Fatalf("permissive: %s", o)
	}
	approval := w.OpenShell("approve", "ftp", "--all")
	if approval.Status == 0 || !strings.Contains(approval.Stderr, learn.LeftVarying) {
		t.Errorf("approve --all: %s", approval)
	}
	var varying []string
	for _, p := range w.Proposals("ftp") {
		if p.Status != learn.StatusApproved {
			varying = append(varying, p.ID)
		}
	}
	if len(varying) != 4 {
		t.Errorf("not approved: %q", varying)
	}
	if shown := w.Operate("show", varying[0]); !strings.Contains(shown, "choose this port anew each time") {
		t.Errorf("show: %s", shown)
	}
	if list := w.Operate("proposals", "ftp"); !strings.Contains(list, "port varies") {
		t.Errorf("proposals: %s", list)
	}

	for client, command := range map[string]string{
		"curl, EPSV": "curl -sS --max-time 60 ftp://" + serverHost + "/file",
		"curl, PASV": "curl -sS --max-time 60 --disable-epsv --no-ftp-skip-pasv-ip ftp://" + serverHost + "/file",
		"python3": `python3 -c 'import ftplib
f = ftplib.FTP("` + serverHost + `", timeout=60); f.login(); f.retrbinary("RETR file", print)'`,
	} {
		o := shell(w, "", "ftp", command)
		if o.Status == 0 || o.Stdout != "" || strings.Contains(o.Stderr, "timed out") || strings.Contains(o.Stderr, "timeout") {
			t.Errorf("enforcing, %s: %s", client, o)
		}
	}
	logs, err := filepath.Glob(filepath.Join(w.StateDir, "sandboxes", "*", "openshell.log"))
	node.Must(t, err)
	told := false
	for _, file := range logs {
		text, err := os.ReadFile(file)
		node.Must(t, err)
		for line := range node.Lines(string(text)) {
			told = told || strings.Contains(line, "CONNECT denied "+serverHost+":") && strings.Contains(line, "not allowed by any policy")
		}
	}
	if !told {
		t.Errorf("no log of %q tells of the data connection", logs)
	}
}
