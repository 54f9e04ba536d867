// SPDX-License-Identifier: Apache-2.0

// openshell-init confines itself and becomes the workload. The runtime puts it, with its files, before the container's own
// program:
//
//	openshell-init [--stay] [--dir DIR] -- PROGRAM [ARGUMENT...]
//	openshell-init --network [USERNS]
//	openshell-init --version
//
// It is a single-threaded static C program, because it runs inside the workload's bounds: one process, and an engine's
// seccomp profile that may allow little more than the program calls. It decides nothing: package confine has written
// down outside of the container what is to be applied, and this reads it, strictly. What it calls beyond what every
// program does is listed in the runtime package (launcherCalls): a new call here has to be added there.
//
// It restricts and never grants: a workload that runs it confines itself once more. It exits with 127 when the program is
// not found and with 126 for any other failure; it never executes the program without its confinement.

#ifndef OPENSHELL_LAUNCHER_H
#define OPENSHELL_LAUNCHER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// The exit codes that shells and container engines use for a command that cannot be executed, and for one that is not found.
enum { EXIT_NOT_EXECUTABLE = 126, EXIT_NOT_FOUND = 127 };

// The files that package confine writes, in one directory.
#define DEFAULT_DIR "/dev/.openshell"
#define CONFINEMENT "confinement"
#define FILTER "filter.bpf" // whose refusals the kernel logs
#define QUIET "quiet.bpf"
#define PROFILE "profile.bpf"

// SELF is this program, wherever it is mounted.
#define SELF "/proc/self/exe"

// ATTEND_FLAG is the first argument of this program once it is confined and stays a container's first process.
#define ATTEND_FLAG "--attend"

// error.c: messages are one line on standard error.

// fail says why and exits with EXIT_NOT_EXECUTABLE. errnum is added in words unless it is 0.
_Noreturn void fail(int errnum, const char *format, ...) __attribute__((format(printf, 2, 3)));

// fail_program is fail for a program that cannot be executed; it exits with EXIT_NOT_FOUND where it does not exist.
_Noreturn void fail_program(const char *program, const char *path_error, int errnum);

// fail_call is fail for a system call that something other than the kernel's own abilities keeps from working. An
// errnum of 0 stands for a success without effect.
_Noreturn void fail_call(const char *call, int errnum);

// quoted returns text in quotes with everything escaped that is not plain ASCII. It is overwritten by the fourth next call.
const char *quoted(const char *text);

// confine.c

// confine applies the files of a directory to this process, for good: Landlock, no_new_privs, the seccomp filters.
// programs, a list that ends with NULL, are the files that it is going to execute: Landlock allows them wherever they are,
// for whoever started the container chose them. It returns only if all of it is in force.
void confine(const char *dir, const char *const *programs);

// landlock.c

// Access rights (landlock(7)); the numbers are those of linux/landlock.h, which may be older than the kernel.
#define LANDLOCK_EXECUTE (UINT64_C(1) << 0)
#define LANDLOCK_WRITE_FILE (UINT64_C(1) << 1)
#define LANDLOCK_READ_FILE (UINT64_C(1) << 2)
#define LANDLOCK_READ_DIR (UINT64_C(1) << 3)
#define LANDLOCK_TRUNCATE (UINT64_C(1) << 14)
#define LANDLOCK_IOCTL_DEV (UINT64_C(1) << 15)
#define LANDLOCK_RESOLVE_UNIX (UINT64_C(1) << 16)

#define LANDLOCK_READ (LANDLOCK_EXECUTE | LANDLOCK_READ_FILE | LANDLOCK_READ_DIR)
// What is not reading is writing.
#define LANDLOCK_WRITE (~LANDLOCK_READ)
// The rights that something other than a directory can have.
#define LANDLOCK_FILE                                                                                                  \
	(LANDLOCK_EXECUTE | LANDLOCK_READ_FILE | LANDLOCK_WRITE_FILE | LANDLOCK_TRUNCATE | LANDLOCK_IOCTL_DEV |          \
	 LANDLOCK_RESOLVE_UNIX)

// kernel_ruleset is a Landlock ruleset under construction.
struct kernel_ruleset {
	int fd;
	uint64_t handled; // rights that are restricted
	uint32_t flags;	  // for landlock_restrict_self
};

// ruleset_open begins a ruleset. abi is the version that the kernel has outside of the container: what has less inside was
// kept from it by something else.
void ruleset_open(struct kernel_ruleset *r, long abi, uint64_t handled, uint32_t flags);

// ruleset_allow_path grants rights on a path and what is below. One that cannot be opened is an error when it is required,
// and is left out otherwise, which grants less and not more.
void ruleset_allow_path(struct kernel_ruleset *r, const char *path, uint64_t rights, bool required);

// ruleset_allow_workdir grants rights on the working directory, unless that would grant everything, or processes' memory, or
// cannot be done: it is the image's choice.
void ruleset_allow_workdir(struct kernel_ruleset *r, uint64_t rights);

// ruleset_allow_open_files lets the workload open the files anew that it is given open, as through /dev/stdout.
void ruleset_allow_open_files(struct kernel_ruleset *r);

// ruleset_enforce confines this process; no_new_privs must be set.
void ruleset_enforce(struct kernel_ruleset *r);

// memory.c

// write_problem returns why write access to what fd refers to, and whatever is below, must not be granted: because it
// would be access to other processes' memory, or to all files. It returns NULL where there is no reason.
const char *write_problem(int fd);

// attend.c

// attend runs a program as a container's first process and returns its status, as shells do.
int attend(const char *program, char *const argv[]);

// network.c

// hold_network keeps a network namespace until standard input ends: this process's own, or where userns is not -1, a new
// one that belongs to the user namespace of that descriptor. It returns the exit code.
int hold_network(int userns);

#endif
