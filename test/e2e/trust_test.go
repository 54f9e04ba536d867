// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"openshell.ai/openshell/internal/learn"
	"openshell.ai/openshell/test/cases"
	"openshell.ai/openshell/test/fakenet"
	"openshell.ai/openshell/test/node"
)

// trusting is a client that finds the sandbox's CA in its own way.
type trusting struct {
	name    string
	needs   []string // commands
	version string   // a script that prints the client's, for docs/clients.md
	script  string   // gets https://api.weather.example/NAME
	edit    func(c *node.Container)
	path    string // of the request, where it is not /NAME
	made    string // a directory that is made for the container, and goes with it
	row     string // of the table of cases
}

const (
	weather = "https://" + fakenet.WeatherHost + "/"
	// javaGet prints the status of a request by java.net.http, on its first try.
	javaGet = `cat > Get.java <<'JAVA'
import java.net.*; import java.net.http.*;
class Get { public static void main(String[] a) throws Exception {
  var r = HttpClient.newHttpClient().send(HttpRequest.newBuilder(URI.create(a[0])).build(), HttpResponse.BodyHandlers.ofString());
  System.out.println(r.statusCode());
} }
JAVA
`
)

var trustingClients = []trusting{
	{name: "curl", needs: []string{"curl"}, version: "curl -V | head -1", script: "curl -fsS " + weather + "curl"},
	{name: "curl-without-variables", needs: []string{"curl"}, version: "curl -V | head -1",
		script: "env -i PATH=$PATH curl -fsS " + weather + "curl-without-variables"},
	{name: "wget", needs: []string{"wget"}, version: "wget -V | head -1", script: "wget -q -O- " + weather + "wget"},
	{name: "openssl", needs: []string{"openssl"}, version: "openssl version", script: `
printf 'GET /openssl HTTP/1.0\r\nHost: api.weather.example\r\n\r\n' |
openssl s_client -quiet -verify_return_error -verify_hostname api.weather.example -connect api.weather.example:443 -servername api.weather.example`},
	{name: "python-ssl", needs: []string{"python3"}, version: "python3 -V", script: `
python3 -c 'import urllib.request as u; u.urlopen("` + weather + `python-ssl").read()'`},
	{name: "python-requests", needs: []string{"python3", "py:requests"}, version: "python3 -c 'import requests; print(requests.__version__)'", script: `
python3 -c 'import requests; requests.get("` + weather + `python-requests").raise_for_status()'`},
	{name: "python-certifi", needs: []string{"python3", "py:certifi"}, version: "python3 -c 'import certifi; print(certifi.__version__)'", script: `
env -u SSL_CERT_FILE python3 -c '
import certifi, ssl, urllib.request as u
u.urlopen("` + weather + `python-certifi", context=ssl.create_default_context(cafile=certifi.where())).read()'`},
	{name: "certifi-in-a-virtual-environment", needs: []string{"python3"}, version: "python3 -V", script: `
env -u SSL_CERT_FILE /venv/bin/python3 -c '
import ssl, urllib.request as u
file = "/venv/lib/python3.11/site-packages/certifi/cacert.pem"
u.urlopen("` + weather + `certifi-in-a-virtual-environment", context=ssl.create_default_context(cafile=file)).read()'`,
		edit: func(c *node.Container) {
			own, err := os.ReadFile(bundlePath)
			node.Must(c.World.T, err)
			put(c, "venv/lib/python3.11/site-packages/certifi/cacert.pem", string(own))
			link(c, "venv/bin/python3", "/usr/bin/python3")
		}},
	{name: "grpcio", needs: []string{"python3", "py:grpc"}, version: "python3 -c 'import grpc; print(grpc.__version__)'", script: `
python3 -c '
import grpc
channel = grpc.secure_channel("stream.example:443", grpc.ssl_channel_credentials())
call = channel.unary_unary("/svc/Echo", request_serializer=bytes, response_deserializer=bytes)
assert call(b"", timeout=20) is not None'`, path: "/svc/Echo", row: "clients/gRPC core"},
	{name: "node", needs: []string{"node"}, version: "node -v", script: `
node -e 'require("https").get("` + weather + `node", r => process.exit(r.statusCode == 200 ? 0 : 1)).on("error", e => { console.error(e); process.exit(1) })'`},
	{name: "perl", needs: []string{"perl", "pl:IO::Socket::SSL"}, version: "perl -v | sed -n 2p", script: `
perl -MHTTP::Tiny -e '$r = HTTP::Tiny->new(verify_SSL => 1)->get("` + weather + `perl"); die $r->{content} unless $r->{success}'`},
	{name: "perl-lwp", needs: []string{"perl", "pl:LWP::Protocol::https"}, version: "perl -MLWP -e 'print $LWP::VERSION'", script: `
perl -MLWP::UserAgent -e '$r = LWP::UserAgent->new->get("` + weather + `perl-lwp"); die $r->status_line unless $r->is_success'`},
	{name: "ruby", needs: []string{"ruby"}, version: "ruby -v", script: `ruby -ropen-uri -e 'URI.open("` + weather + `ruby").read'`},
	{name: "php", needs: []string{"php"}, version: "php -v | head -1", script: `php -r 'file_get_contents("` + weather + `php") !== false or exit(1);'`},
	{name: "erlang", needs: []string{"erl"}, version: `erl -noshell -eval 'io:format("~s", [erlang:system_info(otp_release)]), halt().'`, script: `
erl -noshell -eval '{ok, _} = application:ensure_all_started(inets), {ok, _} = application:ensure_all_started(ssl),
Options = [{verify, verify_peer}, {cacerts, public_key:cacerts_get()}, {customize_hostname_check, [{match_fun, public_key:pkix_verify_hostname_match_fun(https)}]}],
{ok, {{_, 200, _}, _, _}} = httpc:request(get, {"` + weather + `erlang", []}, [{ssl, Options}], []), halt(0).'`},
	{name: "java", needs: []string{"java", "javac"}, version: "java -version 2>&1 | head -1", script: javaGet + `
case $(java -version 2>&1) in *Picked*) echo a banner; exit 1;; esac
test "$(java Get.java ` + weather + `java)" = 200`, row: "clients/Java"},
	{name: "java-with-its-own-cacerts", needs: []string{"java", "javac", "keytool"}, version: "java -version 2>&1 | head -1", script: javaGet + `
test "$(java Get.java ` + weather + `java-with-its-own-cacerts)" = 200
keytool -list -cacerts -storepass changeit -alias image`,
		edit: ownCacerts},
	{name: "chromium", needs: []string{"chromium"}, version: "chromium --version", script: `
chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --dump-dom ` + weather + `chromium 2>&1 | grep -q weather`,
		made: "etc/chromium/policies", row: "clients/browser"},
	{name: "chromium-with-policies", needs: []string{"chromium"}, version: "chromium --version", script: `
chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --dump-dom ` + weather + `chromium-with-policies 2>&1 | grep -q weather
test "$(cat /etc/chromium/policies/managed/own.json)" = '{"HomepageLocation":"about:blank"}'`,
		edit: func(c *node.Container) {
			put(c, "etc/chromium/policies/managed/own.json", `{"HomepageLocation":"about:blank"}`)
		}},
	{name: "firefox", needs: []string{"firefox-esr"}, version: "firefox-esr --version", script: `
timeout 100 firefox-esr --headless --screenshot $PWD/page.png ` + weather + `firefox; test -s page.png`,
		made: "etc/firefox", row: "clients/browser"},
}

// javaHome is where the host has its JDK.
func javaHome(t *testing.T) string {
	t.Helper()
	java, err := filepath.EvalSymlinks("/usr/bin/java")
	node.Must(t, err)
	return filepath.Dir(filepath.Dir(java))
}

// ownCacerts gives a container's JDK a store of its own, in which its image has put
// a CA.
func ownCacerts(c *node.Container) {
	t := c.World.T
	t.Helper()
	dir, err := filepath.EvalSymlinks(filepath.Join(javaHome(t), "lib/security"))
	node.Must(t, err)
	store := filepath.Join(c.Rootfs(), dir, "cacerts")
	node.Must(t, os.Remove(store))
	out, err := exec.Command("keytool", "-importcert", "-noprompt", "-storetype", "JKS", "-keystore", store, "-storepass", "changeit",
		"-alias", "image", "-file", c.World.Net.CACert()).CombinedOutput()
	if err != nil {
		t.Fatalf("keytool: %v: %s", err, out)
	}
}

// has reports whether the host has what a client needs.
func has(need string) bool {
	if module, ok := strings.CutPrefix(need, "py:"); ok {
		return exec.Command("/usr/bin/python3", "-c", "import "+module).Run() == nil
	}
	if module, ok := strings.CutPrefix(need, "pl:"); ok {
		return exec.Command("/usr/bin/perl", "-M"+module, "-e", "1").Run() == nil
	}
	return onHost(need)
}

// A client works on its first try, with nothing set by its user: what it asks for is
// seen, and so its certificate was accepted.
func TestClientsTrustTheCA(t *testing.T) {
	for _, client := range trustingClients {
		t.Run(client.name, func(t *testing.T) {
			if client.row != "" {
				cases.Show(t, client.row)
			}
			for _, need := range client.needs {
				if !has(need) {
					t.Skipf("the host has no %s", need)
				}
			}
			t.Parallel()
			w := node.New(t)
			c := hostContainer(w, node.Policy("trust"), node.Permissive, node.Args("/bin/bash", "-ec", client.script))
			if client.edit != nil {
				client.edit(c)
			}
			o := c.Run()
			if o.Status != 0 {
				t.Errorf("%s", o)
			}
			c.AwaitEnd()
			path := client.path
			if path == "" {
				path = "/" + client.name
			}
			if !slices.ContainsFunc(w.Proposals("trust"), func(p learn.Proposal) bool {
				return slices.ContainsFunc(node.Allows(p), func(request string) bool { return strings.HasSuffix(request, " "+path) })
			}) {
				t.Errorf("the request was not seen: %q", w.AuditLog(c))
			}
			if _, err := os.Lstat(filepath.Join(c.Rootfs(), client.made)); client.made != "" && !os.IsNotExist(err) {
				t.Errorf("%s is left: %v", client.made, err)
			}
			if out, err := exec.Command("/bin/bash", "-c", "export PATH="+hostPath+"; "+client.version).Output(); err == nil {
				t.Logf("with %s", strings.TrimSpace(string(out)))
			}
		})
	}
}

// A JVM that goes by another store rejects the CA. Permissive mode lets its next
// attempt through unseen.
func TestJavaWithAnotherStore(t *testing.T) {
	t.Parallel()
	for _, need := range []string{"java", "javac"} {
		if !has(need) {
			t.Skipf("the host has no %s", need)
		}
	}
	w := node.New(t)
	c := hostContainer(w, node.Policy("pinned"), node.Permissive, node.Args("/bin/bash", "-ec", javaGet+`
keytool -importcert -noprompt -keystore own.p12 -storepass changeit -alias own -file own.pem 2>/dev/null
get() { java -Djavax.net.ssl.trustStore=own.p12 -Djavax.net.ssl.trustStorePassword=changeit Get.java `+weather+`pinned; }
get || test "$(get)" = 200
`))
	own, err := os.ReadFile(w.Net.CACert())
	node.Must(t, err)
	put(c, "workspace/own.pem", string(own))
	if o := c.Run(); o.Status != 0 {
		t.Errorf("%s", o)
	}
	c.AwaitEnd()
	if p := w.ProposalFor("pinned", fakenet.WeatherHost); p.Rule.Endpoints[0].TLS != "skip" {
		t.Errorf("proposed: %+v", p.Rule.Endpoints)
	}
}
