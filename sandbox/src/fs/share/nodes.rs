// SPDX-License-Identifier: Apache-2.0
//! The guest's numbers for files, and which of those files are held open.
//!
//! The FUSE kernel keeps an inode, hence a number, for every file it has seen until it is short of memory, and the
//! passthrough keeps a descriptor for each. `find /usr` would run into the limit of open files, which is low where
//! nobody may raise it. So the guest gets numbers of ours. Behind a number stands either an inode of the passthrough
//! or, once it has been let go, the way back to it: its parent's number, its name, and what must be found there.
//!
//! Only files on read-only mounts are let go, and none that the guest has open: names in a volume change under us.
//! Which goes first is decided by a queue with a second chance for what was used since its last turn.
//!
//! Not for calling the passthrough: this is a table, and says what to do.

use rustix::io::Errno;
use std::collections::{HashMap, VecDeque};
use std::ffi::CStr;
use std::sync::Arc;
use virtiofsd::filesystem::ROOT_ID;

/// A number the guest has for a file.
pub(super) type Guest = u64;

/// A number the passthrough has for a file.
pub(super) type Inner = u64;

/// A file of the host: file system and inode number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct File {
    pub(super) device: u64,
    pub(super) inode: u64,
}

/// What makes two files that the guest looks up the same to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// On a read-only mount: the same name.
    Name(Guest, Arc<CStr>),
    /// On a read-only mount, with several names: the same file, seen with the same mount flags.
    Link(File, u64),
    /// Elsewhere: the same to the passthrough, which never lets go of it.
    Pinned(Inner),
}

/// A file found by name.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) parent: Guest,
    pub(super) name: Arc<CStr>,
    pub(super) inner: Inner,
    pub(super) file: File,
    pub(super) key: Key,
}

/// How to reach a file.
#[derive(Debug)]
pub(super) enum Way {
    /// It is held.
    Here(Inner),
    /// It was let go; it was found in this way.
    Back { parent: Guest, name: Arc<CStr>, file: File },
}

#[derive(Debug)]
struct Node {
    inner: Option<Inner>,
    parent: Guest,
    name: Arc<CStr>,
    file: File,
    key: Key,
    lookups: u64,
    opens: u64,
    children: u64,
    used: bool,
}

/// The table.
#[derive(Debug)]
pub(super) struct Nodes {
    nodes: HashMap<Guest, Node>,
    keys: HashMap<Key, Guest>,
    /// Numbers that may be let go, first in line first. May name some that are gone or let go already.
    queue: VecDeque<Guest>,
    held: usize,
    capacity: usize,
    next: Guest,
}

impl Nodes {
    /// Holds no more than about `capacity` files that may be let go.
    pub(super) fn new(capacity: usize) -> Nodes {
        let (nodes, keys, queue) = (HashMap::new(), HashMap::new(), VecDeque::new());
        Nodes { nodes, keys, queue, held: 0, capacity, next: ROOT_ID + 1 }
    }

    /// Forgets everything: a new mount. Only the root has a number, which is fixed.
    pub(super) fn clear(&mut self) {
        *self = Nodes { next: self.next, ..Nodes::new(self.capacity) };
    }

    pub(super) fn way(&mut self, guest: Guest) -> Result<Way, Errno> {
        if guest == ROOT_ID {
            return Ok(Way::Here(ROOT_ID));
        }
        let node = self.nodes.get_mut(&guest).ok_or(Errno::BADF)?;
        node.used = true;
        Ok(match node.inner {
            Some(inner) => Way::Here(inner),
            None => Way::Back { parent: node.parent, name: node.name.clone(), file: node.file },
        })
    }

    /// The guest has looked up a file. Returns its number, and a reference of the passthrough that is one too many.
    pub(super) fn found(&mut self, found: Found) -> (Guest, Option<Inner>) {
        if let Some(guest) = self.keys.get(&found.key).copied()
            && let Some(node) = self.nodes.get_mut(&guest)
            && node.file == found.file
        {
            node.lookups += 1;
            return (guest, self.back(guest, found.inner));
        }
        let guest = self.next;
        self.next += 1;
        if let Some(parent) = self.nodes.get_mut(&found.parent) {
            parent.children += 1;
        }
        self.keys.insert(found.key.clone(), guest);
        let Found { parent, name, inner, file, key } = found;
        let node = Node { inner: None, parent, name, file, key, lookups: 1, opens: 0, children: 0, used: true };
        self.nodes.insert(guest, node);
        (guest, self.back(guest, inner))
    }

    /// A file is held again. Returns the reference to give back: the old one, if it was held all the time.
    pub(super) fn back(&mut self, guest: Guest, inner: Inner) -> Option<Inner> {
        let Some(node) = self.nodes.get_mut(&guest) else { return Some(inner) };
        node.used = true;
        let old = node.inner.replace(inner);
        if old.is_none() && !matches!(node.key, Key::Pinned(_)) {
            self.held += 1;
            self.queue.push_back(guest);
        }
        old
    }

    /// What to let go of, if too much is held.
    pub(super) fn excess(&mut self) -> Vec<Inner> {
        let mut excess = Vec::new();
        // Everything may be in use: each is asked twice at most.
        let mut turns = self.queue.len() * 2;
        while self.held > self.capacity && turns > 0 {
            turns -= 1;
            let Some(guest) = self.queue.pop_front() else { break };
            let Some(node) = self.nodes.get_mut(&guest) else { continue };
            if node.used || node.opens > 0 {
                node.used = false;
                self.queue.push_back(guest);
            } else if let Some(inner) = node.inner.take() {
                self.held -= 1;
                excess.push(inner);
            }
        }
        excess
    }

    pub(super) fn opened(&mut self, guest: Guest) {
        if let Some(node) = self.nodes.get_mut(&guest) {
            node.opens += 1;
        }
    }

    /// Returns references to give back.
    pub(super) fn closed(&mut self, guest: Guest) -> Vec<Inner> {
        if let Some(node) = self.nodes.get_mut(&guest) {
            node.opens = node.opens.saturating_sub(1);
        }
        self.prune(guest)
    }

    /// The guest gives back `count` lookups. Returns references to give back.
    pub(super) fn forget(&mut self, guest: Guest, count: u64) -> Vec<Inner> {
        if let Some(node) = self.nodes.get_mut(&guest) {
            node.lookups = node.lookups.saturating_sub(count);
        }
        self.prune(guest)
    }

    /// Drops a number nobody needs any more, then its parent's, and so on.
    fn prune(&mut self, mut guest: Guest) -> Vec<Inner> {
        let mut dropped = Vec::new();
        while let Some(node) = self.nodes.get(&guest)
            && node.lookups == 0
            && node.opens == 0
            && node.children == 0
        {
            let Some(node) = self.nodes.remove(&guest) else { break };
            if self.keys.get(&node.key) == Some(&guest) {
                self.keys.remove(&node.key);
            }
            if let Some(inner) = node.inner {
                dropped.push(inner);
                if !matches!(node.key, Key::Pinned(_)) {
                    self.held -= 1;
                }
            }
            if let Some(parent) = self.nodes.get_mut(&node.parent) {
                parent.children -= 1;
            }
            guest = node.parent;
        }
        self.tidy();
        dropped
    }

    /// Keeps the queue from growing with numbers that are gone.
    fn tidy(&mut self) {
        if self.queue.len() > 2 * self.held + 1024 {
            let nodes = &self.nodes;
            self.queue.retain(|guest| nodes.get(guest).is_some_and(|node| node.inner.is_some()));
        }
    }
}

#[cfg(test)]
mod tests;
