// SPDX-License-Identifier: Apache-2.0
//! A machine that is kept for several commands, one after the other or at the same time.
//!
//! A thread of its own starts the machine and watches it to its end ([`Keeper`]): the kernel ends a machine with the
//! thread that started it. Each command has another, with a conversation, streams and a [`Watch`] of its own, as if it
//! were alone; what they share is the machine's [`Fate`]. Not for how a caller describes a command: [`crate::library`].

mod keeper;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

use super::ground::{Fate, Ground};
use super::met;
use super::watch::{Furnished, Real, Watch};
use super::{Error, Lines, Outcome, Relays, Streams};
use crate::outcome::Cause;
use crate::packets::{self, Packets};
use crate::relay::Bell;
use crate::session::Session;
use crate::spec::Spec;
use crate::stages::Stages;
use crate::sys::eventfd;
use crate::sys::signals::{self, Signals};
use crate::terminal::Terminal;
use crate::virtio::vsock::supply;
use keeper::Keeper;

/// What the keeper is told.
#[derive(Debug)]
enum Order {
    /// Have guest init serve the command of this number.
    Beside(u32),
    /// End the machine.
    End,
}

/// A machine that is kept. Dropping it ends it, and all that runs in it.
#[derive(Debug)]
pub(crate) struct Kept {
    keeper: Option<JoinHandle<()>>,
    orders: Sender<Order>,
    bell: Bell,
    supply: Packets,
    fate: Arc<Fate>,
    /// The number of the next command.
    next: AtomicU32,
}

/// What a running command tells.
#[derive(Debug)]
pub(crate) enum News {
    /// Its program runs.
    Started,
    /// It has ended, or could not be run.
    Ended(Box<Outcome>),
}

/// A command that has been sent.
#[derive(Debug)]
pub(crate) struct Sent {
    /// Tells what becomes of it.
    pub(crate) news: Receiver<News>,
    /// Sends it signals.
    pub(crate) signals: signals::Sender,
}

impl Kept {
    /// Starts a machine for commands like this one, and waits until it can take the first.
    ///
    /// # Errors
    /// What became of it instead, with what its console said.
    pub(crate) fn boot(spec: &Spec) -> Result<(Self, Outcome), Box<Outcome>> {
        let refused = |error: Error| Box::new(Outcome::refused(error.cause(), Stages::begin()));
        let make = || -> Result<_, Error> {
            let (supply, theirs) = packets::pair().map_err(io::Error::other)?;
            let (bell, fate) = (Arc::new(eventfd::create().map_err(io::Error::from)?), Arc::new(Fate::new()?));
            let (orders, inbox) = mpsc::channel();
            let (ready, booted) = mpsc::channel();
            let keeper = Keeper { bell: Arc::clone(&bell), orders: inbox, fate: Arc::clone(&fate) };
            let own = spec.clone();
            let work = move || match signals::outlive_file_limit() {
                Ok(()) => keeper.run(&own, theirs, &ready),
                Err(error) => {
                    drop(ready.send(Err(Box::new(Outcome::refused(Error::from(error).cause(), Stages::begin())))))
                }
            };
            let keeper = Some(thread::Builder::new().name("machine".to_owned()).spawn(work)?);
            Ok((Self { keeper, orders, bell, supply, fate, next: AtomicU32::new(1) }, booted))
        };
        let (kept, booted) = make().map_err(refused)?;
        match booted.recv() {
            Ok(Ok(outcome)) => Ok((kept, *outcome)),
            Ok(Err(outcome)) => Err(outcome),
            Err(mpsc::RecvError) => Err(refused(io::Error::other("the machine's thread panicked").into())),
        }
    }

    /// Runs a command beside others. If the caller goes on `using` its standard input itself, none of it is taken once the
    /// command wants no more.
    ///
    /// # Errors
    /// If it could not even be sent.
    pub(crate) fn start(&self, spec: Spec, streams: Streams, using: bool) -> io::Result<Sent> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (lines, ports) = Lines::new(number)?;
        supply::send(&self.supply, &ports).map_err(io::Error::other)?;
        // Ours again: what ends them is the device.
        drop(ports);
        let (signals, sender) = Signals::of_threads()?;
        let (tell, news) = mpsc::channel();
        let fate = Arc::clone(&self.fate);
        let (control, relays) = lines.connect(streams, spec.output_limit, None, using)?;
        let session = Session::new(control)?;
        let work = move || {
            let outcome = attend(&spec, session, &relays, &signals, &fate, &tell);
            // Nobody may care any more.
            drop(tell.send(News::Ended(Box::new(outcome))));
        };
        thread::Builder::new().name(format!("command {number}")).spawn(work)?;
        self.order(Order::Beside(number));
        Ok(Sent { news, signals: sender })
    }

    /// Why the machine has ended, if it has.
    pub(crate) fn ended(&self) -> Option<Cause> {
        self.fate.sealed()
    }

    fn order(&self, order: Order) {
        // A keeper that is gone has sealed the machine's fate, which every command watches.
        if self.orders.send(order).is_ok() {
            let _never_full = eventfd::signal(&self.bell);
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.order(Order::End);
        if let Some(keeper) = self.keeper.take() {
            // A panic in it has been printed, and the machine ended with it.
            drop(keeper.join());
        }
    }
}

/// Watches a command to its end.
fn attend(
    spec: &Spec,
    session: Session,
    relays: &Relays,
    signals: &Signals,
    fate: &Fate,
    tell: &Sender<News>,
) -> Outcome {
    let mut outcome = Outcome::refused(Cause::SetupError(String::new()), Stages::begin());
    let started = || drop(tell.send(News::Started));
    let mut terminal = Terminal::none();
    let world = Real { session, relays, signals: Some(signals), ground: &mut Ground::Shared(fate) };
    let mut watch = Watch::new(spec, world, Furnished::Already, &mut terminal).on_start(started);
    let watched = watch.until_the_end(&mut outcome);
    // With its conversation ends whatever is left of the command.
    drop(watch);
    let settle = || -> Result<Cause, Error> {
        let mut cause = watched?;
        relays.settle(&mut outcome, &mut cause)?;
        outcome.stages.end("end");
        // Whom the kernel kills it says on the console, which is all commands'.
        met::name_victim(&mut cause, &outcome.tally, &[]);
        outcome.hits = met::hits(spec, &cause, &outcome.tally, &[]);
        Ok(cause)
    };
    let cause = settle();
    outcome.cause = cause.unwrap_or_else(|error| error.cause());
    outcome
}
