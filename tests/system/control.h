/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * Asking the host for something, by a line on a control channel, a serial port.
 */
#ifndef CONTROL_H
#define CONTROL_H

/* Open the channel; skips the test if there is none. */
int control_open(void);

/* Send a request about a device: "kill-device", say (see scripts/guest/init). */
void control_ask(int control, const char *request, int number);

/* The same, with the channel opened for that alone. */
void control_ask_once(const char *request, int number);

/* The number of a device by its PCI address; -1: it is in no hot-plug slot. */
int control_device_number(const char *address);

#endif /* CONTROL_H */
