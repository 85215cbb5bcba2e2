// SPDX-License-Identifier: Apache-2.0
//! What a run's machine begins with: a copy of one that has booted already, or a boot of its own.
//!
//! A template is made by the first run that could use it. Where there can be none, or none can be made, the machine
//! boots as ever, which is slower and nothing else; why is said.

use std::os::fd::AsFd;

use images::{Image, Kind, Store, StoreError, TemplateKey};

use super::Error;
use super::images_check::ImagesCheck;
use crate::engine::{self, Boot, Engine, Model, Start, Template};
use crate::spec::Spec;
use crate::sys::signals::Signals;
use crate::sys::tsc::Moment;

/// This boot of the host. Its processor's counter has one rate, which a template's kernel was told.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Most memory of a machine that templates are made of, in bytes. A sixty-fourth of it is the kernel's page structures,
/// which a template holds besides 14 MB of kernel and every clone copies: here 144 MB.
const LARGEST: u64 = 8 << 30;

/// What a machine began with, for the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begin {
    /// A copy of a template.
    Clone,
    /// Its kernel; and why, if a copy would have been expected.
    Boot(Option<String>),
}

/// The images of a run, and what decides which template is theirs.
pub(super) struct Images<'a> {
    pub(super) engine: &'a Engine,
    pub(super) store: &'a Store,
    pub(super) kernel: Image,
    pub(super) initramfs: Image,
    pub(super) model: Model,
    pub(super) begun: Moment,
}

impl<'a> Images<'a> {
    /// The current ones.
    pub(super) fn find(engine: &'a Engine, store: &'a Store, spec: &Spec, begun: Moment) -> Result<Self, Error> {
        let flavour = if spec.nested.is_some() { images::Flavour::Nested } else { images::Flavour::Base };
        let (kernel, initramfs) = (store.kernel(flavour)?, store.initramfs()?);
        let model = Model {
            memory: spec.memory,
            cpus: spec.cpus,
            nested: spec.nested.is_some(),
            clears_file_pages: kernel.is_edited(),
        };
        Ok(Self { engine, store, kernel, initramfs, model, begun })
    }

    /// What the machine begins with, and the check that goes with it; a copy unless the caller wants a `boot`.
    pub(super) fn begin(&self, boot: bool, signals: Option<&Signals>) -> Result<(Start, ImagesCheck, Begin), Error> {
        let template = if boot { Ok(None) } else { self.template(signals) };
        let why = match template {
            Ok(Some((template, check))) => {
                return Ok((Start::Clone(template), ImagesCheck::begin([check, None])?, Begin::Clone));
            }
            Ok(None) => None,
            Err(error) => Some(crate::explain(&error)),
        };
        let (kernel, kernel_check) = self.kernel.begin()?;
        let (initramfs, initramfs_check) = self.initramfs.begin()?;
        let check = ImagesCheck::begin([kernel_check, initramfs_check])?;
        Ok((Start::Boot(self.boot(kernel, initramfs)), check, Begin::Boot(why)))
    }

    fn boot(&self, kernel: std::fs::File, initramfs: std::fs::File) -> Boot {
        Boot { kernel, initramfs, command_line: images::COMMAND_LINE, begun: self.begun }
    }

    /// The template, made if need be. None if there can be none, if somebody else is making one, or if a signal came.
    fn template(&self, signals: Option<&Signals>) -> Result<Option<(Template, Option<images::Check>)>, Error> {
        let Some(key) = self.key()? else { return Ok(None) };
        if let Some(found) = self.open(&key) {
            return Ok(Some(found));
        }
        let lock = match self.store.try_lock(Kind::Template) {
            Err(StoreError::Busy) => return Ok(None),
            lock => lock?,
        };
        // Whoever had the lock may just have made it.
        if let Some(found) = self.open(&key) {
            return Ok(Some(found));
        }
        // All of both is checked first: a template outlives this run.
        let boot = self.boot(self.kernel.open()?, self.initramfs.open()?);
        let interrupt = signals.map(AsFd::as_fd);
        let Some(memory) = self.engine.freeze(self.model, boot, interrupt)? else { return Ok(None) };
        let parts = engine::parts(&memory)?;
        self.store.keep_template(&lock, &key, parts.clone(), || engine::Contents::new(&memory, &parts))?;
        Ok(self.open(&key))
    }

    fn key(&self) -> Result<Option<TemplateKey>, Error> {
        if !self.kernel.is_edited() || self.model.memory > LARGEST {
            return Ok(None);
        }
        let Some(machine) = self.engine.boots_with(self.model, images::COMMAND_LINE)? else { return Ok(None) };
        let host = std::fs::read_to_string(BOOT_ID)?;
        Ok(Some(TemplateKey::of(&self.kernel, &self.initramfs, &format!("{machine} {host}"))))
    }

    /// A template of the store. One that is cut short is as good as none.
    fn open(&self, key: &TemplateKey) -> Option<(Template, Option<images::Check>)> {
        let image = self.store.template(key)?;
        let (file, check) = image.begin().ok()?;
        let images::Origin::Template { parts, .. } = &image.manifest().origin else { return None };
        Some((Template { file, parts: parts.clone() }, check))
    }
}
