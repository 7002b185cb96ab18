// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The VRAM: who has which part of it.

use core::ops::Range;
use drm_pagemap::Devmem;
use kernel::{
    gpu::buddy::{
        AllocatedBlocks,
        GpuBuddy,
        GpuBuddyAllocFlags,
        GpuBuddyAllocMode,
        GpuBuddyParams, //
    },
    new_mutex,
    page::PAGE_SIZE,
    prelude::*,
    ptr::Alignment,
    rbtree::{
        RBTree,
        RBTreeNode, //
    },
    sizes::SZ_2M,
    sync::{
        aref::ARef,
        atomic::{
            Acquire,
            Atomic,
            Relaxed,
            Release, //
        },
        Mutex, //
    }, //
};

/// A handle on an allocation.
pub(crate) type Handle = ARef<Devmem<Allocation>>;

/// The part of an address space that an allocation was made for. Pages can have moved since, so
/// this is a hint.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    /// Address of the `mm_struct`, which is only ever compared.
    mm: usize,
    range: Range<usize>,
}

impl Origin {
    pub(crate) fn new(mm: &kernel::mm::Mm, range: Range<usize>) -> Self {
        Self {
            mm: mm.as_raw() as usize,
            range,
        }
    }

    /// Whether both have an address in common.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.mm == other.mm
            && !self.range.is_empty()
            && !other.range.is_empty()
            && self.range.start < other.range.end
            && other.range.start < self.range.end
    }
}

/// A piece of VRAM, given back when this is dropped.
#[pin_data]
pub(crate) struct Allocation {
    #[pin]
    blocks: AllocatedBlocks,
    origin: Origin,
    /// Names it; the higher, the younger.
    age: u64,
    /// When it was used last, by the clock of [`Vram`]. Changed with the table locked.
    used: Atomic<u64>,
    /// Whether the migration that it was made for is over.
    settled: Atomic<bool>,
}

impl Allocation {
    /// Its blocks, as byte offsets, in the order of virtual addresses.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.blocks
            .iter()
            .map(|block| block.offset()..block.offset() + block.size())
    }

    /// From now on it can be chosen for eviction, which would only be in the way before.
    pub(crate) fn settle(&self) {
        self.settled.store(true, Release);
    }

    /// Names it; the higher, the younger.
    pub(crate) fn age(&self) -> u64 {
        self.age
    }

    /// When it was used last, by [`Vram::now`].
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    fn origin_key(&self) -> (usize, usize, u64) {
        (self.origin.mm, self.origin.range.start, self.age)
    }

    fn is_settled(&self) -> bool {
        self.settled.load(Acquire)
    }
}

/// All of the VRAM.
///
/// It knows in which order allocations were used: when they were made, when a page fault of the GPU
/// came to one, and when a job was submitted that names addresses which it was made for. What a job
/// does with pages that are mapped can't be seen.
///
/// The lock is taken when allocations are made, released, used and looked for, never in the CPU
/// fault path, and never held while pages are migrated.
#[pin_data]
pub(crate) struct Vram {
    buddy: GpuBuddy,
    size: u64,
    clock: Atomic<u64>,
    #[pin]
    table: Mutex<Table>,
}

/// The allocations that are in use, or about to be.
struct Table {
    /// By age.
    handles: RBTree<u64, Handle>,
    /// Their ages, by when they were used last.
    order: RBTree<u64, u64>,
    /// By the address space and the start that they were made for, and their ages.
    origins: RBTree<(usize, usize, u64), ()>,
    /// For each block, by its offset: where it ends, and its allocation's age.
    blocks: RBTree<u64, (u64, u64)>,
}

/// What it takes to enter an allocation in the table. Made without the lock.
struct Nodes {
    handle: RBTreeNode<u64, Handle>,
    order: RBTreeNode<u64, u64>,
    origin: RBTreeNode<(usize, usize, u64), ()>,
    blocks: KVec<RBTreeNode<u64, (u64, u64)>>,
}

impl Vram {
    /// VRAM of `size` bytes, all of it free.
    pub(crate) fn new(size: u64) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            buddy: GpuBuddy::new(GpuBuddyParams {
                base_offset: 0,
                size,
                chunk_size: Alignment::new::<PAGE_SIZE>(),
            })?,
            size,
            clock: Atomic::new(0),
            table <- new_mutex!(Table {
                handles: RBTree::new(),
                order: RBTree::new(),
                origins: RBTree::new(),
                blocks: RBTree::new(),
            }, "simgpu::Vram::table"),
        }? Error)
    }

    /// The size in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Bytes that are free.
    pub(crate) fn free(&self) -> u64 {
        self.buddy.avail()
    }

    /// How many allocations there are whose address space is `wanted`, by the address of its
    /// `mm_struct`, and their bytes.
    pub(crate) fn usage(&self, wanted: impl Fn(usize) -> bool) -> (usize, u64) {
        let table = self.table.lock();

        table
            .handles
            .values()
            .filter(|handle| wanted(handle.origin.mm))
            .fold((0, 0), |(count, bytes), handle| {
                (count + 1, bytes + handle.size() as u64)
            })
    }

    /// Allocates `size` bytes, in as many blocks as it takes, for `origin`. [`ENOSPC`]: there is
    /// not enough.
    pub(crate) fn allocate(&self, size: usize, origin: Origin) -> impl PinInit<Allocation, Error> {
        let age = self.clock.fetch_add(1, Relaxed);
        let blocks = self.buddy.alloc_blocks(
            GpuBuddyAllocMode::Simple,
            size as u64,
            Alignment::new::<PAGE_SIZE>(),
            GpuBuddyAllocFlags::default(),
        );

        try_pin_init!(Allocation {
            blocks <- blocks,
            origin,
            used: Atomic::new(age),
            age,
            settled: Atomic::new(false),
        })
    }

    /// Makes an allocation known, so that it can be found, until it is [removed](Self::remove).
    pub(crate) fn insert(&self, allocation: &Devmem<Allocation>) -> Result {
        let nodes = Nodes::new(allocation)?;
        let mut table = self.table.lock();

        // Ages and offsets in use are unique, so nothing is replaced.
        let _ = table.handles.insert(nodes.handle);
        let _ = table.order.insert(nodes.order);
        let _ = table.origins.insert(nodes.origin);
        for node in nodes.blocks {
            let _ = table.blocks.insert(node);
        }
        Ok(())
    }

    /// Makes an allocation unknown, if it is not so already.
    pub(crate) fn remove(&self, allocation: &Devmem<Allocation>) {
        let handle = {
            let mut table = self.table.lock();
            let handle = table.handles.remove(&allocation.age);

            if handle.is_some() {
                let _ = table.order.remove(&allocation.used());
                let _ = table.origins.remove(&allocation.origin_key());
                for block in allocation.blocks() {
                    let _ = table.blocks.remove(&block.start);
                }
            }
            handle
        };

        // Not under the lock: this may free it.
        drop(handle);
    }

    /// The allocation that has the byte at `offset`, if it is settled, and the block that the byte
    /// is in.
    pub(crate) fn at(&self, offset: u64) -> Option<(Range<u64>, Handle)> {
        self.table
            .lock()
            .at(offset)
            .filter(|(_, handle)| handle.is_settled())
    }

    /// The time by which uses are ordered: later than that of any use so far.
    pub(crate) fn now(&self) -> u64 {
        self.clock.load(Relaxed)
    }

    /// Notes that the allocation that has the byte at `offset` is used. Returns the block that the
    /// byte is in, if there is one.
    pub(crate) fn touch(&self, offset: u64) -> Option<Range<u64>> {
        let mut table = self.table.lock();
        let (block, handle) = table.at(offset)?;

        table.touch(&handle, self.clock.fetch_add(1, Relaxed));
        drop(table);
        // Not under the lock: this may free it.
        drop(handle);
        Some(block)
    }

    /// Notes that what was made for something that begins within `range`, addresses of `mm`, is
    /// used.
    pub(crate) fn touch_range(&self, mm: &kernel::mm::Mm, range: &Range<usize>) {
        let mm = mm.as_raw() as usize;
        // No allocation is for more than 2 MiB, or over a boundary of those.
        let mut from = (mm, range.start & !(SZ_2M - 1), 0);

        // The lock is not held for long: there may be many.
        loop {
            let mut table = self.table.lock();
            let next = table.origins.cursor_lower_bound(&from);
            let Some((at_mm, start, age)) = next.map(|at| *at.current().0) else {
                break;
            };

            if at_mm != mm || start >= range.end {
                break;
            }
            from = (at_mm, start, age + 1);
            let handle = table.handles.get(&age).cloned();
            if let Some(handle) = &handle {
                table.touch(handle, self.clock.fetch_add(1, Relaxed));
            }
            drop(table);
            // Not under the lock: this may free it.
            drop(handle);
        }
    }

    /// The settled allocations that were made for something that overlaps `origin`.
    pub(crate) fn made_for(&self, origin: &Origin) -> Result<KVec<Handle>> {
        let mut found = KVec::new();
        let table = self.table.lock();

        for handle in table.handles.values() {
            if handle.origin.overlaps(origin) && handle.is_settled() {
                found.push(handle.clone(), GFP_KERNEL)?;
            }
        }
        Ok(found)
    }

    /// Of the settled allocations that were used last at a time in `when`, those that were used the
    /// longest time ago and have at least `size` bytes together, or all there are; none of those
    /// that were made for something that overlaps `spared`. And when the last of them was used.
    pub(crate) fn least_used(
        &self,
        size: u64,
        when: Range<u64>,
        spared: &Origin,
    ) -> Result<(u64, KVec<Handle>)> {
        let mut found = KVec::new();
        let mut sum = 0;
        let mut last = when.start;
        let table = self.table.lock();

        for (&used, age) in table.order.iter() {
            if sum >= size || used >= when.end {
                break;
            }
            let Some(handle) = table.handles.get(age) else {
                continue;
            };
            if used >= when.start && handle.is_settled() && !handle.origin.overlaps(spared) {
                last = used;
                found.push(handle.clone(), GFP_KERNEL)?;
                sum += handle.size() as u64;
            }
        }
        Ok((last, found))
    }
}

impl Table {
    /// Puts it at the young end. It may be out of the table already.
    fn touch(&mut self, handle: &Handle, now: u64) {
        if let Some(node) = self.order.remove_node(&handle.used()) {
            let node = node.into_reservation().into_node(now, handle.age);

            handle.used.store(now, Relaxed);
            let _ = self.order.insert(node);
        }
    }

    /// The allocation that has the byte at `offset`.
    fn at(&self, offset: u64) -> Option<(Range<u64>, Handle)> {
        let copied = |(&start, &(end, age)): (&u64, &(u64, u64))| (start..end, age);
        let (block, age) = match self.blocks.cursor_lower_bound(&offset) {
            Some(cursor) if *cursor.current().0 == offset => copied(cursor.current()),
            Some(cursor) => copied(cursor.peek_prev()?),
            None => copied(self.blocks.cursor_back()?.current()),
        };
        let handle = self.handles.get(&age)?;

        block.contains(&offset).then(|| (block, handle.clone()))
    }
}

impl Nodes {
    fn new(allocation: &Devmem<Allocation>) -> Result<Self> {
        let mut blocks = KVec::new();

        for block in allocation.blocks() {
            let node = RBTreeNode::new(block.start, (block.end, allocation.age), GFP_KERNEL)?;

            blocks.push(node, GFP_KERNEL)?;
        }
        Ok(Self {
            handle: RBTreeNode::new(allocation.age, ARef::from(allocation), GFP_KERNEL)?,
            order: RBTreeNode::new(allocation.used(), allocation.age, GFP_KERNEL)?,
            origin: RBTreeNode::new(allocation.origin_key(), (), GFP_KERNEL)?,
            blocks,
        })
    }
}
