// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Log messages to stderr: warnings and errors, or with `--quiet` errors only.

struct Stderr;

impl log::Log for Stderr {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        eprintln!("simgpu-device: {}", record.args());
    }

    fn flush(&self) {}
}

/// Starts logging.
pub fn init(quiet: bool) {
    // Fails only when there is a logger already, which is as good.
    let _ = log::set_logger(&Stderr);
    log::set_max_level(if quiet {
        log::LevelFilter::Error
    } else {
        log::LevelFilter::Warn
    });
}
