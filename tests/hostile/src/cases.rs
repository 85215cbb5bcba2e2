// SPDX-License-Identifier: Apache-2.0
//! The cases, a table for each part of a device that they are about. Numbers are for ever: a case that goes leaves a gap.

mod chains;
mod connections;
mod files;
mod handles;
mod indices;
mod indirect;
mod names;
mod packets;
mod places;
mod ports;
mod readonly;
mod registers;
mod requests;
mod rings;
mod status;
mod widths;

use crate::verdict::Case;

pub(crate) const ALL: [&[Case]; 16] = [
    registers::CASES,
    widths::CASES,
    status::CASES,
    places::CASES,
    rings::CASES,
    chains::CASES,
    indirect::CASES,
    indices::CASES,
    ports::CASES,
    packets::CASES,
    connections::CASES,
    requests::CASES,
    handles::CASES,
    names::CASES,
    files::CASES,
    readonly::CASES,
];
