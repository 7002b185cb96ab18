// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! MSI-X vectors: eventfds that the client listens on. The vector table itself
//! is the client's business.

use std::fs::File;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

/// How many vectors the device has.
pub const VECTORS: usize = 8;

/// The eventfds, by vector. A vector without one is lost, like a message that
/// is sent while MSI-X is off.
#[derive(Debug, Default)]
pub struct Irqs {
    fds: Mutex<[Option<File>; VECTORS]>,
}

impl Irqs {
    /// Gives vector `start` and those after it the eventfds of `fds`; takes
    /// away the ones of the other vectors among `start .. start + count`.
    pub fn assign(&self, start: u32, count: u32, fds: Vec<File>) -> io::Result<()> {
        let start = start as usize;
        let end = start.checked_add(count as usize).ok_or_else(invalid)?;
        if end > VECTORS || fds.len() > count as usize {
            return Err(invalid());
        }
        let mut new = fds.into_iter();
        for slot in &mut self.lock()[start..end] {
            *slot = new.next();
        }
        Ok(())
    }

    /// Takes all eventfds away.
    pub fn clear(&self) {
        *self.lock() = Default::default();
    }

    /// Sends the vectors whose bit is set in `mask`.
    pub fn send(&self, mask: u32) {
        let fds = self.lock();
        for (vector, fd) in fds.iter().enumerate() {
            let Some(mut fd) = fd.as_ref().filter(|_| mask & (1 << vector) != 0) else {
                continue;
            };
            // Fails only when the counter is full, and then it is pending.
            if let Err(e) = fd.write_all(&1u64.to_ne_bytes()) {
                log::debug!("vector {vector}: {e}");
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, [Option<File>; VECTORS]> {
        self.fds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn invalid() -> io::Error {
    io::Error::from_raw_os_error(libc::EINVAL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::FromRawFd;

    fn eventfd() -> File {
        // SAFETY: eventfd takes no pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        assert!(fd >= 0);
        // SAFETY: the descriptor is new and nobody else's.
        unsafe { File::from_raw_fd(fd) }
    }

    fn count(mut fd: &File) -> u64 {
        let mut buf = [0; 8];
        match fd.read_exact(&mut buf) {
            Ok(()) => u64::from_ne_bytes(buf),
            Err(_) => 0,
        }
    }

    #[test]
    fn vectors_reach_their_own_eventfd() {
        let (irqs, a, b) = (Irqs::default(), eventfd(), eventfd());
        irqs.send(3); // nobody listens: lost
        irqs.assign(0, 2, vec![a.try_clone().unwrap(), b.try_clone().unwrap()])
            .unwrap();
        assert_eq!((count(&a), count(&b)), (0, 0));
        irqs.send(1);
        assert_eq!((count(&a), count(&b)), (1, 0));
        irqs.send(2);
        assert_eq!((count(&a), count(&b)), (0, 1));
        irqs.send(!0);
        assert_eq!((count(&a), count(&b)), (1, 1));
        irqs.assign(0, 1, vec![]).unwrap();
        irqs.send(3);
        assert_eq!((count(&a), count(&b)), (0, 1));
        irqs.clear();
        irqs.send(3);
        assert_eq!((count(&a), count(&b)), (0, 0));
    }

    #[test]
    fn bad_vectors_are_refused() {
        let irqs = Irqs::default();
        let all = VECTORS as u32;
        assert!(irqs.assign(all, 1, vec![eventfd()]).is_err());
        assert!(irqs.assign(0, all + 1, vec![]).is_err());
        assert!(irqs.assign(u32::MAX, u32::MAX, vec![]).is_err());
        assert!(irqs.assign(0, 1, vec![eventfd(), eventfd()]).is_err());
    }

    #[test]
    fn a_full_counter_does_not_block() {
        let (irqs, a) = (Irqs::default(), eventfd());
        (&a).write_all(&(u64::MAX - 1).to_ne_bytes()).unwrap();
        irqs.assign(0, 1, vec![a]).unwrap();
        irqs.send(1);
    }
}
