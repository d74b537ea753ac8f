//! What becomes of one request to the store: told by the seed and by what the request is, not by when it comes.
//!
//! In: a [`Request`]. Out: its [`StoreOutcome`], its delay, and what becomes of it when its process dies meanwhile.
//!
//! Only what a store with strong consistency and conditional puts can do: requests fail before or after their effect, answers
//! stop in the middle, puts arrive late. What is stored is listed and read from then on, and a conditional put never
//! replaces anything.

use object_store::path::Path;

use super::random::SeededRandom;

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum StoreAction {
    /// Stores an object where there is none.
    Create,
    /// Stores an object.
    Put,
    Get,
    List,
    Delete,
}

/// One request, by names that are the same in every run of its schedule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Request {
    pub(super) process: usize,
    pub(super) act: StoreAction,
    /// The object; for data files, whose names are random, their folder.
    pub(super) place: String,
    /// How many like it this process has sent before.
    pub(super) number: u32,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StoreOutcome {
    /// It works.
    Fine,
    /// It fails and has no effect.
    Refused,
    /// It has its effect, and fails all the same.
    AnswerLost,
    /// A put that fails, and has its effect after so many further requests.
    Late(usize),
    /// A conditional put that the client sent twice: the second finds the first, and the answer is that it lost.
    Retried,
    /// A conditional put that loses to another writer's.
    Rival,
    /// An answer that stops in the middle.
    CutOff,
}

/// How often something goes wrong in one schedule.
#[derive(Debug, Clone, Copy)]
pub(super) struct FaultRates {
    seed: u64,
    faults_percent: usize,
    slow_percent: usize,
}

/// After how many requests a late put arrives, at most: while its sender still tries, or when the next process is at work.
const LATE_MAX: [usize; 2] = [8, 80];
/// How many others may pass a slow request.
const SLOW_MAX: usize = 25;

impl Request {
    /// What an object is called in a request: its path, or the folder of a data file.
    pub(super) fn place(path: &Path) -> String {
        let path = path.as_ref();
        match path.rsplit_once("/part-") {
            Some((folder, _)) => folder.to_owned(),
            None => path.to_owned(),
        }
    }
}

impl FaultRates {
    /// The weather of a schedule: from none to a storm.
    pub(super) fn of(seed: u64) -> Self {
        let mut random = SeededRandom::of(seed, "weather");
        Self { seed, faults_percent: random.pick(&[0, 3, 8, 15, 30]), slow_percent: random.pick(&[0, 5, 20, 50]) }
    }

    /// What becomes of it.
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

    /// How many others may pass it.
    pub(super) fn delay(&self, request: &Request) -> usize {
        let mut random = SeededRandom::of(self.seed, ("delay", request));
        if random.percent(self.slow_percent) { random.below(SLOW_MAX) } else { 0 }
    }

    /// What becomes of it when its process dies before the answer: it arrives, it does not, or it arrives when the next
    /// process is at work.
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
