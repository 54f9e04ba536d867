// SPDX-License-Identifier: Apache-2.0

#include "launcher.h"

#include <errno.h>
#include <sched.h>
#include <unistd.h>

// A network namespace belongs to the user namespace of the process that makes it, which only a single-threaded process
// can join: so this is not the supervisor's own doing. A new user namespace it makes with this process, and both at once. It
// opens /proc/PID/ns/net when a byte has come, and ends this process by closing its standard input.
int hold_network(int userns)
{
	char byte = 0;
	if (userns >= 0 && setns(userns, CLONE_NEWUSER) != 0)
		fail(errno, "join the user namespace");
	if (userns >= 0 && unshare(CLONE_NEWNET) != 0)
		fail(errno, "make a network namespace");
	if (write(STDOUT_FILENO, &byte, 1) != 1)
		return EXIT_NOT_EXECUTABLE;
	while (read(STDIN_FILENO, &byte, 1) > 0)
		;
	return 0;
}
