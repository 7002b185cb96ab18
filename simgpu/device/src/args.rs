// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The command line.

use crate::peer::{Link, PEERS};
use std::ffi::OsString;
use std::path::PathBuf;

/// What `--help` prints.
pub const HELP: &str = "\
An emulated GPU: serves one PCI device to QEMU's vfio-user-pci.

Usage: simgpu-device --socket PATH [--vram SIZE] [--link DIR --number N] [--quiet]

  --socket PATH  UNIX socket to listen on; a stale one is replaced
  --vram SIZE    device memory, such as 256M or 2G; whole MiB from 1M to 64G
                 (default 256M); takes no memory until it is used
  --link DIR     reach the VRAM of other devices that are started with the same
                 folder, and let them reach this one's
  --number N     this device's number on the link, 0 to 15; each has its own
  --quiet        print errors only
  --help         print this and exit
  --version      print the version and exit

Exits with 0 when QEMU disconnects or on SIGTERM, 1 on a failure, 2 on bad
arguments.";

const MIB: u64 = 1 << 20;
const MAX_VRAM: u64 = 64 << 30;

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    Run(Options),
    Help,
    Version,
}

/// How to run.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    pub socket: PathBuf,
    /// Bytes, a multiple of 1 MiB.
    pub vram: u64,
    pub link: Option<Link>,
    pub quiet: bool,
}

/// Reads the arguments (without the program's name). An error is one sentence
/// for the user.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, String> {
    let mut args = args.into_iter();
    let (mut socket, mut vram, mut quiet) = (None, 256 * MIB, false);
    let (mut folder, mut number) = (None, None);
    while let Some(arg) = args.next() {
        // Only a path may be other than UTF-8, and only as a word of its own.
        let text = arg.to_string_lossy();
        let (name, inline) = match text.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, Some(OsString::from(value))),
            _ => (&*text, None),
        };
        let has_inline = inline.is_some();
        let mut value = |what: &str| {
            inline
                .clone()
                .or_else(|| args.next())
                .filter(|v| !v.is_empty())
                .ok_or(format!("{name} needs {what}."))
        };
        match name {
            "--socket" => socket = Some(PathBuf::from(value("a path")?)),
            "--vram" => vram = size(&value("a size, such as 256M")?.to_string_lossy())?,
            "--link" => folder = Some(PathBuf::from(value("a folder")?)),
            "--number" => number = Some(peer_number(&value("a number")?.to_string_lossy())?),
            "--quiet" | "--help" | "-h" | "--version" | "-V" if has_inline => {
                return Err(format!("{name} takes no value."));
            }
            "--quiet" => quiet = true,
            "--help" | "-h" => return Ok(Command::Help),
            "--version" | "-V" => return Ok(Command::Version),
            _ => return Err(format!("Unknown argument \"{text}\"; see --help.")),
        }
    }
    let link = match (folder, number) {
        (Some(folder), Some(number)) => Some(Link { folder, number }),
        (None, None) => None,
        _ => return Err("--link and --number go together; see --help.".into()),
    };
    Ok(Command::Run(Options {
        socket: socket.ok_or("--socket PATH is missing; see --help.")?,
        vram,
        link,
        quiet,
    }))
}

fn peer_number(text: &str) -> Result<u32, String> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    match text.parse() {
        Ok(number) if digits && number < PEERS => Ok(number),
        _ => Err(format!(
            "A number on the link is 0 to {}, not {text}.",
            PEERS - 1
        )),
    }
}

/// Bytes of a size such as `4096`, `64K`, `256M`, `2G`.
fn size(text: &str) -> Result<u64, String> {
    let bad = || format!("\"{text}\" is not a size: expected a number and K, M or G, as in 256M.");
    let (digits, unit) = match text.to_ascii_uppercase().chars().last() {
        Some('K') => (&text[..text.len() - 1], 1 << 10),
        Some('M') => (&text[..text.len() - 1], MIB),
        Some('G') => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad());
    }
    let number: u64 = digits.parse().map_err(|_| bad())?;
    match number.checked_mul(unit) {
        Some(bytes) if bytes % MIB == 0 && (MIB..=MAX_VRAM).contains(&bytes) => Ok(bytes),
        _ => Err(format!(
            "The VRAM size must be whole MiB, from 1M to 64G, not {text}."
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(line: &str) -> Result<Command, String> {
        parse(line.split_whitespace().map(OsString::from))
    }

    fn options(socket: &str, vram: u64, quiet: bool) -> Result<Command, String> {
        Ok(Command::Run(Options {
            socket: socket.into(),
            vram,
            link: None,
            quiet,
        }))
    }

    #[test]
    fn a_link() {
        let Ok(Command::Run(options)) = run("--socket a --number 15 --link=/x") else {
            panic!("not accepted");
        };
        let folder = "/x".into();
        assert_eq!(options.link, Some(Link { folder, number: 15 }));
    }

    #[test]
    fn good_lines() {
        assert_eq!(run("--socket /a"), options("/a", 256 * MIB, false));
        assert_eq!(
            run("--quiet --vram 2G --socket=a=b"),
            options("a=b", 2048 * MIB, true)
        );
        assert_eq!(run("--socket a --vram=1048576"), options("a", MIB, false));
        assert_eq!(run("--socket a --vram 2048k"), options("a", 2 * MIB, false));
        assert_eq!(run("--socket a --vram 64G"), options("a", MAX_VRAM, false));
        assert_eq!(run("--help --nonsense"), Ok(Command::Help));
        assert_eq!(run("--version"), Ok(Command::Version));
    }

    #[test]
    fn bad_lines_say_one_sentence() {
        for line in [
            "",
            "--vram 1M",
            "--socket",
            "--socket=",
            "--socket a --vram",
            "--socket a --vram M",
            "--socket a --vram 1.5G",
            "--socket a --vram +1M",
            "--socket a --vram 12X",
            "--socket a --vram 0",
            "--socket a --vram 4096",
            "--socket a --vram 65G",
            "--socket a --vram 99999999999999999999G",
            "--socket a --vram 99999999999G",
            "--socket a --vram 1\u{20ac}",
            "--socket a --quiet=1",
            "--socket a b",
            "--socket a --link x",
            "--socket a --number 1",
            "--socket a --link x --number",
            "--socket a --link x --number 16",
            "--socket a --link x --number -1",
            "--socket a --link x --number +1",
            "--frobnicate",
        ] {
            let e = run(line).expect_err(line);
            assert!(e.ends_with('.') && !e.contains('\n'), "{line}: {e}");
        }
    }
}
