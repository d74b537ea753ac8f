//! The bucket of a schedule, and the simulated network between the bucket and the processes. Requests from all
//! processes are queued here until the scheduler chooses them.
//!
//! ```text
//!   process ─► store client ─► queue ─┐                                        ┌─► objects in memory ─► response
//!   process ─► store client ─► queue ─┴─ one at a time, in seeded random order ┴─► late puts ─ ─ ─► objects in memory
//! ```
//!
//! A process submits a request with [`StoreScheduler::ask`]. The scheduler decides the outcome when
//! [`StoreScheduler::step`] chooses the request.
//!
//! **Invariant:** the bucket does not change between two steps, so the schedule determines the order of all effects.
//! **Invariant:** after a process has crashed, only the puts that it had in flight can still take effect.
//!
//! The Delta kernel reads and writes checkpoints on a thread of the blocking pool. Its requests are not queued: a
//! queued request would block that thread, and the schedule, which waits until the pool is idle, would never choose it.
//! Faults and crashes affect these requests too.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::ThreadId;

use bytes::Bytes;
use futures::FutureExt as _;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload, PutResult, Result};
use tokio::sync::oneshot;

use super::random::SeededRandom;
use super::store_faults::{FaultRates, Request, StoreAction, StoreOutcome};
use crate::clock::{Clock, Micros};

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
    /// The caller must perform the read, list or delete itself.
    Go,
    /// The caller must perform the read or list itself, and truncate the response.
    CutOff,
    /// The result of the put, which the scheduler performs itself.
    Put(Result<PutResult>),
    /// The request fails.
    Fail(Error),
}

/// An object that was deleted.
#[derive(Debug, Clone)]
pub(super) struct DeletedObject {
    pub(super) bytes: Bytes,
    /// The time at which it was stored.
    pub(super) modified: Micros,
    /// The time at which it was deleted.
    pub(super) deleted: Micros,
}

/// A request that is waiting for the scheduler to choose it.
#[derive(Debug)]
struct QueuedRequest {
    request: Request,
    outcome: StoreOutcome,
    /// The number of other requests that the scheduler may still choose before this one.
    delay: usize,
    put: Option<PendingPut>,
    /// The object to delete.
    delete: Option<Path>,
    response: oneshot::Sender<PutVerdict>,
}

/// Determines when a process crashes: during its n-th request of this kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CrashPoint {
    /// During any queued request.
    QueuedRequest(usize),
    /// During the put of a log entry.
    Commit(usize),
    /// During a checkpoint request from the Delta kernel.
    KernelRequest(usize),
}

/// A process, and how many requests of each kind it has sent.
#[derive(Debug, Default)]
struct Process {
    queued_requests: usize,
    commits: usize,
    kernel_requests: usize,
    crash_point: Option<CrashPoint>,
    has_crashed: bool,
}

impl Process {
    /// Counts a request. Returns true if the process must crash during this request.
    fn crashes_at(&mut self, request: &Request, is_queued: bool) -> bool {
        let is_commit = is_queued && request.action == StoreAction::Create;
        self.queued_requests += usize::from(is_queued);
        self.commits += usize::from(is_commit);
        self.kernel_requests += usize::from(!is_queued);
        match self.crash_point {
            Some(CrashPoint::QueuedRequest(last)) => is_queued && self.queued_requests == last,
            Some(CrashPoint::Commit(last)) => is_commit && self.commits == last,
            Some(CrashPoint::KernelRequest(last)) => !is_queued && self.kernel_requests == last,
            None => false,
        }
    }
}

/// The bucket, and the scheduler for all requests to it.
#[derive(Debug)]
pub(super) struct StoreScheduler {
    pub(super) objects: Arc<InMemory>,
    fault_rates: FaultRates,
    /// The clock from which objects get their modification times.
    clock: Clock,
    /// The thread on which the schedule runs.
    thread: ThreadId,
    inner: Mutex<Inner>,
    history: Mutex<History>,
}

/// The modification times of all objects, and the objects that were deleted.
#[derive(Debug, Default)]
struct History {
    modified: BTreeMap<String, Micros>,
    /// For each path, the first object that was deleted.
    deleted: BTreeMap<String, DeletedObject>,
}

/// The state that the scheduler's lock protects.
#[derive(Debug)]
struct Inner {
    random: SeededRandom,
    faults_ended: bool,
    processes: Vec<Process>,
    queue: Vec<QueuedRequest>,
    /// The late puts, and the number of steps after which each of them takes effect.
    late: Vec<(usize, PendingPut)>,
    /// The late deletes, like the late puts.
    late_deletes: Vec<(usize, Path)>,
    /// The processes that sleep, and the number of steps after which each of them continues. Their requests wait.
    asleep: BTreeMap<usize, usize>,
    /// For each process, action and object, the number of requests so far.
    numbers: BTreeMap<(usize, StoreAction, String), u32>,
    request_count: u64,
    trace: Vec<String>,
}

impl StoreScheduler {
    /// Creates an empty bucket. The calling thread must be the one that runs the schedule.
    pub(super) fn new(seed: u64, clock: Clock) -> Self {
        let inner = Inner {
            random: SeededRandom::of(seed, "turns"),
            faults_ended: false,
            processes: Vec::new(),
            queue: Vec::new(),
            late: Vec::new(),
            late_deletes: Vec::new(),
            asleep: BTreeMap::new(),
            numbers: BTreeMap::new(),
            request_count: 0,
            trace: Vec::new(),
        };
        Self {
            objects: Arc::default(),
            fault_rates: FaultRates::of(seed),
            clock,
            thread: std::thread::current().id(),
            inner: Mutex::new(inner),
            history: Mutex::default(),
        }
    }

    /// Adds a process that crashes at `crash_point`. Returns the number of the process.
    pub(super) fn add_process(&self, crash_point: Option<CrashPoint>) -> usize {
        let mut inner = self.lock();
        inner.processes.push(Process { crash_point, ..Process::default() });
        inner.processes.len() - 1
    }

    /// Returns true if the process has crashed.
    pub(super) fn has_crashed(&self, process: usize) -> bool {
        self.lock().processes[process].has_crashed
    }

    /// Crashes the process immediately.
    pub(super) fn crash_now(&self, process: usize) {
        self.crash(&mut self.lock(), process);
    }

    /// Stops the injection of faults and crashes. Puts that are already late still take effect.
    pub(super) fn end_faults(&self) {
        let mut inner = self.lock();
        inner.faults_ended = true;
        inner.asleep.clear();
        inner.processes.iter_mut().for_each(|process| process.crash_point = None);
        inner.queue.iter_mut().for_each(|queued| (queued.outcome, queued.delay) = (StoreOutcome::Fine, 0));
    }

    /// Returns the number of requests so far.
    pub(super) fn request_count(&self) -> u64 {
        self.lock().request_count
    }

    /// Adds a line to the trace.
    pub(super) fn trace_line(&self, what: impl FnOnce() -> String) {
        self.lock().trace.push(what());
    }

    /// Returns the trace, which contains one line per event.
    pub(super) fn trace(&self) -> Vec<String> {
        self.lock().trace.clone()
    }

    /// Applies the late puts that are due, and decides the outcome of one queued request. If the process that sent the
    /// request crashes, also decides the outcomes of all its other queued requests. Returns false if no request is
    /// queued.
    pub(super) fn step(&self) -> bool {
        let mut inner = self.lock();
        let (due, rest) = std::mem::take(&mut inner.late).into_iter().partition(|(steps, _)| *steps == 0);
        inner.late = rest;
        inner.late.iter_mut().for_each(|(steps, _)| *steps -= 1);
        self.arrive(&mut inner, due);
        let (due, rest) = std::mem::take(&mut inner.late_deletes).into_iter().partition(|(steps, _)| *steps == 0);
        inner.late_deletes = rest;
        inner.late_deletes.iter_mut().for_each(|(steps, _)| *steps -= 1);
        self.arrive_deletes(&mut inner, due);
        inner.asleep.retain(|_, steps| {
            *steps = steps.saturating_sub(1);
            *steps > 0
        });
        // Drop the requests of callers that are no longer waiting. Keep puts in flight, because they may still take
        // effect.
        inner.queue.retain(|queued| queued.put.is_some() || queued.delete.is_some() || !queued.response.is_closed());
        if inner.queue.iter().all(|queued| inner.asleep.contains_key(&queued.request.process)) {
            inner.asleep.clear();
        }
        inner.queue.sort_by(|one, other| one.request.cmp(&other.request));
        let is_awake = |queued: &&QueuedRequest| !inner.asleep.contains_key(&queued.request.process);
        let Some(shortest) = inner.queue.iter().filter(is_awake).map(|queued| queued.delay).min() else { return false };
        let ready = inner.queue.iter().enumerate();
        let ready = ready.filter(|(_, queued)| is_awake(queued) && queued.delay == shortest);
        let ready: Vec<usize> = ready.map(|(index, _)| index).collect();
        inner.queue.iter_mut().for_each(|queued| queued.delay = queued.delay.saturating_sub(1));
        let chosen_index = inner.random.pick(&ready);
        let request = inner.queue[chosen_index].request.clone();
        if inner.processes[request.process].crashes_at(&request, true) {
            self.crash(&mut inner, request.process);
        } else {
            let queued = inner.queue.remove(chosen_index);
            self.send_verdict(&mut inner, queued);
        }
        true
    }

    /// Applies all late puts.
    pub(super) fn arrive_all(&self) {
        let mut inner = self.lock();
        let late = std::mem::take(&mut inner.late);
        self.arrive(&mut inner, late);
        let deletes = std::mem::take(&mut inner.late_deletes);
        self.arrive_deletes(&mut inner, deletes);
    }

    /// Lets a process sleep for this number of steps. Its requests in flight wait until then.
    pub(super) fn sleep(&self, process: usize, steps: usize) {
        self.lock().asleep.insert(process, steps);
    }

    /// Returns the time at which an object was stored.
    pub(super) fn modified(&self, path: &Path) -> Option<Micros> {
        self.history().modified.get(path.as_ref()).copied()
    }

    /// Returns the objects that were deleted, by path.
    pub(super) fn deleted(&self) -> BTreeMap<String, DeletedObject> {
        self.history().deleted.clone()
    }

    /// Returns a copy of the bucket in which nothing was deleted.
    pub(super) fn archive(&self) -> InMemory {
        let archive = self.objects.fork();
        for (path, object) in self.deleted() {
            let path = Path::from(path);
            let put = archive.put(&path, object.bytes.into());
            put.now_or_never().expect("the in-memory store responds immediately").unwrap();
        }
        archive
    }

    /// Performs a request immediately, without faults.
    pub(super) fn perform(&self, action: StoreAction, path: &Path, put: Option<PendingPut>) -> PutVerdict {
        match put {
            Some(put) => PutVerdict::Put(self.store(put)),
            None => {
                if action == StoreAction::Delete {
                    self.delete(path);
                }
                PutVerdict::Go
            }
        }
    }

    /// Submits a request and waits for the scheduler's decision.
    pub(super) async fn ask(
        &self,
        process: usize,
        action: StoreAction,
        path: &Path,
        put: Option<PendingPut>,
    ) -> PutVerdict {
        let (response, mut verdict) = oneshot::channel();
        {
            let mut inner = self.lock();
            if inner.processes[process].has_crashed {
                return PutVerdict::Fail(failure("the process has crashed"));
            }
            inner.request_count += 1;
            let object = Request::object(path);
            let number = inner.numbers.entry((process, action, object.clone())).or_default();
            let request = Request { process, action, object, number: *number };
            *number += 1;
            let outcome = if inner.faults_ended { StoreOutcome::Fine } else { self.fault_rates.outcome(&request) };
            let delay = if inner.faults_ended { 0 } else { self.fault_rates.delay(&request) };
            let delete = (action == StoreAction::Delete).then(|| path.clone());
            let queued = QueuedRequest { request, outcome, delay, put, delete, response };
            let is_queued = std::thread::current().id() == self.thread;
            let crashes = !is_queued && inner.processes[process].crashes_at(&queued.request, false);
            if is_queued || crashes {
                inner.queue.push(queued);
            } else {
                self.send_verdict(&mut inner, queued);
            }
            if crashes {
                self.crash(&mut inner, process);
            }
        }
        match verdict.try_recv() {
            Ok(verdict) => verdict,
            Err(_) => verdict.await.unwrap_or_else(|_| PutVerdict::Fail(failure("the schedule has ended"))),
        }
    }

    /// Crashes a process. Each put that the process has in flight takes effect, is lost, or takes effect later.
    fn crash(&self, inner: &mut Inner, process: usize) {
        if std::mem::replace(&mut inner.processes[process].has_crashed, true) {
            return;
        }
        inner.trace.push(format!("process {process} crashes"));
        let (mut requests, others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut inner.queue).into_iter().partition(|queued| queued.request.process == process);
        inner.queue = others;
        requests.sort_by(|one, other| one.request.cmp(&other.request));
        for queued in requests {
            let outcome = if queued.put.is_some() || queued.delete.is_some() {
                self.fault_rates.outcome_at_crash(&queued.request)
            } else {
                StoreOutcome::Refused
            };
            self.send_verdict(inner, QueuedRequest { outcome, ..queued });
        }
    }

    fn send_verdict(&self, inner: &mut Inner, queued: QueuedRequest) {
        let QueuedRequest { request, outcome, put, delete, response, .. } = queued;
        let verdict = match (put, delete) {
            (None, Some(path)) => self.delete_with(inner, outcome, path),
            (None, None) => match outcome {
                StoreOutcome::Fine => PutVerdict::Go,
                StoreOutcome::CutOff => PutVerdict::CutOff,
                // For read and list requests, every other outcome is a failure.
                _ => PutVerdict::Fail(failure("refused")),
            },
            (Some(put), _) => self.put(inner, outcome, put),
        };
        let outcome = match &verdict {
            PutVerdict::Put(Ok(_)) => "stored".to_owned(),
            PutVerdict::Put(Err(error)) => format!("{error}"),
            other => format!("{other:?}"),
        };
        let Request { process, action, object, number } = request;
        inner.trace.push(format!("{process} {action:?} {object} #{number}: {outcome:?}: {outcome}"));
        // Sending fails if the caller was dropped. If the request is a put, the store has already executed or refused
        // it.
        let _dropped = response.send(verdict);
    }

    fn put(&self, inner: &mut Inner, outcome: StoreOutcome, put: PendingPut) -> PutVerdict {
        let response = match outcome {
            StoreOutcome::Fine | StoreOutcome::CutOff => self.store(put),
            StoreOutcome::Refused => Err(failure("refused")),
            StoreOutcome::ResponseLost => self.store(put).and(Err(failure("the response was lost"))),
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
        PutVerdict::Put(response)
    }

    fn delete_with(&self, inner: &mut Inner, outcome: StoreOutcome, path: Path) -> PutVerdict {
        match outcome {
            StoreOutcome::Fine => {
                self.delete(&path);
                PutVerdict::Go
            }
            StoreOutcome::ResponseLost => {
                self.delete(&path);
                PutVerdict::Fail(failure("the response was lost"))
            }
            StoreOutcome::Late(steps) => {
                inner.late_deletes.push((steps, path));
                PutVerdict::Fail(failure("timed out"))
            }
            _ => PutVerdict::Fail(failure("refused")),
        }
    }

    fn arrive_deletes(&self, inner: &mut Inner, deletes: Vec<(usize, Path)>) {
        for (_, path) in deletes {
            inner.trace.push(format!("a late delete of {} arrives", Request::object(&path)));
            self.delete(&path);
        }
    }

    /// Deletes an object, and keeps its content in the history.
    fn delete(&self, path: &Path) {
        let now_or_never = "the in-memory store responds immediately";
        let Ok(found) = self.objects.get(path).now_or_never().expect(now_or_never) else { return };
        let bytes = found.bytes().now_or_never().expect(now_or_never).unwrap();
        self.objects.delete(path).now_or_never().expect(now_or_never).unwrap();
        let mut history = self.history();
        let modified = history.modified.get(path.as_ref()).copied().unwrap_or_default();
        let object = DeletedObject { bytes, modified, deleted: self.clock.now() };
        history.deleted.entry(path.to_string()).or_insert(object);
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap()
    }

    /// Stores an empty log entry with the same version, as if another writer had committed it. Does nothing if the put
    /// creates the first entry of a table, because an empty first entry would be invalid.
    fn rival(&self, put: &PendingPut) {
        let entry = put.path.filename().and_then(|name| name.strip_suffix(".json")?.parse::<u64>().ok());
        if entry.is_some_and(|version| version > 0) {
            let payload = "{\"commitInfo\":{\"operation\":\"WRITE\",\"engineInfo\":\"another\"}}\n".into();
            // If another entry with this version already exists, it stays unchanged.
            let _conflict = self.store(PendingPut { payload, ..put.clone() });
        }
    }

    fn arrive(&self, inner: &mut Inner, late: Vec<(usize, PendingPut)>) {
        for (_, put) in late {
            let object = Request::object(&put.path);
            let outcome = self.store(put).map(drop);
            inner.trace.push(format!("a late put of {object} arrives: {outcome:?}"));
        }
    }

    fn store(&self, put: PendingPut) -> Result<PutResult> {
        let PendingPut { path, payload, options } = put;
        let stored = self.objects.put_opts(&path, payload, options).now_or_never();
        let stored = stored.expect("the in-memory store responds immediately")?;
        self.history().modified.insert(path.to_string(), self.clock.now());
        Ok(stored)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }
}

impl PendingPut {
    /// Returns `Create` for a conditional put, and `Put` for an unconditional put.
    pub(super) fn action(&self) -> StoreAction {
        if self.options.mode == PutMode::Create { StoreAction::Create } else { StoreAction::Put }
    }
}

/// Creates the error for a failed request. The client does not retry errors of this kind on its own.
pub(super) fn failure(what: &'static str) -> Error {
    Error::Generic { store: "bucket", source: what.into() }
}
