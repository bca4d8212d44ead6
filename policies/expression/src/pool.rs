//! What an expression knows of a pool: the variables, their values, and samples to try an expression with.

use cel::Context;

use crate::check::Expression;

/// Seconds.
const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// One value for each variable, in the order of `VARIABLES`.
pub const VARIABLES: [&str; 22] = [
    "busy",
    "claimed",
    "waiting",
    "idle",
    "starting",
    "ready",
    "current",
    "unknown",
    "terminating",
    "unschedulable",
    "failed",
    "misses",
    "oldestWaitSeconds",
    "idleTarget",
    "minReplicas",
    "maxReplicas",
    "startupP50Seconds",
    "startupP90Seconds",
    "startupP99Seconds",
    "hour",
    "minute",
    "weekday",
];
/// The variable that holds the signals, by name.
pub const SIGNALS: &str = "signals";

/// A pool at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pool {
    /// Milliseconds since 1970.
    pub now: i64,
    pub busy: u32,
    pub claimed: u32,
    pub waiting: u32,
    pub idle: u32,
    pub starting: u32,
    pub ready: u32,
    pub current: u32,
    pub unknown: u32,
    pub terminating: u32,
    pub unschedulable: u32,
    pub failed: u32,
    pub misses: u32,
    /// Milliseconds.
    pub oldest_wait: u64,
    pub idle_target: u32,
    pub minimum: u32,
    pub maximum: u32,
    /// Milliseconds from creation to Ready, of half, nine tenths and 99 hundredths of the starts.
    pub startup: [u64; 3],
    /// Those that have a value.
    pub signals: Vec<(String, f64)>,
}

impl Pool {
    /// Adds signals of these names, for a trial.
    pub fn with_signals(mut self, names: &[String]) -> Self {
        // As many as are busy: some where there is work, none where there is none.
        let value = f64::from(self.busy);
        self.signals = names.iter().map(|name| (name.clone(), value)).collect();
        self
    }

    /// Binds every variable.
    pub fn bind(&self, context: &mut Context<'_, '_>) {
        for (name, value) in VARIABLES.iter().zip(self.all()) {
            context.add_variable_from_value(*name, value);
        }
        let signals: std::collections::HashMap<String, f64> = self.signals.iter().cloned().collect();
        context.add_variable_from_value(SIGNALS, signals);
    }

    /// The variables that the expression uses, with their values, for people.
    pub fn values(&self, expression: &Expression) -> String {
        let mut words: Vec<String> = VARIABLES
            .iter()
            .zip(self.all())
            .filter(|(name, _)| expression.uses(name))
            .map(|(name, value)| format!("{name} {}", shown(&value)))
            .collect();
        if expression.uses(SIGNALS) {
            words.extend(
                self.signals
                    .iter()
                    .filter(|(name, _)| expression.signals().contains(name))
                    .map(|(name, value)| format!("{name} {value}")),
            );
        }
        if words.is_empty() { "no variables".to_owned() } else { words.join(", ") }
    }

    /// After how many seconds a variable that follows the clock changes.
    pub fn changes_after(&self, expression: &Expression) -> Option<u64> {
        let second = self.now.div_euclid(1000);
        let until_next = |span: i64| (span - second.rem_euclid(span)).unsigned_abs();
        [
            (expression.uses("oldestWaitSeconds") && self.waiting > 0).then_some(1),
            expression.uses("minute").then(|| until_next(MINUTE)),
            expression.uses("hour").then(|| until_next(HOUR)),
            expression.uses("weekday").then(|| until_next(DAY)),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn all(&self) -> [cel::Value; VARIABLES.len()] {
        let count = |count: u32| cel::Value::Int(i64::from(count));
        let seconds = |milliseconds: u64| cel::Value::Float(milliseconds as f64 / 1000.0);
        let second = self.now.div_euclid(1000);
        let [p50, p90, p99] = self.startup;
        [
            count(self.busy),
            count(self.claimed),
            count(self.waiting),
            count(self.idle),
            count(self.starting),
            count(self.ready),
            count(self.current),
            count(self.unknown),
            count(self.terminating),
            count(self.unschedulable),
            count(self.failed),
            count(self.misses),
            seconds(self.oldest_wait),
            count(self.idle_target),
            count(self.minimum),
            count(self.maximum),
            seconds(p50),
            seconds(p90),
            seconds(p99),
            cel::Value::Int(second.div_euclid(HOUR).rem_euclid(24)),
            cel::Value::Int(second.div_euclid(MINUTE).rem_euclid(60)),
            // 1 January 1970 was a Thursday; Sunday is 0.
            cel::Value::Int((second.div_euclid(DAY) + 4).rem_euclid(7)),
        ]
    }
}

fn shown(value: &cel::Value) -> String {
    match value {
        cel::Value::Int(number) => number.to_string(),
        cel::Value::Float(number) => number.to_string(),
        other => format!("{other:?}"),
    }
}

/// A pool with work, all of whose numbers differ from zero.
pub fn sample() -> Pool {
    Pool {
        // Tuesday, 14 November 2023, 22:13 UTC.
        now: 1_700_000_000_000,
        busy: 10,
        claimed: 2,
        waiting: 1,
        idle: 5,
        starting: 2,
        ready: 17,
        current: 20,
        unknown: 1,
        terminating: 1,
        unschedulable: 1,
        failed: 1,
        misses: 1,
        oldest_wait: 2_500,
        idle_target: 5,
        minimum: 1,
        maximum: 100,
        startup: [4_000, 9_000, 15_000],
        signals: Vec::new(),
    }
}

/// A pool without pods, at a moment whose parts are all zero.
pub fn empty() -> Pool {
    // Sunday, 4 January 1970, midnight.
    Pool { now: 3 * DAY * 1000, idle_target: 5, minimum: 1, maximum: 100, ..Pool::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(expression: &str, pool: &Pool) -> String {
        pool.values(&Expression::new(expression).unwrap())
    }

    #[test]
    fn the_clock_is_read_in_utc() {
        assert_eq!(values("hour + minute + weekday", &sample()), "hour 22, minute 13, weekday 2");
        assert_eq!(values("hour + minute + weekday", &empty()), "hour 0, minute 0, weekday 0");
    }

    #[test]
    fn only_what_is_used_is_told() {
        assert_eq!(values("3", &sample()), "no variables");
        assert_eq!(values("busy + startupP90Seconds", &sample()), "busy 10, startupP90Seconds 9");
        let pool = Pool { signals: vec![("queue".into(), 4.5), ("other".into(), 1.0)], ..sample() };
        assert_eq!(values("signals.queue", &pool), "queue 4.5");
    }

    #[test]
    fn the_next_change_of_the_clock_is_known() {
        for (expression, seconds) in [
            ("busy", None),
            ("minute", Some(40)),
            ("hour", Some(46 * 60 + 40)),
            ("weekday", Some(3600 + 46 * 60 + 40)),
            ("weekday + minute", Some(40)),
            ("oldestWaitSeconds", Some(1)),
        ] {
            assert_eq!(
                sample().changes_after(&Expression::new(expression).unwrap()),
                seconds,
                "{expression}"
            );
        }
    }
}
