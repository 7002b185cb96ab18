// SPDX-License-Identifier: GPL-2.0-only OR MIT
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
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

void control_ask(int control, const char *request, int number)
{
	char line[64];
	int len = snprintf(line, sizeof(line), "%s %d\n", request, number);

	check(write(control, line, len) == len, "writing to the control channel: %s",
	      strerror(errno));
}

void control_ask_once(const char *request, int number)
{
	int control = control_open();

	control_ask(control, request, number);
	close(control);
}

/* Slots have numbers from 1 on, and an address without the function. */
static bool is_in_slot(const char *slot, const char *address)
{
	char path[300], text[64] = "";
	FILE *file;

	snprintf(path, sizeof(path), "/sys/bus/pci/slots/%s/address", slot);
	file = fopen(path, "re");
	if (file && fscanf(file, "%63s", text) != 1)
		text[0] = 0;
	if (file)
		fclose(file);
	return text[0] && !strncmp(address, text, strlen(text));
}

int control_device_number(const char *address)
{
	DIR *dir = opendir("/sys/bus/pci/slots");
	struct dirent *entry;
	int number = -1;

	while (dir && (entry = readdir(dir)))
		if (entry->d_name[0] != '.' && is_in_slot(entry->d_name, address))
			number = atoi(entry->d_name) - 1;
	if (dir)
		closedir(dir);
	return number;
}
