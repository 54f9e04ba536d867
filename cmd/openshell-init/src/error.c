// SPDX-License-Identifier: Apache-2.0

#include "launcher.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char prefix[] = "openshell-init: ";

// A message has at most two paths, in which each byte may take four.
static char message[64 << 10];

static size_t append(size_t length, const char *format, va_list arguments)
{
	int n = vsnprintf(message + length, sizeof message - length - 1, format, arguments);
	if (n < 0)
		return length;
	return length + (size_t)n < sizeof message - 1 ? length + (size_t)n : sizeof message - 2;
}

static size_t append_text(size_t length, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	length = append(length, format, arguments);
	va_end(arguments);
	return length;
}

// append_errno adds an error in words that begin small, as everywhere in openshell.
static size_t append_errno(size_t length, int errnum)
{
	const char *text = strerror(errnum);
	return append_text(length, "%c%s", tolower((unsigned char)text[0]), text + 1);
}

_Noreturn static void finish(size_t length, int code)
{
	message[length++] = '\n';
	for (size_t done = 0; done < length;) {
		ssize_t n = write(STDERR_FILENO, message + done, length - done);
		if (n <= 0)
			break;
		done += (size_t)n;
	}
	_exit(code);
}

_Noreturn void fail(int errnum, const char *format, ...)
{
	va_list arguments;
	size_t length = append_text(0, "%s", prefix);
	va_start(arguments, format);
	length = append(length, format, arguments);
	va_end(arguments);
	if (errnum != 0)
		length = append_errno(append_text(length, ": "), errnum);
	finish(length, EXIT_NOT_EXECUTABLE);
}

_Noreturn void fail_program(const char *program, const char *path_error, int errnum)
{
	bool missing = path_error != NULL || errnum == ENOENT;
	size_t length = append_text(0, "%sexecute %s: %s", prefix, quoted(program), missing ? "not found: " : "");
	if (path_error != NULL)
		length = append_text(length, "%s", path_error);
	else
		length = append_errno(length, errnum);
	finish(length, missing ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE);
}

_Noreturn void fail_call(const char *call, int errnum)
{
	size_t length = append_text(0, "%s%s: ", prefix, call);
	if (errnum == 0)
		length = append_text(length, "it succeeds without effect");
	else
		length = append_errno(length, errnum);
	finish(append_text(length, ": if a seccomp profile of the engine's refuses it, allow landlock_create_ruleset, "
				   "landlock_add_rule, landlock_restrict_self, prctl and seccomp in it"),
	       EXIT_NOT_EXECUTABLE);
}

const char *quoted(const char *text)
{
	static char buffers[4][16 << 10];
	static unsigned next;
	char *buffer = buffers[next++ % 4], *end = buffer + sizeof buffers[0] - sizeof "\\xff\"", *out = buffer;
	*out++ = '"';
	for (; *text != 0 && out < end; text++) {
		unsigned char c = (unsigned char)*text;
		if (c == '"' || c == '\\')
			out += sprintf(out, "\\%c", c);
		else if (c == '\n')
			out += sprintf(out, "\\n");
		else if (c < ' ' || c > '~')
			out += sprintf(out, "\\x%02x", c);
		else
			*out++ = (char)c;
	}
	*out++ = '"';
	*out = 0;
	return buffer;
}
