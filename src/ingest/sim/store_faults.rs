//! The outcome of each request to the store. It depends on the seed and on the request, not on the request's time.
//!
//! In: a [`Request`]. Out: its [`StoreOutcome`], its delay, and its outcome if its process crashes meanwhile.
//!
//! The faults are those of a store with strong consistency and conditional puts: requests fail before or after their effect,
//! responses are truncated, puts arrive late. A stored object is visible to every later list and read, and a conditional put
//! never replaces an object.

use object_store::path::Path;

use super::random::SeededRandom;

/// The kind of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum StoreAction {
    /// A conditional put, which stores an object only if none exists.
    Create,
    /// An unconditional put.
    Put,
    Get,
    List,
    Delete,
}

/// The identity of a request, which is the same in every run of its schedule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Request {
    pub(super) process: usize,
    pub(super) act: StoreAction,
    /// The object's path; for data files, whose names are random, their folder.
    pub(super) place: String,
    /// The number of similar requests that this process has sent before.
    pub(super) number: u32,
}

/// The outcome of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StoreOutcome {
    /// The request succeeds.
    Fine,
    /// The request fails and has no effect.
    Refused,
    /// The request takes effect, but the client gets an error.
    AnswerLost,
    /// A put that fails, and takes effect after this number of further requests.
    Late(usize),
    /// A conditional put that the client sent twice: the second finds the first, so the response is a conflict.
    Retried,
    /// A conditional put that loses to another writer.
    Rival,
    /// A truncated response.
    CutOff,
}

/// The fault rates of one schedule.
#[derive(Debug, Clone, Copy)]
pub(super) struct FaultRates {
    seed: u64,
    faults_percent: usize,
    slow_percent: usize,
}

/// The maximum number of requests before a late put arrives: while its sender still retries, or after the next process started.
const LATE_MAX: [usize; 2] = [8, 80];
/// The number of requests that may overtake a slow request.
const SLOW_MAX: usize = 25;

impl Request {
    /// The name of an object in a request: its path, or the folder of a data file.
    pub(super) fn place(path: &Path) -> String {
        let path = path.as_ref();
        match path.rsplit_once("/part-") {
            Some((folder, _)) => folder.to_owned(),
            None => path.to_owned(),
        }
    }
}

impl FaultRates {
    /// The fault rates of a schedule, from none to many.
    pub(super) fn of(seed: u64) -> Self {
        let mut random = SeededRandom::of(seed, "weather");
        Self { seed, faults_percent: random.pick(&[0, 3, 8, 15, 30]), slow_percent: random.pick(&[0, 5, 20, 50]) }
    }

    /// The outcome of a request.
    pub(super) fn outcome(&self, request: &Request) -> StoreOutcome {
        let mut random = SeededRandom::of(self.seed, ("fate", request));
        if !random.percent(self.faults_percent) {
            return StoreOutcome::Fine;
        }
        let late = late(&mut random);
        match request.act {
            StoreAction::Create => random.pick(&[
                StoreOutcome::Refused,
                StoreOutcome::AnswerLost,
                late,
                late,
                StoreOutcome::Retried,
                StoreOutcome::Rival,
            ]),
            StoreAction::Put => random.pick(&[StoreOutcome::Refused, StoreOutcome::AnswerLost, late]),
            StoreAction::Get | StoreAction::List => random.pick(&[StoreOutcome::Refused, StoreOutcome::CutOff]),
            StoreAction::Delete => random.pick(&[StoreOutcome::Refused, StoreOutcome::AnswerLost]),
        }
    }

    /// The number of requests that may overtake it.
    pub(super) fn delay(&self, request: &Request) -> usize {
        let mut random = SeededRandom::of(self.seed, ("delay", request));
        if random.percent(self.slow_percent) { random.below(SLOW_MAX) } else { 0 }
    }

    /// The outcome of a request whose process crashes before the response: it arrives, it does not, or it arrives after the
    /// next process started.
    pub(super) fn at_death(&self, request: &Request) -> StoreOutcome {
        let mut random = SeededRandom::of(self.seed, ("death", request));
        let late = late(&mut random);
        random.pick(&[StoreOutcome::AnswerLost, StoreOutcome::Refused, late, late])
    }
}

fn late(random: &mut SeededRandom) -> StoreOutcome {
    let most = random.pick(&LATE_MAX);
    StoreOutcome::Late(1 + random.below(most))
}
