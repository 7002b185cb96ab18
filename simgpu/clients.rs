// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Who has the device open.

use kernel::{
    current,
    new_mutex,
    prelude::*,
    rbtree::RBTree,
    sync::{
        Arc,
        Mutex, //
    },
    task::Pid, //
};

/// The open files of a device, by number.
#[pin_data]
pub(crate) struct Clients {
    #[pin]
    table: Mutex<Table>,
}

struct Table {
    last: u64,
    clients: RBTree<u64, Client>,
}

/// An open file, as its opener has it.
#[derive(Clone, Copy)]
pub(crate) struct Client {
    /// The process that has opened it, in the initial namespace.
    pub(crate) pid: Pid,
    /// The address of its `mm_struct`, which is only ever compared.
    pub(crate) mm: usize,
}

/// Keeps a client in the table.
pub(crate) struct Entry {
    clients: Arc<Clients>,
    id: u64,
}

impl Clients {
    /// Nobody yet.
    pub(crate) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                table <- new_mutex!(Table {
                    last: 0,
                    clients: RBTree::new(),
                }, "simgpu::Clients::table"),
            }),
            GFP_KERNEL,
        )
    }

    /// Enters the current process. May sleep.
    pub(crate) fn enter(this: &Arc<Self>) -> Result<Entry> {
        let client = Client {
            pid: current!().tgid(),
            mm: current!().mm().map_or(0, |mm| mm.as_raw() as usize),
        };
        let mut table = this.table.lock();
        let id = table.last + 1;

        table
            .clients
            .try_create_and_insert(id, client, GFP_KERNEL)?;
        table.last = id;
        Ok(Entry {
            clients: this.clone(),
            id,
        })
    }

    /// The clients, and their numbers. May sleep.
    pub(crate) fn list(&self) -> Result<KVec<(u64, Client)>> {
        let mut list = KVec::new();

        for (&id, &client) in self.table.lock().clients.iter() {
            list.push((id, client), GFP_KERNEL)?;
        }
        Ok(list)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.clients.table.lock().clients.remove(&self.id);
    }
}
