// SPDX-License-Identifier: Apache-2.0

package cases

// Tables are what `make cases` shows, in this order.
var Tables = []Table{
	{"clients", "What real clients do", []Row{
		{
			Name:  "signed path",
			Input: "SigV4-signed `POST /model/anthropic.x-v1%3A0/invoke`; S3 `GET /bucket/a//b`, `/bucket/x%2Cy`",
			Right: "the origin gets the request target byte for byte",
		},
		{
			Name:  "path parameters",
			Input: "`GET /x;v=1/y;jsessionid=AB`",
			Right: "arrives as sent",
		},
		{
			Name:  "short name",
			Input: "`search t.example`; `curl http://www/`, `https://www/`",
			Right: "200, decided as `www.t.example`",
		},
		{
			Name:  "client certificate",
			Input: "origin asks for one; `curl --cert`",
			Right: "works in p; the proposal says `tls: skip` and why",
		},
		{
			Name:  "self-signed origin",
			Input: "`curl -k`, `curl --cacert own.pem`",
			Right: "works in p (the client's own judgement), as above",
		},
		{
			Name:  "old TLS",
			Input: "server with RSA key exchange only; certificate with a CN only",
			Right: "as the client alone would do",
		},
		{
			Name:  "upgrade",
			Input: "`Upgrade: tcp` as docker exec sends, then raw bytes both ways",
			Right: "101 and the bytes",
		},
		{
			Name:  "half-close",
			Input: "`printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -N host 80`; `nc -N host 13 </dev/null`",
			Right: "the answer",
		},
		{
			Name:  "names of services",
			Input: "`psql` found by SRV; TXT of a name without a rule",
			Right: "p: works and is proposed; e: works",
		},
		{
			Name:  "destination is a proxy",
			Input: "`curl -x http://proxy:3128 https://site/`, `http://site/`",
			Right: "p: works; decided and proposed as `site`; e: another site through the same proxy is refused",
		},
		{
			Name:  "browser",
			Input: "`chromium --headless --dump-dom https://site/` in p, first try; Firefox",
			Right: "page, methods and paths learned",
		},
		{
			Name:  "gRPC core",
			Input: "Python `grpcio` client with TLS, ALPN `grpc-exp`",
			Right: "works, learned by method path",
		},
		{
			Name:  "Java",
			Input: "`java -version 2>&1`; HttpClient to https; a JVM with its own `-Djavax.net.ssl.trustStore`",
			Right: "no banner; works; first try works in p",
		},
		{
			Name:  "users and packages",
			Input: "`useradd x`, `su - x -c id`, `chpasswd`, `apt-get install ./p.deb` whose postinst adds a user",
			Right: "as under runc",
		},
		{
			Name:  "agents' own sandboxes",
			Input: "a program that installs a seccomp filter by seccomp(2) and one by prctl; Landlock; `pidfd_open`, `pidfd_send_signal`; `fexecve(\"/bin/true\")`",
			Right: "work",
		},
		{
			Name:  "bwrap",
			Input: "`bwrap --unshare-all true`",
			Right: "as under docker's default (refused), with a line in the log that says what refused it; opt-in in the node's configuration",
		},
		{
			Name:  "file capabilities",
			Input: "exec of a file with `cap_net_raw+ep` (ping)",
			Right: "runs, without the capability",
		},
		{
			Name:  "32-bit program",
			Input: "exec of an i386 binary",
			Right: "runs under the same filter, or fails with a log line that says so",
		},
		{
			Name:  "nothing needed",
			Input: "permissive run that is denied nothing, then enforcing",
			Right: "runs",
		},
		{
			Name:  "atomic writes in /etc, /run",
			Input: "`sed -i s/a/b/ /etc/x`, `echo 1 >/run/x.pid`",
			Right: "after an approval that names the directory and its risk: works; `--all` says what it leaves out and why; the denial in e leaves a proposal",
		},
		{
			Name:  "new directory",
			Input: "`mkdir -p ~/.npm/x`, `mkdir /var/lib/myapp`",
			Right: "grants that directory only",
		},
		{
			Name:  "port of the server's choice",
			Input: "passive FTP twice",
			Right: "p works; the proposal says that the port differs by run, instead of a rule that never matches again; e is refused at once with a reason in the log",
		},
		{
			Name:  "enforcing denial on a closed port",
			Input: "`curl --max-time 5 host:otherport`",
			Right: "refused at once",
		},
		{
			Name:  "odd answers",
			Input: "`Content-Length: 3, 3`; `ICY 200 OK`; `OPTIONS *`; header names in any case both ways (`X-jenkins-JNLP`)",
			Right: "as the client alone gets them",
		},
		{
			Name:  "private mirror",
			Input: "the package registry has a private address; permissive",
			Right: "the administrator can declare such ranges as this site's own in the node's configuration; then they are learned like public ones",
		},
		{
			Name:  "site's proxy",
			Input: "a network whose only way out is an HTTP proxy with a password, which alone knows some names; `https://`, SMTP, TLS that is not HTTP",
			Right: "work by the proxy, in p and e; what `no_proxy` names is reached directly; the proxy is no way to metadata and private addresses",
		},
		{
			Name:  "pods",
			Input: "one python image, a rule for `/usr/local/bin/python3` (a link); an image with a private CA of its own",
			Right: "as under podman",
		},
		{
			Name:  "a sandbox that is just ending",
			Input: "short permissive run, then `approve P --all` at once, 50 times, machine busy",
			Right: "exit 0",
		},
		{
			Name:  "typos and order",
			Input: "`openshell aprove x`, `openshell --config F ls`, `openshell version`",
			Right: `"did you mean approve"; works; works`,
		},
		{
			Name:  "damaged run file",
			Input: "an empty `sandbox.json` below the run directory",
			Right: "`ls`, `create`, `delete` work, doctor names it, `--clean` removes it",
		},
		{
			Name:  "supervisor killed at its 14th to 60th step of create",
			Input: "the next create of the same id",
			Right: "works at once, nothing left",
		},
		{
			Name:  "wide API",
			Input: "260 operations of one host seen 10 times each",
			Right: "one proposal of at most 260 rules, complete",
		},
	}},
	{"bundles", "Bundles that the low-level runtime runs", []Row{
		{
			Name:  "user namespaces",
			Input: "`namespaces += user`, id mappings 0→100000 (docker userns-remap, podman `--uidmap`, Kubernetes hostUsers: false)",
			Right: "runs, sealed and confined",
		},
		{
			Name:  "working directory",
			Input: "cwd `/root` mode 0700, user 42; image's WORKDIR with `--user 1000`",
			Right: "runs; the directory is just not granted",
		},
		{
			Name:  "config.json after create",
			Input: "removed or changed between create and start",
			Right: "no effect (a MUST of the runtime specification)",
		},
		{
			Name:  "one rootfs, two containers",
			Input: "second one still runs when the first ends",
			Right: "keeps its CA",
		},
		{
			Name:  "read-only file system",
			Input: "rootfs on squashfs, erofs or a read-only bind",
			Right: "runs",
		},
		{
			Name:  "host network",
			Input: "no network namespace in the bundle (`--net host`), a server on port 8080",
			Right: "reachable on the host's addresses and loopback, as the README says",
		},
		{
			Name:  "what the shim offers",
			Input: "`containerd-shim-openshell-v1 -info` with `runtime: /opt/runc` in the configuration",
			Right: "describes that one",
		},
		{
			Name:  "narrow profiles",
			Input: "allow-list seccomp profile of a static C program; `pids.limit: 1`",
			Right: "the launcher needs no more than the program: one thread, few calls",
		},
		{
			Name:  "two containers, one bundle directory",
			Input: "created at the same time",
			Right: "each its own sandbox",
		},
		{
			Name:  "exec before start",
			Input: "`create`, `exec`",
			Right: "as runc, or one line that says why",
		},
		{
			Name:  "kept descriptors",
			Input: "`--preserve-fds 1`, `cat /proc/self/fd/3`",
			Right: "works",
		},
		{
			Name:  "refusals",
			Input: "no mount namespace, `linux.netDevices`, CA variables",
			Right: "listed in docs/ with reasons",
		},
		{
			Name:  "ended beside",
			Input: "`approve --all` right after a short container ended, both cores busy, 40 times",
			Right: "exit 0",
		},
	}},
	{"faults", "Faults", []Row{
		{
			Name:  "state cannot be written",
			Input: "state directory full, read-only, out of inodes, during a permissive run that reaches 40 hosts",
			Right: "`ls`, `doctor`, the log and the command's end say that evidence is being lost, `approve --all` refuses; what is in memory is written when there is room again",
		},
		{
			Name:  "half an undo",
			Input: "EIO or ENOSPC after the rule was removed, before the proposal was written",
			Right: `consistent: the next command completes or rolls back; never "approved" without its rule`,
		},
		{
			Name:  "kill inside a decision",
			Input: "kill -9 at each step of approve, undo, reject, edit",
			Right: "decision whole or not at all; temporary files swept by the next command",
		},
		{
			Name:  "supervisor killed in a storm",
			Input: "kill -9 while 300 hosts a second are reached",
			Right: "at most the last second is lost, and the run says so",
		},
		{
			Name:  "SIGTERM, SIGINT to a supervisor",
			Input: "while containers run",
			Right: "ignored, or handed over; `exec` goes on working",
		},
		{
			Name:  "SIGSTOP of a supervisor",
			Input: "delete, delete --force, create, approve",
			Right: "bounded (2 s), `--force` forces",
		},
		{
			Name:  "read-only run directory",
			Input: "delete",
			Right: "container deleted, leftover named",
		},
		{
			Name:  "dangling state directory",
			Input: "`state_dir` is a link to nothing",
			Right: "create fails with that line",
		},
		{
			Name:  "others may write a policy",
			Input: "policy file 0666, or owned by nobody",
			Right: "refused",
		},
		{
			Name:  "killed exec",
			Input: "kill -9 of the low-level runtime inside exec",
			Right: "`delete --force` works",
		},
	}},
}
