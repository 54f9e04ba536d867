// SPDX-License-Identifier: Apache-2.0

package try

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"openshell.ai/openshell/internal/abspath"
	"openshell.ai/openshell/internal/config"
)

// secrets are what no command sees of this host unless its policy names it: keys
// and passwords, by their usual places, and what engines and services keep for
// themselves. A last component may be a pattern.
var secrets = []string{
	"/etc/shadow*", "/etc/gshadow*", "/etc/security/opasswd", "/etc/sudoers", "/etc/sudoers.d", "/etc/doas.conf",
	"/etc/ssh/ssh_host_*", "/etc/ssl/private", "/etc/pki/tls/private", "/etc/pki/CA/private", "/etc/pki/private",
	"/etc/*.keytab", "/etc/krb5kdc", "/etc/letsencrypt", "/etc/acme*", "/etc/dehydrated",
	"/etc/NetworkManager/system-connections", "/etc/netplan", "/etc/wpa_supplicant", "/etc/iwd", "/etc/wireguard",
	"/etc/openvpn", "/etc/ipsec.secrets", "/etc/ipsec.d", "/etc/swanctl", "/etc/ppp/*secrets", "/etc/tinc", "/etc/vpnc",
	"/etc/docker", "/etc/containers/auth.json", "/etc/containerd", "/etc/crio", "/etc/kubernetes", "/etc/rancher",
	"/etc/cni", "/etc/nomad.d", "/etc/consul.d", "/etc/vault*", "/etc/etcd", "/etc/ceph", "/etc/munge", "/etc/salt",
	"/etc/chef", "/etc/puppetlabs", "/etc/openshell", "/etc/cryptsetup-keys.d", "/etc/luks*", "/etc/credstore*",
	"/etc/mysql/debian.cnf", "/etc/msmtprc", "/etc/postfix/sasl*", "/etc/exim4/passwd*", "/etc/dovecot/private",
	"/etc/apt/auth.conf*", "/etc/zypp/credentials.d",
	"/etc/samba/*passw*", "/etc/samba/*.tdb", "/etc/cloud", "/etc/boto.cfg", "/etc/polkit-1/rules.d",

	"/var/backups", "/var/spool/cron", "/var/spool/at", "/var/spool/mail", "/var/mail", "/var/crash", "/var/cache/debconf",
	"/var/lib/docker", "/var/lib/containerd", "/var/lib/containers", "/var/lib/crio", "/var/lib/cni", "/var/lib/kubelet",
	"/var/lib/etcd", "/var/lib/rancher", "/var/lib/k0s", "/var/lib/buildkit", "/var/lib/nerdctl", "/var/lib/lxc",
	"/var/lib/lxd", "/var/lib/incus", "/var/lib/libvirt", "/var/lib/machines", "/var/lib/snapd", "/var/snap",
	"/var/lib/NetworkManager", "/var/lib/iwd", "/var/lib/bluetooth", "/var/lib/sss", "/var/lib/private", "/var/lib/cloud",
	"/var/lib/systemd/coredump", "/var/lib/systemd/credential.secret", "/var/lib/samba", "/var/lib/krb5kdc",
	"/swapfile", "/swap.img", "/.snapshots", "/timeshift", "/ostree", "/sysroot",
}

// readable are the trees that the baseline of every policy lets a program read, as
// far as a host keeps files there that not everybody may read.
var readable = []string{"/etc", "/usr/local/etc", "/opt", "/app", "/var/log"}

// temporary are the directories of which a command gets its own.
var temporary = []string{"/tmp", "/var/tmp"}

// account is a line of passwd(5).
type account struct {
	name string
	uid  int
	home string
}

func accounts(passwd string) (list []account, err error) {
	f, err := os.Open(passwd)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Split(lines.Text(), ":")
		if len(fields) < 7 {
			continue
		}
		if uid, err := strconv.Atoi(fields[2]); err == nil {
			list = append(list, account{fields[0], uid, fields[5]})
		}
	}
	return list, lines.Err()
}

// homes are the homes on this host, links resolved.
type homes struct {
	own    []string // root's, and of who has called sudo or the like
	others []string
}

// nobody is the user whom nothing belongs to, by convention.
const nobody = 65534

// findHomes looks for homes in the user database and in /home, where also those are
// whose accounts are kept elsewhere.
func findHomes(all []account, getenv func(string) string) homes {
	var h homes
	add := func(list *[]string, dir string) {
		if real, err := filepath.EvalSymlinks(dir); err == nil && filepath.IsAbs(real) && real != "/" &&
			!slices.Contains(*list, real) {
			*list = append(*list, real)
		}
	}
	add(&h.own, "/root")
	add(&h.own, getenv("HOME"))
	for _, a := range all {
		by := []string{getenv("SUDO_UID"), getenv("PKEXEC_UID")}
		if a.uid == 0 || slices.Contains(by, strconv.Itoa(a.uid)) || a.name == getenv("DOAS_USER") {
			add(&h.own, a.home)
		}
	}
	for _, a := range all {
		// A service's home may be any directory, which others need.
		var st unix.Stat_t
		if a.uid >= 1000 && a.uid != nobody && unix.Stat(a.home, &st) == nil && int(st.Uid) == a.uid {
			add(&h.others, a.home)
		}
	}
	entries, _ := os.ReadDir("/home") // without it there are none
	for _, e := range entries {
		if dir := filepath.Join("/home", e.Name()); e.IsDir() || e.Type()&fs.ModeSymlink != 0 {
			add(&h.others, dir)
		}
	}
	h.others = slices.DeleteFunc(h.others, func(dir string) bool {
		return slices.ContainsFunc(h.own, func(own string) bool { return abspath.Within(own, dir) })
	})
	return h
}

// holds reports whether a directory is a home, or above one, so that whoever has it
// has the keys in it.
func (h homes) holds(dir string) bool {
	return slices.ContainsFunc(slices.Concat(h.own, h.others), func(home string) bool { return abspath.Within(home, dir) })
}

// hiddenOf returns what a command does not see of this host, but for homes and
// temporary directories: openshell's own directories, and secrets, by name and
// by mode. granted are the paths that the command's policy names: what lies there, or on
// the way there, is seen.
func hiddenOf(c *config.Config, granted []string) (hidden []string, err error) {
	for _, dir := range []string{c.StateDir, c.RunDir, config.CredentialsDir, c.PolicyDir} {
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			hidden = append(hidden, real)
		}
	}
	for _, pattern := range secrets {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		for _, path := range found {
			// What a link leads to is the secret.
			real, err := filepath.EvalSymlinks(path)
			if err != nil {
				continue
			}
			if err := hide(&hidden, real, granted); err != nil {
				return nil, err
			}
		}
	}
	for _, tree := range readable {
		real, err := filepath.EvalSymlinks(tree)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = hideByMode(&hidden, real, granted)
		}
		if err != nil {
			return nil, err
		}
	}
	return hidden, nil
}

// hide adds a path, or what is in it but for what is granted.
func hide(hidden *[]string, path string, granted []string) error {
	switch {
	case slices.Contains(*hidden, path), slices.Contains(granted, path):
		return nil
	case !slices.ContainsFunc(granted, func(g string) bool { return abspath.Within(g, path) }):
		*hidden = append(*hidden, path)
		return nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := hide(hidden, filepath.Join(path, e.Name()), granted); err != nil {
			return err
		}
	}
	return nil
}

// hideByMode adds what not everybody may read below a directory. Other file systems
// are not seen anyway.
func hideByMode(hidden *[]string, tree string, granted []string) error {
	var top unix.Stat_t
	if err := unix.Stat(tree, &top); err != nil {
		return &fs.PathError{Op: "stat", Path: tree, Err: err}
	}
	return filepath.WalkDir(tree, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it went meanwhile
		}
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if d.Type()&fs.ModeSymlink != 0 || unix.Lstat(path, &st) != nil {
			return nil
		}
		skip := func() error {
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		need := uint32(0o004)
		if d.IsDir() {
			need = 0o005
		}
		switch {
		case st.Dev != top.Dev, slices.Contains(*hidden, path):
			return skip()
		case st.Mode&need == need:
			return nil
		}
		if err := hide(hidden, path, granted); err != nil {
			return err
		}
		return skip()
	})
}
