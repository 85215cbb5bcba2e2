// SPDX-License-Identifier: Apache-2.0
//! What a run's machine begins with: a copy of one that has booted already, or a boot of its own.
//!
//! A template is made by the first run that could use it. Where there can be none, or none can be made, the machine
//! boots as ever, which is slower and nothing else; why is said.

use std::fs::File;

use images::{Image, Kind, Store, StoreError, TemplateKey};

use super::Error;
use super::images_check::ImagesCheck;
use crate::boot;
use crate::engine::{Boot, Engine, Model, Start, Template};
use crate::spec::Spec;
use crate::sys::signals::Signals;
use crate::sys::tsc::Moment;

/// Most memory of a machine that templates are made of, in bytes. A sixty-fourth of it is the kernel's page structures,
/// which a template holds besides 14 MB of kernel and every clone copies: here 144 MB.
const LARGEST: u64 = 8 << 30;

/// What a machine began with, for the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begin {
    /// A copy of a template.
    Clone,
    /// Its kernel; and why, if not because it was asked to.
    Boot(Option<String>),
}

/// A template that is open, and what is left to check of it.
type Opened = (Template, Option<images::Check>);

/// A template; or none, for this reason.
type Found = Result<Opened, &'static str>;

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
            disk: spec.disk().is_some(),
            clears_file_pages: kernel.is_edited(),
        };
        Ok(Self { engine, store, kernel, initramfs, model, begun })
    }

    /// What the machine begins with, the check that goes with it, and what of that is worth a notice; a copy unless the
    /// caller wants a `boot`.
    pub(super) fn begin(
        &self,
        boot: bool,
        signals: Option<&Signals>,
    ) -> Result<(Start, ImagesCheck, Begin, Option<String>), Error> {
        let found = if boot { None } else { Some(self.template(signals)) };
        let (why, notice) = match found {
            None => (None, None),
            Some(Ok(Ok((template, check)))) => {
                return Ok((Start::Clone(template), ImagesCheck::begin([check, None])?, Begin::Clone, None));
            }
            Some(Ok(Err(why))) => (Some(why.to_owned()), None),
            Some(Err(Error::Cancelled(signal))) => return Err(Error::Cancelled(signal)),
            Some(Err(error)) => {
                let why = crate::explain(&error);
                let notice = format!("the machine boots, which takes longer than a copy: {why}");
                (Some(why), Some(notice))
            }
        };
        let (kernel, kernel_check) = self.kernel.begin()?;
        let (initramfs, initramfs_check) = self.initramfs.begin()?;
        let check = ImagesCheck::begin([kernel_check, initramfs_check])?;
        Ok((Start::Boot(self.boot(kernel, initramfs)), check, Begin::Boot(why), notice))
    }

    fn boot(&self, kernel: File, initramfs: File) -> Boot {
        Boot { kernel, initramfs, command_line: images::COMMAND_LINE, begun: self.begun }
    }

    /// The template, made if need be.
    fn template(&self, signals: Option<&Signals>) -> Result<Found, Error> {
        if !self.kernel.is_edited() {
            return Ok(Err("a kernel without our edits cannot be frozen"));
        }
        if self.model.memory > LARGEST {
            return Ok(Err("its template would be too large"));
        }
        let machine = self.engine.boots_with(self.model, images::COMMAND_LINE)?;
        // Of this boot: the processor's counter has one rate in it, which a template's kernel was told.
        let key = TemplateKey::of(&self.kernel, &self.initramfs, &format!("{machine} {}", boot::id()?));
        if let Some(opened) = self.open(&key) {
            return Ok(Ok(opened));
        }
        let lock = match self.store.try_lock(Kind::Template) {
            Err(StoreError::Busy) => return Ok(Err("another run is making a template")),
            lock => lock.map_err(Error::Template)?,
        };
        // Whoever had the lock may just have made it.
        if let Some(opened) = self.open(&key) {
            return Ok(Ok(opened));
        }
        if lock.failed_lately() {
            return Ok(Err(
                "one could not be kept less than an hour ago; `images gc` makes room, and the next run tries again",
            ));
        }
        // All of both is checked first: a template outlives this run.
        let boot = self.boot(self.kernel.open()?, self.initramfs.open()?);
        let frozen = self.engine.freeze(self.model, boot, signals).map_err(|error| match error.signal() {
            Some(signal) => Error::Cancelled(signal),
            None => error.into(),
        })?;
        self.store.keep_template(&lock, &key, frozen.size(), || frozen.contents()).map_err(Error::Template)?;
        Ok(self.open(&key).ok_or("its template was gone at once"))
    }

    /// A template of the store. One that cannot be one is as good as none.
    fn open(&self, key: &TemplateKey) -> Option<Opened> {
        let (file, check) = self.store.template(key)?.begin().ok()?;
        Some((Template::open(file, self.model.memory).ok()??, check))
    }
}
