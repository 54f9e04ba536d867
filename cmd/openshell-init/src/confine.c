// SPDX-License-Identifier: Apache-2.0

#include "launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

// The confinement is a list of words, each ended by a zero byte (package confine, encode.go):
//
//	openshell-confinement-1
//	observed                             (may be missing)
//	landlock ABI HANDLED FLAGS           or: unrestricted
//	workdir RIGHTS                       (may be missing)
//	path RIGHTS required|optional PATH   (any number)
//	end
//
// ABI is decimal, all other numbers are hexadecimal. Anything else is refused: a file that is not understood in full must
// not decide what a workload may do.

static const char magic[] = "openshell-confinement-1";

// reader reads words of a file.
struct reader {
	int fd;
	size_t at, filled;
	char buffer[4096];
	char word[PATH_MAX + 1];
};

_Noreturn static void malformed(const char *what)
{
	fail(0, "parse %s: %s", CONFINEMENT, what);
}

// next_byte returns a byte, or -1 at the end.
static int next_byte(struct reader *r)
{
	if (r->at == r->filled) {
		ssize_t n = read(r->fd, r->buffer, sizeof r->buffer);
		if (n < 0)
			fail(errno, "read %s", CONFINEMENT);
		r->at = 0;
		r->filled = (size_t)n;
		if (n == 0)
			return -1;
	}
	return (unsigned char)r->buffer[r->at++];
}

static const char *next_word(struct reader *r)
{
	for (size_t length = 0; length < sizeof r->word; length++) {
		int c = next_byte(r);
		if (c < 0)
			malformed("it ends too early");
		r->word[length] = (char)c;
		if (c == 0)
			return r->word;
	}
	malformed("a word is too long");
}

static uint64_t next_number(struct reader *r, int base)
{
	const char *word = next_word(r);
	char *end;
	// strtoull takes blanks and signs too.
	bool digits = word[0] != 0 && strspn(word, "0123456789abcdef") == strlen(word);
	errno = 0;
	uint64_t value = digits ? strtoull(word, &end, base) : 0;
	if (!digits || *end != 0 || errno != 0)
		malformed("a number is not one");
	return value;
}

static bool is(const char *word, const char *other)
{
	return strcmp(word, other) == 0;
}

static int open_in(const char *dir, const char *name)
{
	char path[PATH_MAX];
	if ((size_t)snprintf(path, sizeof path, "%s/%s", dir, name) >= sizeof path)
		fail(ENAMETOOLONG, "open %s", quoted(dir));
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT && is(name, CONFINEMENT))
		fail(errno, "open %s: the container has not been started yet, or its sandbox has ended", quoted(path));
	if (fd < 0)
		fail(errno, "open %s", quoted(path));
	return fd;
}

// await_observer waits until the supervisor says that it observes this container. What it does not observe will be missing
// from its proposals, which is no reason to keep the workload from running. Containers that share the directory have
// mounts of their own of it, and the file is called by the mount.
static void await_observer(const char *dir)
{
	static const time_t patience = 10; // seconds
	static const struct timespec pause = {.tv_nsec = 500000};
	struct timespec now, end;
	struct statx st;
	char path[PATH_MAX];
	if (statx(AT_FDCWD, dir, 0, STATX_MNT_ID, &st) != 0 || (st.stx_mask & STATX_MNT_ID) == 0)
		return;
	if ((size_t)snprintf(path, sizeof path, "%s/observed-%llu", dir, (unsigned long long)st.stx_mnt_id) >= sizeof path)
		return;
	if (clock_gettime(CLOCK_MONOTONIC, &end) != 0)
		return;
	end.tv_sec += patience;
	for (;;) {
		struct stat there;
		if (stat(path, &there) == 0 || clock_gettime(CLOCK_MONOTONIC, &now) != 0 || now.tv_sec >= end.tv_sec)
			return;
		nanosleep(&pause, NULL);
	}
}

// read_paths adds the rules to a ruleset, to the end of the file.
static void read_paths(struct reader *in, struct kernel_ruleset *ruleset, const char *word)
{
	if (is(word, "workdir")) {
		ruleset_allow_workdir(ruleset, next_number(in, 16));
		word = next_word(in);
	}
	for (; is(word, "path"); word = next_word(in)) {
		uint64_t rights = next_number(in, 16);
		bool required = is(next_word(in), "required");
		if (!required && !is(in->word, "optional"))
			malformed("a path is neither required nor optional");
		word = next_word(in);
		if (word[0] != '/')
			malformed("a path is not absolute");
		ruleset_allow_path(ruleset, word, rights, required);
	}
	if (!is(word, "end"))
		malformed("an unknown word");
}

// read_confinement reports whether Landlock is to be applied, with the ruleset for it.
static bool read_confinement(const char *dir, const char *const *programs, struct kernel_ruleset *ruleset)
{
	static struct reader in;
	in.fd = open_in(dir, CONFINEMENT);
	if (!is(next_word(&in), magic))
		malformed("it is of another version of openshell");
	const char *word = next_word(&in);
	if (is(word, "observed")) {
		await_observer(dir);
		word = next_word(&in);
	}
	bool unrestricted = is(word, "unrestricted");
	if (unrestricted) {
		if (!is(next_word(&in), "end"))
			malformed("there are rules, and no landlock");
	} else if (is(word, "landlock")) {
		uint64_t abi = next_number(&in, 10), handled = next_number(&in, 16), flags = next_number(&in, 16);
		if (abi < 1 || abi > INT_MAX || flags > UINT32_MAX)
			malformed("a number is out of range");
		ruleset_open(ruleset, (long)abi, handled, (uint32_t)flags);
		read_paths(&in, ruleset, next_word(&in));
		for (; *programs != NULL; programs++)
			ruleset_allow_path(ruleset, *programs, LANDLOCK_READ, false);
		ruleset_allow_open_files(ruleset);
	} else {
		malformed("neither landlock nor unrestricted");
	}
	if (next_byte(&in) >= 0)
		malformed("data after the end");
	close(in.fd);
	return !unrestricted;
}

// program is a seccomp filter.
struct program {
	struct sock_fprog fprog;
	struct sock_filter filter[BPF_MAXINSNS];
};

// read_program reads a filter, whose instructions the kernel checks. An empty file is none, where there may be none.
static void read_program(const char *dir, const char *name, bool may_be_none, struct program *p)
{
	char *bytes = (char *)p->filter;
	size_t size = 0;
	ssize_t n = 1;
	int fd = open_in(dir, name);
	while (size < sizeof p->filter && n > 0) {
		n = read(fd, bytes + size, sizeof p->filter - size);
		if (n < 0)
			fail(errno, "read %s", name);
		size += (size_t)n;
	}
	char beyond;
	if (read(fd, &beyond, 1) != 0 || (size == 0 && !may_be_none) || size % sizeof p->filter[0] != 0)
		fail(0, "%s: %zu bytes are not from 1 to %d seccomp instructions of %zu bytes", name, size, BPF_MAXINSNS,
		     sizeof p->filter[0]);
	close(fd);
	p->fprog.filter = p->filter;
	p->fprog.len = (unsigned short)(size / sizeof p->filter[0]);
}

// load stacks a filter on those that there are already; the strictest answer of all counts (seccomp(2)).
static void load(const struct program *p, unsigned flags)
{
	static const char what[] = "load the seccomp filter";
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &p->fprog) == 0)
		return;
	if (errno == EPERM || errno == ENOSYS)
		fail_call(what, errno);
	fail(errno, "%s", what);
}

// set_no_new_privs does what Landlock and seccomp demand of a process without CAP_SYS_ADMIN.
static void set_no_new_privs(void)
{
	static const char what[] = "set no_new_privs with prctl";
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		fail_call(what, errno);
	int set = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0);
	if (set != 1)
		fail_call(what, set < 0 ? errno : 0);
}

void confine(const char *dir, const char *const *programs)
{
	static struct program filter, quiet, profile;
	struct kernel_ruleset ruleset;
	read_program(dir, FILTER, false, &filter);
	read_program(dir, QUIET, false, &quiet);
	read_program(dir, PROFILE, true, &profile);
	bool landlock = read_confinement(dir, programs, &ruleset);
	set_no_new_privs();
	if (landlock)
		ruleset_enforce(&ruleset);
	// A profile can give success as well as an error; the kernel says EFAULT.
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, NULL) == 0)
		fail_call("load the seccomp filter", 0);
	load(&quiet, 0);
	load(&filter, SECCOMP_FILTER_FLAG_LOG);
	// Last, for it refuses what the engine's profile did not allow before it was made to allow this program's calls.
	if (profile.fprog.len > 0)
		load(&profile, 0);
}
