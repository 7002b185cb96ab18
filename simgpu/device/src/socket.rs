// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The UNIX socket in the file system.

use std::io::{self, Read};
use std::net::Shutdown;
use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A socket's file, removed on drop.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl SocketFile {
    /// The path.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Listens at `path`. A socket that nobody listens on any more is replaced;
/// anything else that is there is left alone. An error is one sentence.
pub fn listen(path: &Path) -> Result<(UnixListener, SocketFile), String> {
    let failed = |e: io::Error| format!("Cannot listen on {}: {e}.", path.display());
    match std::fs::symlink_metadata(path) {
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(format!("{} exists and is not a socket.", path.display()));
        }
        Ok(_) if in_use(path) => {
            return Err(format!("{} is in use by another process.", path.display()));
        }
        Ok(_) => std::fs::remove_file(path).map_err(failed)?,
        Err(_) => {} // Most likely not there; if not, bind says what is wrong.
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    Ok((listener, SocketFile(path.to_path_buf())))
}

/// Whether a process has the socket open. Connecting for real would use up the
/// one connection that another simgpu-device waits for; a datagram socket is
/// refused either way, but with another error if there is nobody.
fn in_use(path: &Path) -> bool {
    let result = UnixDatagram::unbound().and_then(|probe| probe.connect(path));
    !matches!(result, Err(e) if e.kind() == io::ErrorKind::ConnectionRefused)
}

/// Ends the connection that came in through `path`, if there is one, as the end
/// of the process would, but in an order that QEMU survives.
///
/// A process that just ends with unread bytes in its socket gives the client
/// ECONNRESET, and QEMU 11.1 aborts on that. So this says that there is no more
/// to come, and reads until the client has closed its end, or for two seconds.
pub fn hang_up(path: &Path) {
    let Some(mut stream) = connection(path) else {
        return;
    };
    let end = Instant::now() + Duration::from_secs(2);
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.set_read_timeout(Some(Duration::from_millis(100)));
    let mut rest = [0; 4096];
    while Instant::now() < end {
        match stream.read(&mut rest) {
            Ok(0) => break,
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
}

/// The connection that came in through `path`. The server has it, and does not
/// give it out; so it is looked for among the open files.
fn connection(path: &Path) -> Option<UnixStream> {
    let names = std::fs::read_dir("/proc/self/fd").ok()?;
    let numbers: Vec<RawFd> = names
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    numbers.into_iter().find_map(|number| {
        // SAFETY: used only for duplicating it. If it was closed meanwhile that
        // fails, and if it was opened again it is looked at like any other.
        let file = unsafe { BorrowedFd::borrow_raw(number) };
        let stream = UnixStream::from(file.try_clone_to_owned().ok()?);
        let ours = stream.local_addr().ok()?.as_pathname() == Some(path);
        (ours && stream.peer_addr().is_ok()).then_some(stream)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn scratch(name: &str) -> PathBuf {
        // The process number is not enough: in namespaces of their own two runs can have the same.
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        let own = format!("simgpu-{}-{}-{name}", std::process::id(), now.as_nanos());
        let dir = std::env::temp_dir().join(own);
        std::fs::create_dir(&dir).unwrap();
        dir.join("sock")
    }

    #[test]
    fn a_stale_socket_is_replaced() {
        let path = scratch("stale");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let (_listener, file) = listen(&path).unwrap();
        assert_eq!(file.path(), path);
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn a_live_socket_is_left_alone() {
        let path = scratch("live");
        let other = UnixListener::bind(&path).unwrap();
        assert!(listen(&path).unwrap_err().contains("in use"));
        assert!(path.exists());
        other.set_nonblocking(true).unwrap();
        assert!(other.accept().is_err(), "it must not see a connection");
    }

    #[test]
    fn hanging_up_leaves_nothing_unread() {
        let path = scratch("hangup");
        let listener = UnixListener::bind(&path).unwrap();
        let mut client = UnixStream::connect(&path).unwrap();
        let (server, _) = listener.accept().unwrap();
        client.write_all(&[1; 10_000]).unwrap();
        hang_up(&path);
        // What the end of the process does.
        drop(server);
        let error = client.take_error().unwrap();
        assert!(error.is_none(), "the client got {error:?}");
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn hanging_up_without_a_client_is_nothing() {
        let path = scratch("nobody");
        let _listener = UnixListener::bind(&path).unwrap();
        hang_up(&path);
    }

    #[test]
    fn other_files_are_left_alone() {
        let path = scratch("file");
        std::fs::write(&path, "x").unwrap();
        assert!(listen(&path).unwrap_err().contains("not a socket"));
        assert_eq!(std::fs::read(&path).unwrap(), b"x");
        assert!(listen(&path.join("below"))
            .unwrap_err()
            .starts_with("Cannot"));
    }
}
