// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! `simgpu-device`: serves one emulated GPU to one QEMU.

use simgpu_device::args::{self, Command, Options};
use simgpu_device::device::Device;
use simgpu_device::server::{self, Backend};
use simgpu_device::{logger, socket};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

fn main() -> ExitCode {
    let options = match args::parse(std::env::args_os().skip(1)) {
        Ok(Command::Run(options)) => options,
        Ok(Command::Help) => return say(args::HELP),
        Ok(Command::Version) => {
            return say(concat!("simgpu-device ", env!("CARGO_PKG_VERSION")));
        }
        Err(e) => {
            eprintln!("simgpu-device: {e}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("simgpu-device: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Serves until the client disconnects. An error is one sentence.
fn run(options: &Options) -> Result<(), String> {
    logger::init(options.quiet);
    // Before there are threads, so that all of them inherit the mask.
    let signals = Signals::block()?;
    let device = Device::with_link(options.vram, options.link.clone())
        .map_err(|e| format!("Cannot start the device: {e}."))?;
    let (listener, file) = socket::listen(&options.socket)?;
    let path = file.path().to_path_buf();
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || signals.wait_and_exit(&path))
        .map_err(|e| format!("Cannot start a thread: {e}."))?;
    if !options.quiet {
        say(&ready_line(&options.socket, options.vram));
    }
    let result = server::serve(listener, &mut Backend::new(device)).map_err(|e| format!("{e}."));
    if ENDING.load(Ordering::SeqCst) {
        // The other thread has hung up, and ends the process when that is done.
        loop {
            std::thread::park();
        }
    }
    result
}

/// A signal has come that ends the process.
static ENDING: AtomicBool = AtomicBool::new(false);

fn ready_line(path: &Path, vram: u64) -> String {
    format!(
        "simgpu-device: listening on {}, VRAM {} MiB",
        path.display(),
        vram >> 20
    )
}

/// Prints a line. A reader that is gone is no reason to fail.
fn say(line: &str) -> ExitCode {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    ExitCode::SUCCESS
}

/// The signals that end the process: SIGTERM, SIGINT and SIGHUP.
struct Signals(libc::sigset_t);

impl Signals {
    /// Blocks them in this thread and those it will start.
    fn block() -> Result<Self, String> {
        let mut set = std::mem::MaybeUninit::uninit();
        // SAFETY: sigemptyset initialises the set, sigaddset and
        // pthread_sigmask get that set; a null old mask is allowed.
        let (set, rc) = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
                libc::sigaddset(set.as_mut_ptr(), signal);
            }
            let rc = libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
            (set.assume_init(), rc)
        };
        match rc {
            0 => Ok(Self(set)),
            _ => Err("Cannot block signals.".into()),
        }
    }

    /// Waits for one, removes the socket `path`, hangs up, and exits. The other
    /// threads hold nothing that outlives the process.
    fn wait_and_exit(self, path: &PathBuf) {
        let mut signal = 0;
        // SAFETY: both pointers are to live, initialised values.
        if unsafe { libc::sigwait(&self.0, &mut signal) } == 0 {
            ENDING.store(true, Ordering::SeqCst);
            let _ = std::fs::remove_file(path);
            socket::hang_up(path);
            std::process::exit(0);
        }
    }
}
