//! What becomes of one request to the store: told by the seed and by what the request is, not by when it comes.
//!
//! In: a [`Request`]. Out: its [`Fate`], its delay, and what becomes of it when its process dies meanwhile.
//!
//! Only what a store with strong consistency and conditional puts can do: requests fail before or after their effect, answers
//! stop in the middle, puts arrive late. What is stored is listed and read from then on, and a conditional put never
//! replaces anything.

use object_store::path::Path;

use super::random::Dice;

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Act {
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
    pub(super) act: Act,
    /// The object; for data files, whose names are random, their folder.
    pub(super) place: String,
    /// How many like it this process has sent before.
    pub(super) number: u32,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
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
pub(super) struct Weather {
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

impl Weather {
    /// The weather of a schedule: from none to a storm.
    pub(super) fn of(seed: u64) -> Self {
        let mut dice = Dice::of(seed, "weather");
        Self { seed, faults_percent: dice.pick(&[0, 3, 8, 15, 30]), slow_percent: dice.pick(&[0, 5, 20, 50]) }
    }

    /// What becomes of it.
    pub(super) fn fate(&self, request: &Request) -> Fate {
        let mut dice = Dice::of(self.seed, ("fate", request));
        if !dice.percent(self.faults_percent) {
            return Fate::Fine;
        }
        let late = late(&mut dice);
        match request.act {
            Act::Create => dice.pick(&[Fate::Refused, Fate::AnswerLost, late, late, Fate::Retried, Fate::Rival]),
            Act::Put => dice.pick(&[Fate::Refused, Fate::AnswerLost, late]),
            Act::Get | Act::List => dice.pick(&[Fate::Refused, Fate::CutOff]),
            Act::Delete => dice.pick(&[Fate::Refused, Fate::AnswerLost]),
        }
    }

    /// How many others may pass it.
    pub(super) fn delay(&self, request: &Request) -> usize {
        let mut dice = Dice::of(self.seed, ("delay", request));
        if dice.percent(self.slow_percent) { dice.below(SLOW_MAX) } else { 0 }
    }

    /// What becomes of it when its process dies before the answer: it arrives, it does not, or it arrives when the next
    /// process is at work.
    pub(super) fn at_death(&self, request: &Request) -> Fate {
        let mut dice = Dice::of(self.seed, ("death", request));
        let late = late(&mut dice);
        dice.pick(&[Fate::AnswerLost, Fate::Refused, late, late])
    }
}

fn late(dice: &mut Dice) -> Fate {
    let most = dice.pick(&LATE_MAX);
    Fate::Late(1 + dice.below(most))
}
