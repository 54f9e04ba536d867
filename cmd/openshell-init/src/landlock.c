// SPDX-License-Identifier: Apache-2.0

#include "launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

// From linux/landlock.h, which may be older than the kernel.
#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#define SYS_landlock_add_rule 445
#define SYS_landlock_restrict_self 446
#endif

enum { CREATE_RULESET_VERSION = 1, RULE_PATH_BENEATH = 1 };

struct ruleset_attr {
	uint64_t handled_access_fs;
};

struct path_beneath_attr {
	uint64_t allowed_access;
	int32_t parent_fd;
} __attribute__((packed));

// kernel_abi returns the version of the kernel's Landlock.
static long kernel_abi(long outside)
{
	long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, CREATE_RULESET_VERSION);
	if (abi <= 0)
		fail_call("landlock_create_ruleset", abi < 0 ? errno : 0);
	if (abi < outside)
		fail(0, "the kernel has landlock ABI %ld, but ABI %ld for this container", outside, abi);
	return abi;
}

void ruleset_open(struct kernel_ruleset *r, long abi, uint64_t handled, uint32_t flags)
{
	struct ruleset_attr attr = {.handled_access_fs = handled};
	kernel_abi(abi);
	r->handled = handled;
	r->flags = flags;
	r->fd = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof attr, 0);
	if (r->fd < 0)
		fail_call("landlock_create_ruleset", errno);
	// A profile that says success says 0, which may be open or not; the kernel's is an anonymous file.
	struct stat st;
	if (fstat(r->fd, &st) != 0 || (st.st_mode & S_IFMT) != 0 || (fcntl(r->fd, F_GETFD) & FD_CLOEXEC) == 0)
		fail_call("landlock_create_ruleset", 0);
}

// allow grants rights on what fd refers to: those that are restricted, and that such a file can have. It returns an error
// of the kernel's.
static int allow(struct kernel_ruleset *r, int fd, const struct stat *st, uint64_t rights)
{
	struct path_beneath_attr attr = {.parent_fd = fd};
	rights &= r->handled;
	if (!S_ISDIR(st->st_mode))
		rights &= LANDLOCK_FILE; // the kernel refuses any other right
	attr.allowed_access = rights;
	if (rights == 0) // the kernel calls a rule without rights an error
		return 0;
	if (syscall(SYS_landlock_add_rule, r->fd, RULE_PATH_BENEATH, &attr, 0) == 0)
		return 0;
	if (errno == EPERM || errno == ENOSYS) // nothing that the kernel says of a rule
		fail_call("landlock_add_rule", errno);
	return errno;
}

void ruleset_allow_path(struct kernel_ruleset *r, const char *path, uint64_t rights, bool required)
{
	struct stat st;
	int fd = open(path, O_PATH | O_CLOEXEC);
	if (fd < 0) {
		if (required)
			fail(errno, "landlock compatibility is hard_requirement: open %s", quoted(path));
		return;
	}
	if (fstat(fd, &st) != 0)
		fail(errno, "landlock path %s", quoted(path));
	const char *problem = (rights & LANDLOCK_WRITE) != 0 ? write_problem(fd) : NULL;
	if (problem != NULL)
		fail(0, "landlock path %s: %s", quoted(path), problem);
	int errnum = allow(r, fd, &st, rights);
	if (errnum != 0)
		fail(errnum, "landlock path %s", quoted(path));
	close(fd);
}

void ruleset_allow_workdir(struct kernel_ruleset *r, uint64_t rights)
{
	struct stat st;
	int fd = open(".", O_PATH | O_CLOEXEC);
	if (fd < 0) // it has gone, or the user may not enter it: nor does he by this
		return;
	if (fstat(fd, &st) != 0)
		fail(errno, "landlock working directory");
	if (write_problem(fd) == NULL) {
		int errnum = allow(r, fd, &st, rights);
		if (errnum != 0)
			fail(errnum, "landlock working directory");
	}
	close(fd);
}

// open_rights returns the rights that an open file has shown already.
static uint64_t open_rights(int flags, bool device)
{
	uint64_t rights = device ? LANDLOCK_IOCTL_DEV : 0; // job control and window size of a terminal
	if ((flags & O_PATH) != 0)
		return 0;
	switch (flags & O_ACCMODE) {
	case O_RDONLY:
		return rights | LANDLOCK_READ_FILE;
	case O_WRONLY:
		return rights | LANDLOCK_WRITE_FILE | LANDLOCK_TRUNCATE;
	default:
		return rights | LANDLOCK_READ_FILE | LANDLOCK_WRITE_FILE | LANDLOCK_TRUNCATE;
	}
}

void ruleset_allow_open_files(struct kernel_ruleset *r)
{
	// The workload's own come first: standard streams, then those that the engine keeps open for it. A number of closed
	// ones ends the search.
	enum { GAP = 32 };
	for (int fd = 0, last = STDERR_FILENO; fd <= last + GAP; fd++) {
		struct stat st;
		int descriptor_flags = fcntl(fd, F_GETFD);
		if (descriptor_flags < 0)
			continue;
		if (fd > last)
			last = fd;
		if ((descriptor_flags & FD_CLOEXEC) != 0 || fstat(fd, &st) != 0)
			continue;
		// Pipes and sockets are outside of what Landlock restricts. A directory would be granted with all that is in it.
		if (!S_ISCHR(st.st_mode) && !S_ISREG(st.st_mode))
			continue;
		int flags = fcntl(fd, F_GETFL);
		if (flags < 0)
			fail(errno, "get flags of descriptor %d", fd);
		uint64_t rights = open_rights(flags, S_ISCHR(st.st_mode));
		// The memory of processes is granted to nobody.
		if ((rights & LANDLOCK_WRITE) != 0 && write_problem(fd) != NULL)
			continue;
		int errnum = allow(r, fd, &st, rights);
		// EBADFD: a file of no mounted filesystem, such as a memfd, is not restricted.
		if (errnum != 0 && errnum != EBADFD)
			fail(errnum, "landlock descriptor %d", fd);
	}
}

void ruleset_enforce(struct kernel_ruleset *r)
{
	if (syscall(SYS_landlock_restrict_self, -1, 0) == 0) // the kernel says EBADF
		fail_call("landlock_restrict_self", 0);
	if (syscall(SYS_landlock_restrict_self, r->fd, r->flags) != 0)
		fail_call("landlock_restrict_self", errno);
	close(r->fd);
}
