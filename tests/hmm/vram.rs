// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The device's memory: RAM of the module's own, that nobody maps.

use crate::{
    device::Handle,
    ram::{
        copy_page,
        DmaDevice, //
    }, //
};
use drm_pagemap::{
    Copies,
    CopyRun, //
};
use kernel::{
    new_mutex,
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
};

/// Pages in a block, which is what a PMD maps.
pub(crate) const BLOCK_PAGES: usize = 512;

/// Bytes in a block.
const BLOCK: usize = BLOCK_PAGES << PAGE_SHIFT;

/// The blocks of a device: 288 MiB, the largest buffer of the tests and some more.
const BLOCKS: usize = 144;

/// The size in bytes.
pub(crate) const SIZE: usize = BLOCKS * BLOCK;

/// All of it.
#[pin_data]
pub(crate) struct Vram {
    dma: DmaDevice,
    #[pin]
    state: Mutex<State>,
}

struct State {
    /// The bytes of each block; empty before it is used for the first time.
    blocks: KVec<KVVec<u8>>,
    used: KVVec<bool>,
    /// For each page in use, the allocation that it is of.
    owners: KVVec<Option<Handle>>,
}

impl Vram {
    pub(crate) fn new(dma: DmaDevice) -> Result<Arc<Self>> {
        let mut state = State {
            blocks: KVec::with_capacity(BLOCKS, GFP_KERNEL)?,
            used: KVVec::from_elem(false, SIZE >> PAGE_SHIFT, GFP_KERNEL)?,
            owners: KVVec::with_capacity(SIZE >> PAGE_SHIFT, GFP_KERNEL)?,
        };

        for _ in 0..BLOCKS {
            state.blocks.push(KVVec::new(), GFP_KERNEL)?;
        }
        for _ in 0..SIZE >> PAGE_SHIFT {
            state.owners.push(None, GFP_KERNEL)?;
        }
        Arc::pin_init(
            pin_init!(Self {
                dma,
                state <- new_mutex!(state, "hmm_dmirror::Vram::state"),
            }),
            GFP_KERNEL,
        )
    }

    /// Allocates `nr` pages: a whole block if they are as many, unless they shall be `scattered`.
    fn alloc(&self, nr: usize, scattered: bool) -> Result<KVec<usize>> {
        let mut pages = KVec::with_capacity(nr, GFP_KERNEL)?;
        let mut state = self.state.lock();
        let is_free = |used: &[bool]| used.iter().all(|used| !used);
        let whole = state
            .used
            .chunks_exact(BLOCK_PAGES)
            .position(is_free)
            .filter(|_| nr == BLOCK_PAGES && !scattered)
            .map_or(0, |block| block * BLOCK_PAGES);

        for page in whole..state.used.len() {
            if pages.len() == nr {
                break;
            }
            if !state.used[page] {
                pages.push_within_capacity(page).map_err(|_| EINVAL)?;
            }
        }
        if pages.len() < nr {
            return Err(ENOMEM);
        }
        for &page in &pages {
            state.used[page] = true;
        }
        if scattered {
            pages.reverse();
        }
        Ok(pages)
    }

    fn free(&self, pages: &[usize]) {
        let mut state = self.state.lock();

        for &page in pages {
            state.used[page] = false;
        }
    }

    /// Sees to it that there are bytes for a page.
    fn back(&self, page: usize) -> Result {
        let block = page / BLOCK_PAGES;

        if self.state.lock().blocks[block].is_empty() {
            // Not under the lock, which is taken where memory must not be waited for.
            let bytes = KVVec::from_elem(0u8, BLOCK, GFP_KERNEL)?;
            let mut state = self.state.lock();

            if state.blocks[block].is_empty() {
                state.blocks[block] = bytes;
            }
        }
        Ok(())
    }

    /// Notes whose pages these are, or that they are nobody's any more.
    fn set_owner(&self, pages: &[usize], owner: Option<&Handle>) {
        for &page in pages {
            let before = core::mem::replace(&mut self.state.lock().owners[page], owner.cloned());

            // Not under the lock: it may be the last one.
            drop(before);
        }
    }

    /// The allocation that has the byte at `offset`.
    pub(crate) fn owner(&self, offset: u64) -> Option<Handle> {
        self.state.lock().owners.get(page_of(offset))?.clone()
    }

    /// All allocations there are.
    pub(crate) fn owners(&self) -> Result<KVVec<Handle>> {
        let mut owners = KVVec::with_capacity(SIZE >> PAGE_SHIFT, GFP_KERNEL)?;
        let state = self.state.lock();

        for owner in state.owners.iter().flatten() {
            owners
                .push_within_capacity(owner.clone())
                .map_err(|_| EINVAL)?;
        }
        Ok(owners)
    }

    /// Reads the page at `offset`.
    pub(crate) fn read(&self, offset: u64, out: &mut [u8]) -> Result {
        copy_page(out, bytes(&mut self.state.lock().blocks, offset)?)
    }

    /// Writes the page at `offset`.
    pub(crate) fn write(&self, offset: u64, from: &[u8]) -> Result {
        copy_page(bytes(&mut self.state.lock().blocks, offset)?, from)
    }

    /// Copies RAM to device memory.
    pub(crate) fn copy_in(&self, copies: Copies<'_>) -> Result {
        self.copy(copies, |dma, run, skip, vram| dma.copy_in(run, skip, vram))
    }

    /// Copies device memory to RAM.
    pub(crate) fn copy_out(&self, copies: Copies<'_>) -> Result {
        self.copy(copies, |dma, run, skip, vram| dma.copy_out(run, skip, vram))
    }

    fn copy(
        &self,
        copies: Copies<'_>,
        copy: impl Fn(&DmaDevice, &CopyRun, u64, &mut [u8; PAGE_SIZE]),
    ) -> Result {
        let mut state = self.state.lock();

        for run in copies {
            // There are no peers.
            if run.protocol != 0 {
                return Err(EINVAL);
            }
            for skip in (0..run.len).step_by(PAGE_SIZE) {
                let vram = bytes(&mut state.blocks, run.offset + skip)?;

                copy(&self.dma, &run, skip, vram);
            }
        }
        Ok(())
    }
}

fn page_of(offset: u64) -> usize {
    (offset >> PAGE_SHIFT) as usize
}

/// The page at `offset`.
fn bytes(blocks: &mut KVec<KVVec<u8>>, offset: u64) -> Result<&mut [u8; PAGE_SIZE]> {
    let start = offset as usize % BLOCK;
    let block = blocks.get_mut(offset as usize / BLOCK).ok_or(EINVAL)?;
    let page = block.get_mut(start..start + PAGE_SIZE).ok_or(EINVAL)?;

    page.try_into().map_err(|_| EINVAL)
}

/// An allocation. Dropping it frees the pages.
pub(crate) struct Chunk {
    vram: Arc<Vram>,
    pages: KVec<usize>,
}

impl Chunk {
    /// Allocates `nr` pages; those that are `scattered` are good for no large folio. [`ENOMEM`].
    pub(crate) fn new(vram: &Arc<Vram>, nr: usize, scattered: bool) -> Result<Self> {
        let this = Self {
            vram: vram.clone(),
            pages: vram.alloc(nr, scattered)?,
        };

        for &page in &this.pages {
            vram.back(page)?;
        }
        Ok(this)
    }

    /// Where the pages are, as byte offsets.
    pub(crate) fn offsets(&self) -> impl Iterator<Item = u64> + '_ {
        self.pages.iter().map(|&page| (page << PAGE_SHIFT) as u64)
    }

    /// Makes the allocation known, or unknown.
    pub(crate) fn set_owner(&self, owner: Option<&Handle>) {
        self.vram.set_owner(&self.pages, owner);
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.vram.free(&self.pages);
    }
}
