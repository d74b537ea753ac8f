//! The bucket of a schedule and its network: requests of all processes wait here until the scheduler chooses them.
//!
//! ```text
//!   process ─► store client ─► ticket ─┐                                        ┌─► objects in memory ─► response
//!   process ─► store client ─► ticket ─┴─ one at a time, in seeded random order ┴─► late puts ─ ─ ─► objects in memory
//! ```
//!
//! In: requests ([`StoreScheduler::ask`]). Out: a verdict for each, when [`StoreScheduler::step`] chooses the request.
//!
//! **Invariant:** the bucket does not change between two steps, so the schedule determines the order of all effects.
//! **Invariant:** after its crash a process has no effect, except by a put that was in flight.
//!
//! Requests from other threads than the schedule's do not wait (the Delta kernel reads and writes checkpoints on its own
//! thread): delaying them would block the pool that the schedule waits for. Faults and crashes affect them like others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::ThreadId;

use futures::FutureExt as _;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{Error, ObjectStore, PutMode, PutOptions, PutPayload, PutResult, Result};
use tokio::sync::oneshot;

use super::random::SeededRandom;
use super::store_faults::{FaultRates, Request, StoreAction, StoreOutcome};

/// A put in flight.
#[derive(Debug, Clone)]
pub(super) struct PendingPut {
    pub(super) path: Path,
    pub(super) payload: PutPayload,
    pub(super) options: PutOptions,
}

/// The scheduler's decision on a request.
#[derive(Debug)]
pub(super) enum PutVerdict {
    /// The read, list or delete may proceed.
    Go,
    /// The read or list may proceed, but its response is truncated.
    CutOff,
    /// The response to a put.
    Put(Result<PutResult>),
    Fail(Error),
}

/// A request that waits for the scheduler.
#[derive(Debug)]
struct RequestTicket {
    request: Request,
    outcome: StoreOutcome,
    delay: usize,
    put: Option<PendingPut>,
    answer: oneshot::Sender<PutVerdict>,
}

/// When a process crashes: during the last of this number of requests of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Death {
    /// Any request that waits for the scheduler.
    Turn(usize),
    /// Puts of log entries.
    Commit(usize),
    /// Requests of the Delta kernel for a checkpoint.
    Kernel(usize),
}

#[derive(Debug, Default)]
struct Process {
    turns: usize,
    commits: usize,
    kernels: usize,
    death: Option<Death>,
    dead: bool,
}

impl Process {
    /// Counts a request, and returns whether it is the last.
    fn dies_with(&mut self, request: &Request, waits: bool) -> bool {
        let (turn, commit) = (waits, waits && request.act == StoreAction::Create);
        self.turns += usize::from(turn);
        self.commits += usize::from(commit);
        self.kernels += usize::from(!waits);
        match self.death {
            Some(Death::Turn(last)) => turn && self.turns == last,
            Some(Death::Commit(last)) => commit && self.commits == last,
            Some(Death::Kernel(last)) => !waits && self.kernels == last,
            None => false,
        }
    }
}

/// The bucket.
#[derive(Debug)]
pub(super) struct StoreScheduler {
    pub(super) objects: Arc<InMemory>,
    weather: FaultRates,
    /// The schedule's own thread.
    thread: ThreadId,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    random: SeededRandom,
    calm: bool,
    processes: Vec<Process>,
    tickets: Vec<RequestTicket>,
    /// Late puts, with the number of steps until they arrive.
    late: Vec<(usize, PendingPut)>,
    numbers: BTreeMap<(usize, StoreAction, String), u32>,
    activity: u64,
    trace: Vec<String>,
}

impl StoreScheduler {
    /// Creates an empty bucket, whose schedule runs on this thread.
    pub(super) fn new(seed: u64) -> Self {
        let inner = Inner {
            random: SeededRandom::of(seed, "turns"),
            calm: false,
            processes: Vec::new(),
            tickets: Vec::new(),
            late: Vec::new(),
            numbers: BTreeMap::new(),
            activity: 0,
            trace: Vec::new(),
        };
        Self {
            objects: Arc::default(),
            weather: FaultRates::of(seed),
            thread: std::thread::current().id(),
            inner: Mutex::new(inner),
        }
    }

    /// Adds a process with the time of its crash. Returns its number.
    pub(super) fn enter(&self, death: Option<Death>) -> usize {
        let mut inner = self.lock();
        inner.processes.push(Process { death, ..Process::default() });
        inner.processes.len() - 1
    }

    /// Whether the process has crashed.
    pub(super) fn is_dead(&self, process: usize) -> bool {
        self.lock().processes[process].dead
    }

    /// Crashes the process immediately.
    pub(super) fn kill(&self, process: usize) {
        self.die(&mut self.lock(), process);
    }

    /// Ends all faults and crashes; late puts still arrive.
    pub(super) fn calm_down(&self) {
        let mut inner = self.lock();
        inner.calm = true;
        inner.processes.iter_mut().for_each(|process| process.death = None);
        inner.tickets.iter_mut().for_each(|ticket| (ticket.outcome, ticket.delay) = (StoreOutcome::Fine, 0));
    }

    /// A counter of requests.
    pub(super) fn activity(&self) -> u64 {
        self.lock().activity
    }

    /// Adds a line to the trace.
    pub(super) fn note(&self, what: impl FnOnce() -> String) {
        self.lock().trace.push(what());
    }

    /// The trace of all events.
    pub(super) fn trace(&self) -> Vec<String> {
        self.lock().trace.clone()
    }

    /// Gives one waiting request its verdict, if there is one, and applies the late puts that are due. If it is the last
    /// request before its process crashes, all requests of the process get a verdict.
    pub(super) fn step(&self) -> bool {
        let mut inner = self.lock();
        let (due, rest) = std::mem::take(&mut inner.late).into_iter().partition(|(steps, _)| *steps == 0);
        inner.late = rest;
        inner.late.iter_mut().for_each(|(steps, _)| *steps -= 1);
        self.arrive(&mut inner, due);
        // A caller that was dropped no longer reads.
        inner.tickets.retain(|ticket| ticket.put.is_some() || !ticket.answer.is_closed());
        inner.tickets.sort_by(|one, other| one.request.cmp(&other.request));
        let Some(least) = inner.tickets.iter().map(|ticket| ticket.delay).min() else { return false };
        let ready = inner.tickets.iter().enumerate().filter(|(_, ticket)| ticket.delay == least);
        let ready: Vec<usize> = ready.map(|(place, _)| place).collect();
        inner.tickets.iter_mut().for_each(|ticket| ticket.delay = ticket.delay.saturating_sub(1));
        let selection = inner.random.pick(&ready);
        let request = inner.tickets[selection].request.clone();
        if inner.processes[request.process].dies_with(&request, true) {
            self.die(&mut inner, request.process);
        } else {
            let ticket = inner.tickets.remove(selection);
            self.answer(&mut inner, ticket);
        }
        true
    }

    /// Applies all late puts.
    pub(super) fn arrive_all(&self) {
        let mut inner = self.lock();
        let late = std::mem::take(&mut inner.late);
        self.arrive(&mut inner, late);
    }

    /// Submits a request and waits for its verdict.
    pub(super) async fn ask(
        &self,
        process: usize,
        act: StoreAction,
        path: &Path,
        put: Option<PendingPut>,
    ) -> PutVerdict {
        let (answer, mut verdict) = oneshot::channel();
        {
            let mut inner = self.lock();
            if inner.processes[process].dead {
                return PutVerdict::Fail(failure("the process has crashed"));
            }
            inner.activity += 1;
            let place = Request::place(path);
            let number = inner.numbers.entry((process, act, place.clone())).or_default();
            let request = Request { process, act, place, number: *number };
            *number += 1;
            let outcome = if inner.calm { StoreOutcome::Fine } else { self.weather.outcome(&request) };
            let delay = if inner.calm { 0 } else { self.weather.delay(&request) };
            let ticket = RequestTicket { request, outcome, delay, put, answer };
            let waits = std::thread::current().id() == self.thread;
            let dies = !waits && inner.processes[process].dies_with(&ticket.request, false);
            if waits || dies {
                inner.tickets.push(ticket);
            } else {
                self.answer(&mut inner, ticket);
            }
            if dies {
                self.die(&mut inner, process);
            }
        }
        match verdict.try_recv() {
            Ok(verdict) => verdict,
            Err(_) => verdict.await.unwrap_or_else(|_| PutVerdict::Fail(failure("the schedule has ended"))),
        }
    }

    /// Crashes a process. Each of its requests in flight arrives, is lost, or arrives later.
    fn die(&self, inner: &mut Inner, process: usize) {
        if std::mem::replace(&mut inner.processes[process].dead, true) {
            return;
        }
        inner.trace.push(format!("process {process} dies"));
        let (mut own, others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut inner.tickets).into_iter().partition(|ticket| ticket.request.process == process);
        inner.tickets = others;
        own.sort_by(|one, other| one.request.cmp(&other.request));
        for ticket in own {
            let outcome =
                if ticket.put.is_some() { self.weather.at_death(&ticket.request) } else { StoreOutcome::Refused };
            self.answer(inner, RequestTicket { outcome, ..ticket });
        }
    }

    fn answer(&self, inner: &mut Inner, ticket: RequestTicket) {
        let RequestTicket { request, outcome, put, answer, .. } = ticket;
        let verdict = match put {
            None => match outcome {
                StoreOutcome::Fine => PutVerdict::Go,
                StoreOutcome::CutOff => PutVerdict::CutOff,
                // The caller itself performs these requests after its verdict, so any other outcome refuses the request.
                _ => PutVerdict::Fail(failure("refused")),
            },
            Some(put) => self.put(inner, outcome, put),
        };
        let outcome = match &verdict {
            PutVerdict::Put(Ok(_)) => "stored".to_owned(),
            PutVerdict::Put(Err(error)) => format!("{error}"),
            other => format!("{other:?}"),
        };
        let Request { process, act, place, number } = request;
        inner.trace.push(format!("{process} {act:?} {place} #{number}: {outcome:?}: {outcome}"));
        // The caller may have been dropped.
        let _gone = answer.send(verdict);
    }

    fn put(&self, inner: &mut Inner, outcome: StoreOutcome, put: PendingPut) -> PutVerdict {
        let answer = match outcome {
            StoreOutcome::Fine | StoreOutcome::CutOff => self.store(put),
            StoreOutcome::Refused => Err(failure("refused")),
            StoreOutcome::AnswerLost => self.store(put).and(Err(failure("the answer was lost"))),
            StoreOutcome::Late(steps) => {
                inner.late.push((steps, put));
                Err(failure("timed out"))
            }
            StoreOutcome::Retried => {
                let path = put.path.to_string();
                self.store(put).and(Err(Error::AlreadyExists { path, source: "a retry".into() }))
            }
            StoreOutcome::Rival => {
                self.rival(&put);
                self.store(put)
            }
        };
        PutVerdict::Put(answer)
    }

    /// Stores another writer's empty log entry of the same version, except as a table's first entry, which declares the table.
    fn rival(&self, put: &PendingPut) {
        let entry = put.path.filename().and_then(|name| name.strip_suffix(".json")?.parse::<u64>().ok());
        if entry.is_some_and(|version| version > 0) {
            let payload = "{\"commitInfo\":{\"operation\":\"WRITE\",\"engineInfo\":\"another\"}}\n".into();
            // If an entry exists already, the put loses to that.
            let _lost = self.store(PendingPut { payload, ..put.clone() });
        }
    }

    fn arrive(&self, inner: &mut Inner, late: Vec<(usize, PendingPut)>) {
        for (_, put) in late {
            let place = Request::place(&put.path);
            let outcome = self.store(put).map(drop);
            inner.trace.push(format!("a late put of {place} arrives: {outcome:?}"));
        }
    }

    fn store(&self, put: PendingPut) -> Result<PutResult> {
        let PendingPut { path, payload, options } = put;
        self.objects.put_opts(&path, payload, options).now_or_never().expect("the in-memory store responds immediately")
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }
}

impl PendingPut {
    /// The kind of the put.
    pub(super) fn act(&self) -> StoreAction {
        if self.options.mode == PutMode::Create { StoreAction::Create } else { StoreAction::Put }
    }
}

/// The error of a request that failed permanently.
pub(super) fn failure(what: &'static str) -> Error {
    Error::Generic { store: "bucket", source: what.into() }
}
