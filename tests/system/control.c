// SPDX-License-Identifier: GPL-2.0-only OR MIT
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "control.h"
#include "ktap.h"

int control_open(void)
{
	const char *path = getenv("SIMGPU_CONTROL");
	struct termios termios;
	int control;

	if (!path)
		path = "/dev/ttyS1";
	control = open(path, O_WRONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	if (control < 0)
		skip("there is no control channel to the host: %s: %s (SIMGPU_CONTROL)", path,
		     strerror(errno));
	/* Not every channel is a terminal. */
	if (!tcgetattr(control, &termios)) {
		cfmakeraw(&termios);
		termios.c_cflag |= CLOCAL;
		tcsetattr(control, TCSANOW, &termios);
	} else if (errno == EIO) {
		skip("the control channel %s is connected to nothing", path);
	}
	return control;
}

void control_ask(int control, const char *request)
{
	char line[64];
	int len = snprintf(line, sizeof(line), "%s\n", request);

	check(write(control, line, len) == len, "writing to the control channel: %s",
	      strerror(errno));
}
