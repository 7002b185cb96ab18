// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The UNIX socket in the file system.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};

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

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("simgpu-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
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
