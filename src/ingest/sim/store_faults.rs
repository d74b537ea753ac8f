//! Determines the outcome of each request to the store.
//!
//! The seed and the [`Request`] determine the delay of the request, its outcome, and its outcome if the process
//! crashes. The time at which the request is sent has no influence on these values.
//!
//! Requests fail before or after they take effect, responses are truncated, and puts arrive late. The store is
//! nevertheless strongly consistent: every later list and read sees a stored object, and a conditional put never
//! replaces an object.

use object_store::path::Path;

use super::random::SeededRandom;

/// The kind of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum StoreAction {
    /// A conditional put, which stores an object only if there is no object with the same name.
    Create,
    /// An unconditional put.
    Put,
    Get,
    List,
    Delete,
}

/// Identifies a request. The values are the same in every run of the schedule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Request {
    pub(super) process: usize,
    pub(super) action: StoreAction,
    /// The path of the object, or only the folder if the object is a data file, because the names of data files are
    /// random.
    pub(super) object: String,
    /// The number of earlier requests of the process with the same action and object.
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
    ResponseLost,
    /// The client gets an error, but the put or delete takes effect after this number of steps.
    Late(usize),
    /// The client sends a conditional put twice. The second attempt finds the object from the first attempt, so the
    /// response is a conflict.
    Retried,
    /// A conditional put fails because another writer stored the object first.
    Rival,
    /// The client gets a truncated response.
    CutOff,
}

/// The fault rates of one schedule.
#[derive(Debug, Clone, Copy)]
pub(super) struct FaultRates {
    seed: u64,
    faults_percent: usize,
    slow_percent: usize,
}

/// Upper bounds for the number of steps after which a late put takes effect. After at most 8 steps, the sender of the
/// put is usually still retrying. After up to 80 steps, the next process has often started.
const LATE_MAX: [usize; 2] = [8, 80];
/// The maximum number of other requests that the scheduler may choose before a slow request.
const SLOW_MAX: usize = 25;

impl Request {
    /// Returns the path of an object. For a data file, returns its folder.
    pub(super) fn object(path: &Path) -> String {
        let path = path.as_ref();
        match path.rsplit_once("/part-") {
            Some((folder, _)) => folder.to_owned(),
            None => path.to_owned(),
        }
    }
}

impl FaultRates {
    /// Creates the fault rates for a schedule. Some schedules have no faults.
    pub(super) fn of(seed: u64) -> Self {
        let mut random = SeededRandom::of(seed, "weather");
        Self { seed, faults_percent: random.pick(&[0, 3, 8, 15, 30]), slow_percent: random.pick(&[0, 5, 20, 50]) }
    }

    /// Returns the outcome of a request.
    pub(super) fn outcome(&self, request: &Request) -> StoreOutcome {
        let mut random = SeededRandom::of(self.seed, ("fate", request));
        if !random.percent(self.faults_percent) {
            return StoreOutcome::Fine;
        }
        let late = late(&mut random);
        match request.action {
            StoreAction::Create => random.pick(&[
                StoreOutcome::Refused,
                StoreOutcome::ResponseLost,
                late,
                late,
                StoreOutcome::Retried,
                StoreOutcome::Rival,
            ]),
            StoreAction::Put => random.pick(&[StoreOutcome::Refused, StoreOutcome::ResponseLost, late]),
            StoreAction::Get | StoreAction::List => random.pick(&[StoreOutcome::Refused, StoreOutcome::CutOff]),
            StoreAction::Delete => random.pick(&[StoreOutcome::Refused, StoreOutcome::ResponseLost, late]),
        }
    }

    /// Returns the number of other requests that the scheduler may choose before this one.
    pub(super) fn delay(&self, request: &Request) -> usize {
        let mut random = SeededRandom::of(self.seed, ("delay", request));
        if random.percent(self.slow_percent) { random.below(SLOW_MAX) } else { 0 }
    }

    /// Returns the outcome of a request that is in flight when its process crashes. The request may have no effect,
    /// take effect immediately, or take effect later, possibly after the next process has started.
    pub(super) fn outcome_at_crash(&self, request: &Request) -> StoreOutcome {
        let mut random = SeededRandom::of(self.seed, ("death", request));
        let late = late(&mut random);
        random.pick(&[StoreOutcome::ResponseLost, StoreOutcome::Refused, late, late])
    }
}

fn late(random: &mut SeededRandom) -> StoreOutcome {
    let most = random.pick(&LATE_MAX);
    StoreOutcome::Late(1 + random.below(most))
}
