// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"openshell.ai/openshell/test/node"
)

// service is a real client of a real server. What it does first permissively has to
// be all that it needs to do it again under the policy that was approved.
type service struct {
	name   string
	needs  []string // commands of the host
	serve  func(*server)
	mount  func(*testing.T) []specs.Mount // beside the host's files; skips where the host has none
	script string                         // with $HOST, and the server's files in /workspace/in
}

// services are run with what the host has of them: hack/deps tests installs all.
var services = []service{
	{name: "postgresql", needs: []string{"psql", "/usr/lib/postgresql/15/bin/postgres"}, serve: servePostgres, script: `
export PGUSER=postgres PGDATABASE=postgres PGHOST=$HOST
test "$(psql -Atc 'select 6 * 7' 'sslmode=disable')" = 42
test "$(psql -Atc 'select ssl from pg_stat_ssl where pid = pg_backend_pid()' 'sslmode=require')" = t
psql -qc 'create temp table t (a int); insert into t select generate_series(1, 100000); copy t to stdout' sslmode=require | wc -l | grep -qx 100000
`},
	{name: "mariadb", needs: []string{"mariadb", "mariadbd", "mariadb-install-db"}, serve: serveMariaDB, script: `
test "$(mariadb --host $HOST --user root --batch --skip-column-names --execute 'select 6 * 7')" = 42
mariadb --host $HOST --user root --batch --database mysql --execute 'select seq from seq_1_to_100000' | wc -l | grep -qx 100001
`},
	{name: "redis", needs: []string{"redis-cli", "redis-server"}, serve: serveRedis, script: `
redis-cli -h $HOST set key value | grep -qx OK
redis-cli -h $HOST get key | grep -qx value
(for i in $(seq 1000); do echo "set key$i $i"; done; echo dbsize) | redis-cli -h $HOST --no-raw | tail -1 | grep -q '(integer) 1001'
redis-cli -h $HOST --tls --cacert /etc/ssl/certs/ca-certificates.crt -p 6380 get key | grep -qx value
`},
	{name: "openssh", needs: []string{"ssh", "scp", "sftp", "/usr/sbin/sshd"}, serve: serveSSH, script: `
options="-i in/key -o UserKnownHostsFile=/workspace/known -o StrictHostKeyChecking=accept-new -o BatchMode=yes"
test "$(ssh $options root@$HOST 'echo $((6 * 7))')" = 42
head -c 3000000 /dev/urandom > sent
scp -q $options sent root@$HOST:$DIR/received
scp -q $options root@$HOST:$DIR/received back
cmp sent back
echo "get $DIR/received again" | sftp -q $options -b - root@$HOST >/dev/null
cmp sent again
`},
	{name: "rsync", needs: []string{"rsync", "ssh", "/usr/sbin/sshd"}, serve: func(s *server) { serveSSH(s); serveRsync(s) }, script: `
mkdir -p tree/sub; head -c 300000 /dev/urandom > tree/sub/file
ssh="ssh -i in/key -o UserKnownHostsFile=/workspace/known -o StrictHostKeyChecking=accept-new -o BatchMode=yes"
rsync -a -e "$ssh" tree/ root@$HOST:$DIR/tree/
rsync -a rsync://$HOST/files/tree/ copy/
diff -r tree copy
`},
	{name: "git-ssh", needs: []string{"git", "ssh", "/usr/sbin/sshd"}, serve: func(s *server) {
		serveSSH(s)
		s.do("git", "init", "-q", "--bare", "-b", "main", "project.git")
	}, script: `
export GIT_SSH_COMMAND="ssh -i /workspace/in/key -o UserKnownHostsFile=/workspace/known -o StrictHostKeyChecking=accept-new -o BatchMode=yes"
git clone -q ssh://root@$HOST$DIR/project.git 2>/dev/null
cd project; git config user.name a; git config user.email a@git.example; git checkout -qB main
date +%N > file; git add file; git commit -qm change; git push -q origin main
git ls-remote origin | grep -q refs/heads/main
`},
	{name: "nodejs", needs: []string{"node"}, script: `
cat > get.mjs <<'NODE'
import http2 from "node:http2"
const body = await (await fetch("https://api.github.example/repos/acme/rocket")).text()
if (!body.includes("rocket")) throw body
const session = http2.connect("https://api.weather.example")
const stream = session.request({":path": "/forecast"})
stream.on("response", headers => { if (headers[":status"] != 200) throw headers; session.close() }).resume().end()
NODE
node get.mjs
`},
	{name: "java", needs: []string{"java", "javac"}, script: `
mkdir -p classes
cat > Get.java <<'JAVA'
import java.net.URI;
import java.net.http.*;
class Get {
  public static void main(String[] args) throws Exception {
    var request = HttpRequest.newBuilder(URI.create("https://api.github.example/repos/acme/rocket")).build();
    var response = HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString());
    if (response.statusCode() != 200 || !response.body().contains("rocket")) throw new Exception(response.body());
  }
}
JAVA
javac -d classes Get.java
java -cp classes Get
`},
	{name: "cargo", needs: []string{"cargo", "cc"}, serve: serveCrates, mount: rustToolchain, script: `
export PATH=/usr/local/rust/bin:$PATH
mkdir -p .cargo src
cat > .cargo/config.toml <<TOML
[registries.site]
index = "sparse+https://$HOST:8443/"
TOML
cat > Cargo.toml <<TOML
[package]
name = "user"
version = "0.1.0"
edition = "2021"
[dependencies]
greeting = { version = "1", registry = "site" }
TOML
echo 'pub fn f() -> &'"'static"' str { greeting::greet() }' > src/lib.rs
cargo build -q
test -s Cargo.lock
`},
	{name: "grpcio", needs: []string{"/usr/bin/python3", "/usr/lib/python3/dist-packages/grpc/__init__.py"}, serve: serveGRPC, script: `
cat > call.py <<'PYTHON'
import grpc, os
target = os.environ["HOST"] + ":50051"
with grpc.secure_channel(target, grpc.ssl_channel_credentials()) as channel:
    echo = channel.unary_unary("/weather.Service/Now", lambda b: b, lambda b: b)
    assert echo(b"hello", timeout=20) == b"hello"
    many = channel.unary_stream("/weather.Service/Forecast", lambda b: b, lambda b: b)
    assert len(list(many(b"hello", timeout=20))) == 100
PYTHON
/usr/bin/python3 call.py
`},
}

func TestRealServices(t *testing.T) {
	for _, s := range services {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			for _, name := range s.needs {
				if !onHost(name) && !exists(name) && !found(name) {
					t.Skipf("the host has no %s (hack/deps tests installs it)", name)
				}
			}
			s.loop(t)
		})
	}
}

// found reports whether the user who runs the tests has a command.
func found(name string) bool {
	_, err := exec.LookPath(name)
	return err == nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return filepath.IsAbs(path) && err == nil
}

// loop does what the client does three times: without a sandbox, so that its failing
// is not the test's own; permissively; and enforcing what was approved.
func (s *service) loop(t *testing.T) {
	w := node.New(t)
	in := newServer(w)
	if s.serve != nil {
		s.serve(in)
	}
	var mounts []specs.Mount
	if s.mount != nil {
		mounts = s.mount(t)
	}
	e := errand{name: s.name, script: s.script}
	run := func(w *node.World, n int, edits ...node.Edit) *node.Container {
		c := hostContainer(w, append(e.edits(n), edits...)...)
		c.Spec.Process.Env = append(c.Spec.Process.Env, "HOST="+serverHost, "DIR="+in.dir)
		c.Spec.Mounts = append(c.Spec.Mounts, mounts...)
		c.Write()
		node.Must(t, os.Mkdir(filepath.Join(c.Rootfs(), "workspace/in"), 0o755))
		if key, err := os.ReadFile(in.path("key")); err == nil {
			node.Must(t, os.WriteFile(filepath.Join(c.Rootfs(), "workspace/in/key"), key, 0o600))
		}
		// To the image the internet's authority is one like others.
		roots := filepath.Join(c.Rootfs(), "etc/ssl/certs/ca-certificates.crt")
		text, err := os.ReadFile(roots)
		node.Must(t, err)
		own, err := os.ReadFile(w.Net.CACert())
		node.Must(t, err)
		node.Must(t, os.WriteFile(roots, append(text, own...), 0o644))
		return c
	}
	first := run(w, 1, node.Permissive)
	if o := first.Run(); o.Status != 0 {
		t.Fatalf("permissive: %s", o)
	}
	first.AwaitEnd()
	diff := w.Operate("approve", s.name, "--all")
	second := run(w, 2)
	if o := second.Run(); o.Status != 0 {
		t.Errorf("enforcing: %s\napproved: %s", o, diff)
	}
	second.AwaitEnd()
	if denied := w.Denied(second); len(denied) > 0 {
		t.Errorf("enforcing: denials: %+v\napproved: %s", denied, diff)
	}
	t.Logf("approved:\n%s", diff)
}

func servePostgres(s *server) {
	const bin = "/usr/lib/postgresql/15/bin/"
	s.give("postgres")
	node.Must(s.t, s.w.Net.WriteCertificate(s.dir, serverHost))
	s.do(as("postgres", bin+"initdb", "--pgdata", s.path("data"), "--auth", "trust", "--no-sync")...)
	s.do("sh", "-c", "echo 'host all all all trust' >> data/pg_hba.conf; chown postgres *.pem; mv *.pem data")
	s.start(5432, as("postgres", bin+"postgres", "-D", s.path("data"), "-c", "listen_addresses=*", "-c", "fsync=off",
		"-c", "unix_socket_directories="+s.dir, "-c", "ssl=on", "-c", "ssl_cert_file=cert.pem", "-c", "ssl_key_file=key.pem")...)
}

func serveMariaDB(s *server) {
	s.give("mysql")
	s.do(as("mysql", "mariadb-install-db", "--no-defaults", "--datadir="+s.path("data"), "--skip-test-db", "--auth-root-authentication-method=normal")...)
	s.start(3306, as("mysql", "mariadbd", "--no-defaults", "--datadir="+s.path("data"), "--skip-grant-tables", "--skip-name-resolve", "--bind-address=*",
		"--skip-networking=0", "--port=3306", "--socket="+s.path("socket"), "--pid-file="+s.path("pid"))...)
}

func serveRedis(s *server) {
	node.Must(s.t, s.w.Net.WriteCertificate(s.dir, serverHost))
	s.start(6379, "redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", "--tls-port", "6380",
		"--tls-cert-file", "cert.pem", "--tls-key-file", "key.pem", "--tls-auth-clients", "no", "--tls-ca-cert-file", s.w.Net.CACert())
}

// serveSSH leaves the key that may log in as root in the file key.
func serveSSH(s *server) {
	for _, name := range []string{"host", "key"} {
		s.do("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", s.path(name))
	}
	config := s.write("sshd_config", strings.Join([]string{
		"HostKey " + s.path("host"), "AuthorizedKeysFile " + s.path("key.pub"), "StrictModes no", "PermitRootLogin yes",
		"UsePAM no", "PidFile none", "Subsystem sftp internal-sftp", "UseDNS no", "MaxStartups 100",
	}, "\n")+"\n", 0o600)
	// Privilege separation wants a directory that the distribution's service makes. What root's shell does at this
	// machine's logins is no part of the test.
	s.start(22, "unshare", "--mount", "sh", "-c", "mount -t tmpfs tmpfs /root && mount -t tmpfs tmpfs /run && mkdir -m 755 /run/sshd && exec /usr/sbin/sshd -D -e -f "+config)
}

func serveRsync(s *server) {
	config := s.write("rsyncd.conf", "[files]\npath = "+s.dir+"\nuse chroot = no\nuid = root\ngid = root\nread only = yes\n", 0o600)
	s.start(873, "rsync", "--daemon", "--no-detach", "--config", config)
}

// serveGRPC is a server of the same library as the client.
func serveGRPC(s *server) {
	node.Must(s.t, s.w.Net.WriteCertificate(s.dir, serverHost))
	program := s.write("serve.py", `
import concurrent.futures, grpc
def read(name): return open(name, "rb").read()
same = lambda b: b
class Handler(grpc.GenericRpcHandler):
    def service(self, details):
        if details.method == "/weather.Service/Now":
            return grpc.unary_unary_rpc_method_handler(lambda request, context: request, same, same)
        return grpc.unary_stream_rpc_method_handler(lambda request, context: iter([request] * 100), same, same)
server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
server.add_generic_rpc_handlers([Handler()])
assert server.add_secure_port("0.0.0.0:50051", grpc.ssl_server_credentials([(read("key.pem"), read("cert.pem"))]))
server.start()
server.wait_for_termination()
`, 0o600)
	s.start(50051, "/usr/bin/python3", program)
}

// rustToolchain is the one that rustup's cargo stands for: it is in the user's home.
func rustToolchain(t *testing.T) []specs.Mount {
	out, err := exec.Command("rustc", "--print", "sysroot").Output()
	if err != nil {
		t.Skipf("the host has no rustc that says where its toolchain is: %v", err)
	}
	return []specs.Mount{{
		Destination: "/usr/local/rust", Type: "bind", Source: strings.TrimSpace(string(out)),
		Options: []string{"bind", "ro"},
	}}
}

// serveCrates is a sparse registry of one crate.
func serveCrates(s *server) {
	s.write("Cargo.toml", "[package]\nname = \"greeting\"\nversion = \"1.0.0\"\nedition = \"2021\"\n", 0o644)
	node.Must(s.t, os.MkdirAll(s.path("greeting-1.0.0/src"), 0o755))
	s.write("greeting-1.0.0/src/lib.rs", "pub fn greet() -> &'static str { \"hello\" }\n", 0o644)
	s.do("sh", "-c", "mv Cargo.toml greeting-1.0.0; tar -czf crate greeting-1.0.0")
	crate, err := os.ReadFile(s.path("crate"))
	node.Must(s.t, err)
	base := fmt.Sprintf("https://%s:8443", serverHost)
	mux := http.NewServeMux()
	text := func(pattern, body string) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, body) })
	}
	text("GET /config.json", `{"dl":"`+base+`/crates"}`)
	text("GET /gr/ee/greeting", fmt.Sprintf(`{"name":"greeting","vers":"1.0.0","deps":[],"cksum":"%x","features":{},"yanked":false}`, sha256.Sum256(crate)))
	text("GET /crates/greeting/1.0.0/download", string(crate))
	s.handle(8443, mux)
}
