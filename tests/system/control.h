/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * Asking the host for something, by a line on a control channel, a serial port.
 */
#ifndef CONTROL_H
#define CONTROL_H

/* Open the channel; skips the test if there is none. */
int control_open(void);

/* Send a request: "kill-device 0", say (see scripts/guest/init). */
void control_ask(int control, const char *request);

#endif /* CONTROL_H */
