// SPDX-License-Identifier: Apache-2.0

#include "launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

// terminal returns the standard stream that is this process's terminal, with this process in its foreground, or -1.
static int terminal(void)
{
	for (int fd = 0; fd <= STDERR_FILENO; fd++) {
		pid_t group;
		if (ioctl(fd, TIOCGPGRP, &group) == 0 && group == getpgrp())
			return fd;
	}
	return -1;
}

// execute becomes the program, in a process group of its own: what a terminal sends is sent once. Where that fails, the
// error goes to the pipe.
_Noreturn static void execute(const char *program, char *const argv[], int failed)
{
	sigset_t none;
	setpgid(0, 0);
	// What was ignored here would be ignored by the program.
	for (int s = 1; s < NSIG; s++)
		signal(s, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	execve(program, argv, environ);
	int errnum = errno;
	(void)!write(failed, &errnum, sizeof errnum);
	_exit(EXIT_NOT_EXECUTABLE);
}

// start starts the program and returns its process.
static pid_t start(const char *program, char *const argv[])
{
	int pipe[2], errnum;
	if (pipe2(pipe, O_CLOEXEC) != 0)
		fail(errno, "execute %s", quoted(program));
	pid_t child = fork();
	if (child < 0)
		fail(errno, "execute %s", quoted(program));
	if (child == 0)
		execute(program, argv, pipe[1]);
	close(pipe[1]);
	ssize_t n;
	do
		n = read(pipe[0], &errnum, sizeof errnum);
	while (n < 0 && errno == EINTR);
	close(pipe[0]);
	if (n != 0) {
		waitpid(child, NULL, 0);
		fail_program(program, NULL, n == sizeof errnum ? errnum : EIO);
	}
	return child;
}

// reap takes note of the children that have ended, and reports whether the program is one of them, with its status.
static bool reap(pid_t child, int *status)
{
	for (;;) {
		int ws;
		pid_t pid = waitpid(-1, &ws, WNOHANG | WUNTRACED);
		if (pid < 0 && errno == EINTR)
			continue;
		if (pid <= 0)
			return false;
		if (pid != child)
			continue;
		if (WIFEXITED(ws))
			*status = WEXITSTATUS(ws);
		else if (WIFSIGNALED(ws))
			*status = 128 + WTERMSIG(ws);
		else {
			// There is no shell here that could continue it.
			if (WIFSTOPPED(ws) && WSTOPSIG(ws) != SIGSTOP)
				kill(-child, SIGCONT);
			continue;
		}
		return true;
	}
}

// forward passes a signal on. Those that a terminal sends to every process of a command go to the group, and those that are
// about this process, its pipes and its terminal nowhere.
static void forward(pid_t child, int signum)
{
	switch (signum) {
	case SIGCHLD:
	case SIGURG:
	case SIGPIPE:
	case SIGTTIN:
	case SIGTTOU:
		return;
	case SIGHUP:
	case SIGINT:
	case SIGQUIT:
		kill(-child, signum);
		return;
	default:
		kill(child, signum);
	}
}

// attend waits for whatever is left to the container's first process, and passes signals on. The kernel does not let a
// signal end a first process that does not ask for it; the program is not the first one, and so does what it does
// anywhere. All other processes of the container end with this one.
int attend(const char *program, char *const argv[])
{
	sigset_t all;
	int status = 0;
	// An ignored SIGCHLD would reap the children unseen, and an ignored signal is not seen by sigwaitinfo.
	for (int s = 1; s < NSIG; s++)
		signal(s, SIG_DFL);
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	int tty = terminal();
	pid_t child = start(program, argv);
	setpgid(child, child);
	if (tty >= 0) {
		// It may have been stopped meanwhile, because it was not yet in the foreground.
		ioctl(tty, TIOCSPGRP, &child);
		kill(-child, SIGCONT);
	}
	for (;;) {
		int signum = sigwaitinfo(&all, NULL);
		if (signum == SIGCHLD && reap(child, &status))
			return status;
		if (signum > 0)
			forward(child, signum);
	}
}
