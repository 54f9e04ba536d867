// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"path"
	"slices"
	"strings"

	"openshell.ai/openshell/internal/learn/paths"
)

// Directories that are never granted for what is in them: to make one file in /etc must not open
// all of /etc. Accesses there are proposed exactly.
var (
	guardedTrees = []string{"/proc", "/sys", "/dev", "/boot", "/run/secrets", "/var/run/secrets"} // with all below
	guardedDirs  = []string{"/", "/etc", "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/var", "/run",
		"/home",
		"/usr/bin", "/usr/sbin", "/usr/lib", "/usr/lib64", "/usr/local/bin", "/usr/local/sbin"} // themselves only

	// What decides who may do what on a system.
	guardedConfig = []string{"/etc/ssh", "/etc/ssl", "/etc/pam.d", "/etc/sudoers.d", "/etc/cron.d", "/etc/cron.daily",
		"/etc/cron.hourly",
		"/etc/systemd", "/etc/security", "/etc/ld.so.conf.d", "/etc/profile.d", "/etc/init.d", "/etc/pki"}

	// Where programs keep keys and passwords in a home.
	secretNames = []string{".ssh", ".aws", ".kube", ".gnupg", ".docker", ".netrc", ".azure", ".git-credentials",
		".npmrc", ".pypirc",
		".pgpass", ".password-store", ".config/gcloud", ".config/gh", ".config/op",
		".local/share/keyrings", ".mozilla", ".vault-token"}

	// Trees that are read as a whole, and hold nothing secret.
	systemTrees = []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store",
		"/var/lib/dpkg", "/var/lib/apt", "/var/lib/rpm"}

	// Directories whose children are trees of their own.
	sharedDirs = []string{"/home", "/var", "/mnt", "/media", "/run", "/srv", "/etc", "/opt", "/usr"}
)

// zoneOf is the guarded directory that a path is in, or is, and in which nothing is granted but what
// was accessed itself. It is empty for other paths.
func zoneOf(p string) string {
	if secret := secretOf(p); secret != "" {
		return secret
	}
	for _, dir := range guardedTrees {
		if within(dir, p) {
			return dir
		}
	}
	for _, dir := range guardedConfig {
		if within(dir, p) {
			return dir
		}
	}
	return ""
}

// riskOf says what is at stake in a guarded directory.
func riskOf(dir string) string {
	in := func(trees ...string) bool {
		return slices.ContainsFunc(trees, func(tree string) bool { return within(tree, dir) })
	}
	switch {
	case secretOf(dir) != "":
		return "keys and passwords are kept there"
	case in("/proc", "/sys", "/dev"):
		return "what is written there changes the kernel's state, or reaches devices"
	case in("/run/secrets", "/var/run/secrets"):
		return "the engine's secrets are there"
	case in("/etc"):
		return "accounts, and the configuration of every program, can be replaced there"
	case in("/boot", "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"):
		return "programs and libraries can be replaced there"
	case in("/run"):
		return "other services have their sockets and state there"
	case in("/home"):
		return "the homes of all users are there"
	}
	return "the state, the logs and the queues of all services are there"
}

// secretOf is the secret folder or file of a home that a path is in, or is.
func secretOf(p string) string {
	home := homeOf(p)
	if home == "" {
		return ""
	}
	for _, name := range secretNames {
		if dir := path.Join(home, name); within(dir, p) {
			return dir
		}
	}
	return ""
}

// homeOf is the home directory that a path is in, or is.
func homeOf(p string) string {
	if within("/root", p) {
		return "/root"
	}
	if rest, ok := strings.CutPrefix(p, "/home/"); ok {
		user, _, _ := strings.Cut(rest, "/")
		return "/home/" + user
	}
	return ""
}

// target is what the request is evidence for.
func (n accessRequest) target() target { return target{tree: n.tree(), sensitive: n.sensitive} }

// tree is what the proposals of paths are grouped by. What is granted by name in a guarded
// directory is a group of its own.
func (n accessRequest) tree() string {
	p := n.path
	if n.sensitive {
		return p
	}
	if zone := zoneOf(p); zone != "" {
		return zone
	}
	if dir := path.Dir(p); n.write && n.reason == "" && guarded(dir) {
		return dir
	}
	names := strings.SplitN(p[1:], "/", 3)
	first := "/" + names[0]
	if len(names) > 1 && slices.Contains(sharedDirs, first) {
		return first + "/" + names[1]
	}
	return first
}

func depth(p string) int {
	if p == "/" {
		return 0
	}
	return strings.Count(p, "/")
}

// varies reports whether a name is another one the next time: an identifier, or one that is made
// up for a temporary file.
func varies(name string) bool {
	if identifier(name) {
		return true
	}
	lower := strings.ToLower(name)
	for _, suffix := range []string{".tmp", ".temp", ".swp", ".swx", ".part", ".partial", "~"} {
		if strings.HasSuffix(lower, suffix) {
			return true
		}
	}
	if strings.HasPrefix(name, ".#") {
		return true
	}
	// mkstemp and the like: name.tmpXXXXXX, tmp.XXXXXXXX, tmpabcd1234, file.XXXXXX.tmp, name-<id>
	for part := range strings.FieldsFuncSeq(name, func(r rune) bool { return r == '.' || r == '-' || r == '_' }) {
		if (part == "tmp" || part == "temp") && part != name || strings.HasPrefix(part, "tmp") && len(part) >= 9 {
			return true
		}
		if identifier(part) {
			return true
		}
	}
	return isUUIDPart(name)
}

// identifier reports whether a name, or a part of one, is an identifier by its form.
func identifier(name string) bool {
	switch paths.TypeOf(name) {
	case paths.UUID, paths.Token, paths.Hex:
		return true
	case paths.Integer:
		return len(name) >= 6
	}
	return false
}

// isUUIDPart recognises a UUID with something before or after it.
func isUUIDPart(name string) bool {
	const length = 36
	for i := 0; i+length <= len(name); i++ {
		if paths.TypeOf(name[i:i+length]) == paths.UUID {
			return true
		}
	}
	return false
}
