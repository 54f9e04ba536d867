// SPDX-License-Identifier: Apache-2.0

#include "launcher.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef VERSION
#define VERSION "devel"
#endif

extern char **environ;

// executable_error returns why a file is no program, or 0.
static int executable_error(const char *path)
{
	struct stat st;
	if (stat(path, &st) != 0)
		return errno;
	if (S_ISDIR(st.st_mode))
		return EISDIR;
#ifdef SYS_faccessat2
	if (syscall(SYS_faccessat2, AT_FDCWD, path, X_OK, AT_EACCESS) == 0)
		return 0;
	if (errno != ENOSYS && errno != EPERM)
		return errno;
#endif
	return (st.st_mode & (S_IXUSR | S_IXGRP | S_IXOTH)) != 0 ? 0 : EACCES;
}

// find_program returns where a program is, as low-level runtimes find it: a name with a slash is a path, and any other is
// looked for in PATH. One that is found in the working directory through PATH is not taken.
static const char *find_program(const char *name)
{
	static char path[PATH_MAX];
	if (strchr(name, '/') != NULL) {
		int errnum = executable_error(name);
		if (errnum != 0)
			fail_program(name, NULL, errnum);
		return name;
	}
	const char *dir = *name != 0 ? getenv("PATH") : NULL;
	if (dir != NULL && *dir == 0)
		dir = NULL;
	while (dir != NULL) {
		const char *colon = strchrnul(dir, ':');
		size_t length = (size_t)(colon - dir), rest = strlen(name) + 2;
		if (length < sizeof path && rest <= sizeof path - length) {
			memcpy(path, dir, length);
			path[length] = '/';
			memcpy(path + length + 1, name, rest - 1);
			bool relative = length == 0 || dir[0] != '/';
			// An empty directory is the working directory.
			const char *candidate = length == 0 ? path + 1 : path;
			if (executable_error(candidate) == 0) {
				if (relative)
					fail_program(name, "it is in the working directory: give its path", 0);
				return path;
			}
		}
		dir = *colon == 0 ? NULL : colon + 1;
	}
	fail_program(name, "executable file not found in $PATH", 0);
}

// is_foreign reports whether a program is a 32-bit one, by its header (elf(5)): the filters kill whoever makes a system call
// by that interface. What cannot be read is for the kernel to judge.
static bool is_foreign(const char *program)
{
	unsigned char ident[EI_NIDENT];
	int fd = open(program, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return false;
	ssize_t n = read(fd, ident, sizeof ident);
	close(fd);
	return n == sizeof ident && memcmp(ident, ELFMAG, SELFMAG) == 0 && ident[EI_CLASS] == ELFCLASS32 &&
	       sizeof(long) == 8;
}

// run executes a program, confined.
static int run(const char *dir, bool stay, char *argv[])
{
	// Before the restrictions, which may hide directories of PATH, so that the workload's own program is found where the
	// low-level runtime would have found it.
	const char *program = find_program(argv[0]);
	if (is_foreign(program))
		fail(0, "execute %s: it is a 32-bit program, whose system calls are refused: use a 64-bit one", quoted(program));
	const char *programs[] = {program, stay ? SELF : NULL, NULL};
	confine(dir, programs);
	if (!stay) {
		execve(program, argv, environ);
		fail_program(program, NULL, errno);
	}
	// Executed anew, it is told apart from a launcher that is not confined yet.
	size_t count = 0;
	while (argv[count] != NULL)
		count++;
	char **again = calloc(count + 5, sizeof *again);
	if (again == NULL)
		fail(ENOMEM, "execute %s", quoted(program));
	char *first[] = {"openshell-init", ATTEND_FLAG, (char *)program, "--"};
	memcpy(again, first, sizeof first);
	memcpy(again + 4, argv, count * sizeof *again);
	execve(SELF, again, environ);
	fail_program(SELF, NULL, errno);
}

static int network(char *argv[])
{
	if (*argv == NULL)
		return hold_network(-1);
	int fd = open(*argv, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		fail(errno, "open %s", quoted(*argv));
	return hold_network(fd);
}

int main(int argc, char *argv[])
{
	static const char usage[] = "usage: openshell-init [--stay] [--dir DIR] -- PROGRAM [ARGUMENT...]";
	const char *dir = DEFAULT_DIR;
	bool stay = false;

	if (argc == 0)
		fail(0, "%s", usage);
	argv++;
	if (argc == 2 && strcmp(argv[0], "--version") == 0) {
		static const char text[] = "openshell-init version " VERSION "\n";
		return write(STDOUT_FILENO, text, sizeof text - 1) == sizeof text - 1 ? 0 : 1;
	}
	if (argc <= 3 && argc > 1 && strcmp(argv[0], "--network") == 0)
		return network(argv + 1);
	if (argc > 4 && strcmp(argv[0], ATTEND_FLAG) == 0 && strcmp(argv[2], "--") == 0)
		return attend(argv[1], argv + 3);
	if (argv[0] != NULL && strcmp(argv[0], "--stay") == 0) {
		stay = true;
		argv++;
	}
	if (argv[0] != NULL && strcmp(argv[0], "--dir") == 0 && argv[1] != NULL) {
		dir = argv[1];
		argv += 2;
	}
	// What follows is the workload's, and is handed on byte for byte.
	if (argv[0] == NULL || strcmp(argv[0], "--") != 0 || argv[1] == NULL)
		fail(0, "%s", usage);
	return run(dir, stay, argv + 1);
}
