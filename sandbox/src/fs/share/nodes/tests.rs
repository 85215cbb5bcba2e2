// SPDX-License-Identifier: Apache-2.0
//! The table against a made-up passthrough.

use super::*;
use std::collections::HashSet;

const NONE: [Inner; 0] = [];

fn named(parent: Guest, name: &CStr, inner: Inner) -> Found {
    let name: Arc<CStr> = name.into();
    let file = File { device: 1, inode: inner };
    Found { parent, name: name.clone(), inner, file, key: Key::Name(parent, name) }
}

fn here(nodes: &mut Nodes, guest: Guest) -> Option<Inner> {
    match nodes.way(guest).unwrap() {
        Way::Here(inner) => Some(inner),
        Way::Back { .. } => None,
    }
}

#[test]
fn a_name_looked_up_twice_has_one_number() {
    let mut nodes = Nodes::new(10);
    let (first, extra) = nodes.found(named(ROOT_ID, c"a", 5));
    assert_eq!(extra, None);
    assert_eq!(nodes.found(named(ROOT_ID, c"a", 5)), (first, Some(5)));
    assert_eq!(nodes.forget(first, 1), NONE);
    assert_eq!(nodes.forget(first, 1), [5]);
    assert_eq!(nodes.way(first).unwrap_err(), Errno::BADF);
}

#[test]
fn a_replaced_file_has_a_new_number() {
    let mut nodes = Nodes::new(10);
    let (old, _) = nodes.found(named(ROOT_ID, c"a", 5));
    let (new, _) = nodes.found(named(ROOT_ID, c"a", 6));
    assert_ne!(old, new);
    assert_eq!(nodes.forget(old, 1), [5]);
    assert_eq!(nodes.found(named(ROOT_ID, c"a", 6)), (new, Some(6)));
}

#[test]
fn what_is_unused_longest_is_let_go_and_found_again() {
    let mut nodes = Nodes::new(2);
    let (directory, _) = nodes.found(named(ROOT_ID, c"d", 10));
    let (a, _) = nodes.found(named(directory, c"a", 11));
    let (b, _) = nodes.found(named(directory, c"b", 12));
    assert_eq!(nodes.excess(), [10]);

    let Way::Back { parent, name, file } = nodes.way(directory).unwrap() else { panic!("still here") };
    assert_eq!((parent, &*name, file.inode), (ROOT_ID, c"d", 10));
    assert_eq!((here(&mut nodes, a), here(&mut nodes, b)), (Some(11), Some(12)));

    // Back under another number of the passthrough's: the guest's stays.
    assert_eq!(nodes.back(directory, 20), None);
    assert_eq!(here(&mut nodes, directory), Some(20));
    assert_eq!(nodes.excess().len(), 1);
}

#[test]
fn what_is_open_or_pinned_stays() {
    let mut nodes = Nodes::new(0);
    let (open, _) = nodes.found(named(ROOT_ID, c"open", 1));
    nodes.opened(open);
    let pinned = Found { key: Key::Pinned(2), ..named(ROOT_ID, c"pinned", 2) };
    let (pinned, _) = nodes.found(pinned);
    assert_eq!(nodes.excess(), NONE);
    assert_eq!((here(&mut nodes, open), here(&mut nodes, pinned)), (Some(1), Some(2)));
    assert_eq!(nodes.closed(open), NONE);
    assert_eq!(nodes.excess(), [1]);
}

#[test]
fn a_parent_outlives_its_children() {
    let mut nodes = Nodes::new(10);
    let (parent, _) = nodes.found(named(ROOT_ID, c"p", 1));
    let (child, _) = nodes.found(named(parent, c"c", 2));
    assert_eq!(nodes.forget(parent, 1), NONE);
    assert_eq!(nodes.forget(child, 1), [2, 1]);
}

#[test]
fn hostile_counts_and_numbers_do_no_harm() {
    let mut nodes = Nodes::new(10);
    let (guest, _) = nodes.found(named(ROOT_ID, c"a", 1));
    assert_eq!(nodes.closed(guest), NONE);
    assert_eq!(nodes.forget(guest, u64::MAX), [1]);
    assert_eq!(nodes.forget(guest, 1), NONE);
    assert_eq!(nodes.forget(u64::MAX, 1), NONE);
    assert_eq!(nodes.forget(ROOT_ID, u64::MAX), NONE);
    nodes.opened(77);
    assert!(nodes.way(0).is_err());
}

#[test]
fn every_reference_is_given_back_once() {
    let mut nodes = Nodes::new(7);
    let mut held: HashSet<Inner> = HashSet::new();
    let mut guests = Vec::new();
    for inner in 100..400 {
        let name = std::ffi::CString::new(inner.to_string()).unwrap();
        let parent = *guests.get(inner as usize % 13).unwrap_or(&ROOT_ID);
        held.insert(inner);
        let (guest, extra) = nodes.found(named(parent, &name, inner));
        assert_eq!(extra, None);
        guests.push(guest);
        for inner in nodes.excess() {
            assert!(held.remove(&inner));
        }
        assert!(held.len() <= 7);
    }
    for guest in guests {
        for inner in nodes.forget(guest, 1) {
            assert!(held.remove(&inner));
        }
    }
    assert!(held.is_empty() && nodes.nodes.is_empty() && nodes.keys.is_empty());
}
