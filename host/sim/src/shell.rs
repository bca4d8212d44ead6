//! How operators are driven, whatever they look after: they start, are told what happened, look, make requests and are
//! answered, each after a delay. When there is trouble a request may be late, lost, unanswered, or arrive twice.

use std::collections::HashMap;
use std::fmt::{self, Debug};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use stoker_core::pool::JobView;

use crate::store::Refusal;
use crate::world::{Due, Moment, World, milliseconds};

/// How long an operator waits for an answer.
pub(crate) const PATIENCE: SignedDuration = SignedDuration::from_secs(15);

/// How long after its look a plan may still create.
pub(crate) const PLAN_HOLDS: SignedDuration = SignedDuration::from_secs(10);

/// A request takes so many milliseconds at most when there is trouble: less than is waited for its answer.
const LATE: u64 = 14_900;

/// A moment after something happened, a look that it asks for comes.
const SOON: SignedDuration = SignedDuration::from_millis(1);

/// The API server's answer to a request about an object.
#[derive(Clone, PartialEq)]
pub enum Answer<O> {
    /// It is done.
    Done,
    /// The object, as it is or became.
    Object(Arc<O>),
    /// The Job, as it is.
    Job(Arc<JobView>),
    /// The name is taken.
    Existed,
    /// There is none.
    NotFound,
    /// It has changed.
    Conflict,
    /// None came.
    Nothing,
}

impl<O> Answer<O> {
    /// That to a change that is done or refused.
    pub(crate) fn of(done: Result<(), Refusal>) -> Self {
        match done {
            Ok(()) => Self::Done,
            Err(Refusal::NotFound) => Self::NotFound,
            Err(_) => Self::Conflict,
        }
    }

    /// Nothing has changed.
    pub(crate) fn refuses(&self) -> bool {
        matches!(self, Self::NotFound | Self::Conflict | Self::Existed)
    }
}

impl<O> Debug for Answer<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Done => "done",
            Self::Object(_) => "the object",
            Self::Job(_) => "a Job",
            Self::Existed => "existed",
            Self::NotFound => "not found",
            Self::Conflict => "conflict",
            Self::Nothing => "nothing",
        })
    }
}

/// Of what an operator's request is part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channel {
    /// Of its look.
    Look,
    /// Of the status that it writes beside.
    Status,
}

/// By what an operator is driven.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pulse {
    /// Number of this life.
    life: u64,
    /// It runs.
    alive: bool,
    /// When it looks next.
    looks_at: Option<Timestamp>,
    /// When its watches tell something next.
    telling: Option<Timestamp>,
    /// Something asked for a look while it was busy.
    again: bool,
    /// The requests that it waits for.
    flights: [Option<u64>; 2],
}

impl Pulse {
    /// That of its next life, which has not begun yet.
    pub(crate) fn next(&self) -> Self {
        Self { life: self.life + 1, ..Self::default() }
    }

    /// It runs from now on.
    pub(crate) fn begin(&mut self) {
        self.alive = true;
    }

    /// Whether something asked for a look meanwhile; it does no more.
    pub(crate) fn take_again(&mut self) -> bool {
        std::mem::take(&mut self.again)
    }

    /// It waits for an answer.
    pub(crate) fn waits(&self, channel: Channel) -> bool {
        self.flights[channel as usize].is_some()
    }
}

/// A request on its way.
#[derive(Clone, Debug)]
pub(crate) struct Flight<W> {
    pub operator: usize,
    pub channel: Channel,
    pub write: W,
    life: u64,
    answered: bool,
    /// How often it is still to arrive, or to be given up.
    ends: u32,
}

/// Requests on their way.
#[derive(Debug)]
pub(crate) struct Flights<W> {
    all: HashMap<u64, Flight<W>>,
    count: u64,
}

impl<W> Default for Flights<W> {
    fn default() -> Self {
        Self { all: HashMap::new(), count: 0 }
    }
}

impl<W> Flights<W> {
    fn ends(&mut self, id: u64) {
        if let Some(flight) = self.all.get_mut(&id) {
            flight.ends -= 1;
            if flight.ends == 0 {
                self.all.remove(&id);
            }
        }
    }
}

/// An operator, as far as it is driven.
pub(crate) trait Driven {
    /// Its requests.
    type Write: Clone;

    fn pulse(&mut self) -> &mut Pulse;
    fn set_clock(&mut self, ahead: SignedDuration);
    /// What its watches tell comes so late; None = of all of them.
    fn set_delay(&mut self, watch: Option<usize>, late: SignedDuration);
    /// It dies.
    fn die(&mut self);
    /// It carries out a look.
    fn busy(&self) -> bool;
    /// It looks. Returns what it saw and wants, in words.
    fn look(&mut self, now: Timestamp) -> String;
    /// The next request of its look; none = it is carried out.
    fn next_write(&mut self, now: Timestamp) -> Option<Self::Write>;
    /// Ends a look. Returns how long it waits until the next one.
    fn rest(&mut self, now: Timestamp) -> Option<SignedDuration>;
    /// What a request is, in words.
    fn words(write: &Self::Write) -> String;
}

/// What a cluster consists of, as far as operators are driven in it.
pub(crate) struct Parts<'a, O: Driven, W> {
    pub world: &'a mut World<W>,
    pub operators: &'a mut [O],
    pub flights: &'a mut Flights<O::Write>,
}

/// A cluster in which operators are driven.
pub(crate) trait Shell {
    type Operator: Driven;
    /// What a Job is made for.
    type What;
    /// What the operators look after.
    type Object;

    /// Requests may arrive twice.
    const DOUBLES: bool;

    fn parts(&mut self) -> Parts<'_, Self::Operator, Self::What>;
    /// An operator starts: it lists everything.
    fn lists(&mut self, number: usize);
    /// When an operator's watches have something to tell.
    fn tells_at(&self, number: usize) -> Option<Timestamp>;
    /// An operator's watches tell what is due. Returns whether it asks for a look.
    fn told(&mut self, number: usize) -> bool;
    /// The API server does what it is asked for.
    fn write(&mut self, number: usize, write: &WriteOf<Self>) -> Answer<Self::Object>;
    /// An operator takes note of an answer that it has waited for.
    fn learns(&mut self, flight: Flight<WriteOf<Self>>, answer: Answer<Self::Object>);
    /// An operator has carried out a look.
    fn rested(&mut self, _number: usize) {}
    /// An operator writes a status.
    fn posts(&mut self, _number: usize) {}

    /// Something of the operators happens.
    fn drive(&mut self, moment: Moment) {
        match moment {
            Moment::Arrives(id) => self.arrives(id),
            Moment::TimesOut(id) => self.times_out(id),
            Moment::Looks(number, life) => self.looks(number, life),
            Moment::Posts(number, life) => {
                if self.lives(number, life) {
                    self.posts(number);
                }
            }
            Moment::Tells(number) => self.tells(number),
            Moment::Starts(number) => self.starts(number),
        }
    }

    /// Watches may have something to tell that was not there before.
    fn notice(&mut self) {
        for number in 0..self.parts().operators.len() {
            let Some(next) = self.tells_at(number) else { continue };
            let Parts { world, operators, .. } = self.parts();
            let pulse = operators[number].pulse();
            let next = next.max(world.now + world.down_for().unwrap_or_default());
            if pulse.alive && pulse.telling.is_none_or(|at| at > next) {
                pulse.telling = Some(next);
                world.due(next.duration_since(world.now), Due::Operator(Moment::Tells(number)));
            }
        }
    }

    /// All operators start that do not run, see all soon, and their clocks are right.
    fn mend_operators(&mut self) {
        let Parts { world, operators, .. } = self.parts();
        for (number, operator) in operators.iter_mut().enumerate() {
            operator.set_delay(None, milliseconds(50));
            operator.set_clock(SignedDuration::ZERO);
            world.due(SignedDuration::ZERO, Due::Operator(Moment::Starts(number)));
        }
        self.notice();
    }

    /// An operator dies; another takes its place after a while.
    fn replace(&mut self, number: usize, time: SignedDuration) {
        let Parts { world, operators, .. } = self.parts();
        operators[number].die();
        world.due(time, Due::Operator(Moment::Starts(number)));
    }

    fn lives(&mut self, number: usize, life: u64) -> bool {
        let pulse = self.parts().operators[number].pulse();
        pulse.alive && pulse.life == life
    }

    fn starts(&mut self, number: usize) {
        let Parts { world, operators, .. } = self.parts();
        if let Some(wait) = world.down_for() {
            return world.due(wait, Due::Operator(Moment::Starts(number)));
        }
        if !operators[number].pulse().alive {
            self.lists(number);
        }
        self.ask_for_look(number, SOON);
    }

    fn ask_for_look(&mut self, number: usize, wait: SignedDuration) {
        let Parts { world, operators, .. } = self.parts();
        let (at, pulse) = (world.now + wait, operators[number].pulse());
        if pulse.alive && pulse.looks_at.is_none_or(|before| at < before) {
            pulse.looks_at = Some(at);
            world.due(wait, Due::Operator(Moment::Looks(number, pulse.life)));
        }
    }

    fn ask_for_post(&mut self, number: usize, wait: SignedDuration) {
        let Parts { world, operators, .. } = self.parts();
        let life = operators[number].pulse().life;
        world.due(wait, Due::Operator(Moment::Posts(number, life)));
    }

    fn tells(&mut self, number: usize) {
        let Parts { world, operators, .. } = self.parts();
        let (down, pulse) = (world.down_for().is_some(), operators[number].pulse());
        if !pulse.alive {
            return;
        }
        pulse.telling = None;
        if !down && self.told(number) {
            self.ask_for_look(number, SOON);
        }
    }

    fn looks(&mut self, number: usize, life: u64) {
        let lives = self.lives(number, life);
        let Parts { world, operators, .. } = self.parts();
        let (now, operator) = (world.now, &mut operators[number]);
        if !lives || operator.pulse().looks_at.is_none_or(|at| at > now) {
            return;
        }
        operator.pulse().looks_at = None;
        if operator.busy() {
            operator.pulse().again = true;
            return;
        }
        let words = operator.look(now);
        world.tell(|| format!("operator {number} {words}"));
        self.goes_on(number);
    }

    /// An operator makes the next request of its look, or rests.
    fn goes_on(&mut self, number: usize) {
        let Parts { world, operators, .. } = self.parts();
        let (now, operator) = (world.now, &mut operators[number]);
        if let Some(write) = operator.next_write(now) {
            return self.send(number, Channel::Look, write);
        }
        if let Some(wait) = operator.rest(now) {
            self.ask_for_look(number, wait);
        }
        self.rested(number);
    }

    fn send(&mut self, number: usize, channel: Channel, write: WriteOf<Self>) {
        let Parts { world, operators, flights } = self.parts();
        let (latency, answered, lost, doubled) = if world.troubled() {
            let latency = milliseconds(world.chance(LATE) as i64);
            let (answered, lost) = (world.chance(3) > 0, world.chance(4) == 0);
            (latency, answered, lost, Self::DOUBLES && world.chance(3) == 0)
        } else {
            (milliseconds(1 + world.chance(30) as i64), true, false, false)
        };
        flights.count += 1;
        let id = flights.count;
        if !lost {
            world.due(latency, Due::Operator(Moment::Arrives(id)));
        }
        if doubled {
            let again = milliseconds(world.chance(LATE) as i64);
            world.due(again, Due::Operator(Moment::Arrives(id)));
        }
        world.due(PATIENCE, Due::Operator(Moment::TimesOut(id)));
        let pulse = operators[number].pulse();
        pulse.flights[channel as usize] = Some(id);
        let ends = 1 + u32::from(!lost) + u32::from(doubled);
        let flight = Flight { operator: number, life: pulse.life, channel, write, answered, ends };
        flights.all.insert(id, flight);
    }

    fn arrives(&mut self, id: u64) {
        let Some(flight) = self.parts().flights.all.get(&id).cloned() else { return };
        let (number, answered) = (flight.operator, flight.answered);
        let answer = self.write(number, &flight.write);
        let words = || format!("operator {number}: {} -> {answer:?}", Self::Operator::words(&flight.write));
        self.parts().world.tell(words);
        if answered {
            self.answered(id, answer);
        }
        self.parts().flights.ends(id);
    }

    fn times_out(&mut self, id: u64) {
        self.answered(id, Answer::Nothing);
        self.parts().flights.ends(id);
    }

    /// An operator gets an answer, if it still waits for it.
    fn answered(&mut self, id: u64, answer: Answer<Self::Object>) {
        let Parts { operators, flights, .. } = self.parts();
        let Some(flight) = flights.all.get(&id).cloned() else { return };
        let pulse = operators[flight.operator].pulse();
        if pulse.life == flight.life && pulse.flights[flight.channel as usize] == Some(id) {
            pulse.flights[flight.channel as usize] = None;
            self.learns(flight, answer);
        }
    }
}

/// The requests of a cluster's operators.
pub(crate) type WriteOf<S> = <<S as Shell>::Operator as Driven>::Write;
