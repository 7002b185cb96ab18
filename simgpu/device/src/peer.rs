// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The link to other devices: each reaches the VRAM of the others.
//!
//! Devices on one link have a folder in common. Each puts a symbolic link
//! there, named after its number, that leads to its VRAM's file among the open
//! files of its process, and holds an exclusive lock (flock) on the file. Who
//! opens it maps the same memory. The lock goes when the process dies, however it
//! dies, and that is how the others know. What they have mapped stays mapped, so
//! nothing crashes; but it is not used any more.

use crate::descriptor::Status;
use crate::span::Span;
use crate::vram::Vram;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

/// Numbers on the link are 0 .. PEERS.
pub const PEERS: u32 = 16;

/// What PEER_SELF reads as without a link.
const NO_LINK: u32 = 0xffff;

/// Where a device stands on the link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The folder that all have in common.
    pub folder: PathBuf,
    /// This device's number, below [`PEERS`].
    pub number: u32,
}

impl Link {
    fn path(&self, number: u32) -> PathBuf {
        self.folder.join(format!("vram{number}"))
    }
}

/// VRAM of another device.
#[derive(Debug)]
struct Peer {
    vram: Vram,
    /// Its process was seen to have died.
    dead: AtomicBool,
}

impl Peer {
    fn connect(path: &Path) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open(path)?;
        let peer = Self {
            vram: Vram::open(file)?,
            dead: AtomicBool::new(false),
        };
        match peer.is_alive() {
            true => Ok(peer),
            false => Err(io::ErrorKind::ConnectionRefused.into()),
        }
    }

    /// Whether its process lives: as long as the lock can't be had.
    fn is_alive(&self) -> bool {
        if self.dead.load(Ordering::Relaxed) {
            return false;
        }
        let dead = lock(self.vram.file(), libc::LOCK_SH);
        if dead {
            self.dead.store(true, Ordering::Relaxed);
            // Should this be wrong, nobody is to be kept from the lock.
            lock(self.vram.file(), libc::LOCK_UN);
        }
        !dead
    }
}

/// The other devices that are connected.
#[derive(Debug, Default)]
pub struct Peers {
    link: Option<Link>,
    table: RwLock<[Option<Peer>; PEERS as usize]>,
}

impl Peers {
    /// Makes `vram` known on the link. Without a link there are no peers.
    pub fn new(link: Option<Link>, vram: &Vram) -> io::Result<Self> {
        if let Some(link) = &link {
            publish(link, vram)?;
        }
        Ok(Self {
            link,
            table: Default::default(),
        })
    }

    /// PEER_SELF.
    pub fn own_number(&self) -> u32 {
        self.link.as_ref().map_or(NO_LINK, |link| link.number)
    }

    /// PEERS: who is connected and alive.
    pub fn present(&self) -> u32 {
        let peers = self.lock();
        let alive = |n: &u32| peers.alive(*n).is_some();
        (0..PEERS).filter(alive).fold(0, |mask, n| mask | (1 << n))
    }

    /// Connects the peers of `mask` that are there and not connected.
    pub fn connect(&self, mask: u32) {
        let Some(link) = &self.link else {
            return;
        };
        let missing = mask & !self.present() & !(1 << link.number);
        for number in (0..PEERS).filter(|n| missing & (1 << n) != 0) {
            match Peer::connect(&link.path(number)) {
                Ok(peer) => {
                    let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
                    table[number as usize] = Some(peer);
                }
                Err(e) => log::debug!("peer {number}: {e}"),
            }
        }
    }

    /// Lets go of all.
    pub fn disconnect(&self) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        *table = Default::default();
    }

    /// Gets hold of the peers' memory; who is connected stays so until the
    /// result is dropped.
    pub fn lock(&self) -> Locked<'_> {
        Locked(self.table.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        // Gone already, or another's by now, is as good: it leads nowhere.
        if let Some(link) = &self.link {
            let _ = std::fs::remove_file(link.path(link.number));
        }
    }
}

/// The connected peers, held still.
#[derive(Debug)]
pub struct Locked<'a>(RwLockReadGuard<'a, [Option<Peer>; PEERS as usize]>);

impl Locked<'_> {
    fn alive(&self, number: u32) -> Option<&Peer> {
        let peer = self.0.get(number as usize)?.as_ref()?;
        peer.is_alive().then_some(peer)
    }

    /// `len` bytes from `offset` of the VRAM of peer `number`.
    pub fn span(&self, number: u64, offset: u64, len: u64) -> Result<Span<'_>, Status> {
        let number = u32::try_from(number).map_err(|_| Status::PeerGone)?;
        let peer = self.alive(number).ok_or(Status::PeerGone)?;
        Ok(peer.vram.span(offset, len)?)
    }
}

/// Puts the VRAM on the link, in the place of a device that has died.
fn publish(link: &Link, vram: &Vram) -> io::Result<()> {
    let path = link.path(link.number);
    if Peer::connect(&path).is_ok() {
        return Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            format!("number {} on the link is taken", link.number),
        ));
    }
    if !lock(vram.file(), libc::LOCK_EX) {
        return Err(io::Error::last_os_error());
    }
    let pid = std::process::id();
    let target = format!("/proc/{pid}/fd/{}", vram.file().as_raw_fd());
    // By way of another name, so that there is always one or the other.
    let fresh = link.folder.join(format!("vram{}.{pid}", link.number));
    let _ = std::fs::remove_file(&fresh);
    std::os::unix::fs::symlink(target, &fresh)?;
    std::fs::rename(&fresh, &path)
}

/// Changes the lock on a file, if that takes no waiting. Returns whether it could.
fn lock(file: &File, operation: libc::c_int) -> bool {
    // SAFETY: no pointers are passed.
    unsafe { libc::flock(file.as_raw_fd(), operation | libc::LOCK_NB) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        let own = format!("simgpu-{}-{}-{name}", std::process::id(), now.as_nanos());
        let folder = std::env::temp_dir().join(own);
        std::fs::create_dir(&folder).unwrap();
        folder
    }

    fn device(folder: &Path, number: u32) -> io::Result<(Vram, Peers)> {
        let vram = Vram::new(1 << 20)?;
        let folder = folder.to_path_buf();
        let peers = Peers::new(Some(Link { folder, number }), &vram)?;
        Ok((vram, peers))
    }

    #[test]
    fn peers_share_memory_until_one_dies() {
        let folder = folder("peers");
        let (vram, a) = device(&folder, 0).unwrap();
        let (other, b) = device(&folder, 7).unwrap();
        assert_eq!((a.own_number(), b.own_number()), (0, 7));
        assert_eq!(a.present(), 0, "not connected yet");
        assert_eq!(a.lock().span(7, 0, 8).err(), Some(Status::PeerGone));
        a.connect(!0);
        b.connect(1);
        assert_eq!((a.present(), b.present()), (1 << 7, 1));
        a.lock().span(7, 4096, 8).unwrap().write(&[9; 8]);
        assert_eq!(other.bytes(4096, 8).unwrap(), [9; 8]);
        b.lock().span(0, 0, 8).unwrap().write(&[5; 8]);
        assert_eq!(vram.bytes(0, 8).unwrap(), [5; 8]);
        let past = a.lock().span(7, 1 << 20, 1).err();
        assert_eq!(past, Some(Status::BadVram));
        for number in [0, 1, 16, u64::MAX] {
            let gone = a.lock().span(number, 0, 1).err();
            assert_eq!(gone, Some(Status::PeerGone));
        }
        // One dies: b's own mapping of a is all that is left of a.
        drop((vram, a));
        assert_eq!(b.present(), 0);
        assert_eq!(b.lock().span(0, 0, 8).err(), Some(Status::PeerGone));
        // A new one is not the old one, until it is asked for.
        let (vram, _a) = device(&folder, 0).unwrap();
        assert_eq!(b.present(), 0);
        b.connect(1);
        assert_eq!(b.present(), 1);
        b.lock().span(0, 8, 8).unwrap().write(&[1; 8]);
        assert_eq!(vram.bytes(0, 16).unwrap()[..9], [0, 0, 0, 0, 0, 0, 0, 0, 1]);
        b.disconnect();
        assert_eq!(b.present(), 0);
    }

    #[test]
    fn a_number_is_given_once() {
        let folder = folder("taken");
        let first = device(&folder, 3).unwrap();
        assert!(device(&folder, 3).is_err());
        drop(first);
        assert!(device(&folder, 3).is_ok());
    }

    #[test]
    fn rubbish_on_the_link_is_no_peer() {
        let folder = folder("rubbish");
        let (_vram, peers) = device(&folder, 0).unwrap();
        std::fs::write(folder.join("vram1"), [0; 8192]).unwrap();
        std::os::unix::fs::symlink("/proc/self/fd/0", folder.join("vram2")).unwrap();
        std::fs::create_dir(folder.join("vram3")).unwrap();
        peers.connect(!0);
        assert_eq!(peers.present(), 0);
    }

    #[test]
    fn without_a_link_there_are_none() {
        let peers = Peers::default();
        peers.connect(!0);
        assert_eq!((peers.own_number(), peers.present()), (0xffff, 0));
    }
}
