// SPDX-License-Identifier: Apache-2.0

#include "launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

// Landlock grants whatever is below a directory, through other mounts too, and /proc/PID/mem is the memory of another
// process: whoever writes there acts as another program.

#define TOO_MUCH "must not be granted for writing: grant it read-only"

static char problem[PATH_MAX + 256];

static const char *say(const char *format, const char *path)
{
	snprintf(problem, sizeof problem, format, path);
	return problem;
}

static bool exists_in(int dir, const char *name)
{
	struct stat st;
	return fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

// has_memory reports whether a file of a proc file system is the memory of a process, or a directory with such files below
// it: the root, a process's or a thread's directory, or that of the threads.
static bool has_memory(int fd, bool directory, const char *path)
{
	const char *slash = strrchr(path, '/'), *base = slash != NULL ? slash + 1 : path;
	if (!directory)
		return strcmp(base, "mem") == 0;
	return exists_in(fd, "self") || exists_in(fd, "mem") || strcmp(base, "task") == 0;
}

// unescape turns what proc_pid_mountinfo(5) writes as octal numbers back, in place.
static void unescape(char *text)
{
	char *out = text;
	for (; *text != 0; text++) {
		unsigned value = 0;
		int digits = 0;
		if (*text == '\\')
			for (; digits < 3 && text[digits + 1] >= '0' && text[digits + 1] <= '7'; digits++)
				value = value * 8 + (unsigned)(text[digits + 1] - '0');
		if (digits == 3) {
			*out++ = (char)value;
			text += 3;
		} else {
			*out++ = *text;
		}
	}
	*out = 0;
}

// has_processes reports whether a root of a proc file system is one with processes' files, and not a part without, such as
// /sys.
static bool has_processes(const char *root)
{
	size_t digits = strspn(root + 1, "0123456789");
	return root[0] == '/' && (root[1 + digits] == 0 || root[1 + digits] == '/') && (digits > 0 || root[1] == 0);
}

// proc_mount returns where a line of mountinfo says that processes' files are mounted, or NULL. It changes the line.
static const char *proc_mount(char *line)
{
	char *fields[5], *rest = line;
	for (int i = 0; i < 5; i++) // id, parent, device, root, mount point
		if ((fields[i] = strsep(&rest, " ")) == NULL)
			return NULL;
	const char *type = rest != NULL ? strstr(rest, " - ") : NULL;
	if (type == NULL || strncmp(type, " - proc ", strlen(" - proc ")) != 0)
		return NULL;
	unescape(fields[3]);
	unescape(fields[4]);
	return has_processes(fields[3]) ? fields[4] : NULL;
}

// proc_mounts returns where processes' files are mounted, each place ended by a zero byte, and an empty one after the last.
// What the buffers cannot hold is an error.
static const char *proc_mounts(void)
{
	static char places[64 << 10], lines[64 << 10];
	static bool known;
	size_t used = 0, filled = 0;
	if (known)
		return places;
	int fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		fail(errno, "read mountinfo");
	for (ssize_t n = 1; n > 0;) {
		n = read(fd, lines + filled, sizeof lines - filled);
		if (n < 0)
			fail(errno, "read mountinfo");
		filled += (size_t)n;
		char *line = lines, *end;
		while ((end = memchr(line, '\n', filled - (size_t)(line - lines))) != NULL) {
			*end = 0;
			const char *place = proc_mount(line);
			size_t size = place != NULL ? strlen(place) + 1 : 0;
			if (size >= sizeof places - used)
				fail(0, "read mountinfo: there are too many mounts of proc");
			if (place != NULL)
				memcpy(places + used, place, size);
			used += size;
			line = end + 1;
		}
		filled -= (size_t)(line - lines);
		memmove(lines, line, filled);
		if (filled == sizeof lines)
			fail(0, "read mountinfo: a line is too long");
	}
	close(fd);
	known = true;
	return places;
}

const char *write_problem(int fd)
{
	struct stat st, root;
	struct statfs fs;
	char link[32], path[PATH_MAX + 1];
	if (fstat(fd, &st) != 0 || stat("/", &root) != 0 || fstatfs(fd, &fs) != 0)
		fail(errno, "find what is granted for writing");
	bool directory = S_ISDIR(st.st_mode), proc = fs.f_type == PROC_SUPER_MAGIC;
	if (st.st_dev == root.st_dev && st.st_ino == root.st_ino)
		return "it is the root directory, which " TOO_MUCH;
	if (!proc && !directory)
		return NULL;
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t length = readlink(link, path, sizeof path - 1);
	if (length < 0)
		fail(errno, "find where it leads: mount proc at /proc");
	path[length] = 0;
	if (proc)
		return has_memory(fd, directory, path) ?
			       say("it leads to the memory of processes at %s, which " TOO_MUCH, quoted(path)) :
			       NULL;
	for (const char *place = proc_mounts(); *place != 0; place += strlen(place) + 1)
		if (strncmp(place, path, (size_t)length) == 0 && place[length] == '/')
			return say("the memory of processes is below it, at %s, so that it " TOO_MUCH, quoted(place));
	return NULL;
}
