//! One of a schedule's five fields: its text becomes a set of small numbers.

/// Quoted of what a field holds, so that a message stays short.
const QUOTED: usize = 24;

/// Which field, and what it may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    minimum: u8,
    maximum: u8,
    /// Names for the values from the minimum on.
    names: &'static [&'static str],
}

pub(crate) const MINUTE: Kind = Kind { name: "minute", minimum: 0, maximum: 59, names: &[] };
pub(crate) const HOUR: Kind = Kind { name: "hour", minimum: 0, maximum: 23, names: &[] };
pub(crate) const DAY: Kind = Kind { name: "day of the month", minimum: 1, maximum: 31, names: &[] };
pub(crate) const MONTH: Kind = Kind {
    name: "month",
    minimum: 1,
    maximum: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
pub(crate) const WEEKDAY: Kind = Kind {
    name: "day of the week",
    minimum: 0,
    maximum: 6,
    names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
};

/// The values that a field names, and whether it is unrestricted (`*`, `?`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Set {
    bits: u64,
    pub(crate) star: bool,
}

impl Set {
    pub(crate) fn all(kind: Kind) -> Self {
        Self { bits: range(kind.minimum, kind.maximum, 1), star: true }
    }

    pub(crate) fn one(value: u8) -> Self {
        Self { bits: 1 << value, star: false }
    }

    /// `value` is below 64.
    pub(crate) fn has(self, value: u8) -> bool {
        self.bits >> value & 1 == 1
    }

    /// The least value that is at least `value`, which is below 64.
    pub(crate) fn at_or_above(self, value: u8) -> Option<u8> {
        let above = self.bits >> value;
        // At most 63.
        (above != 0).then(|| value + above.trailing_zeros() as u8)
    }

    /// The greatest value that is at most `value`, which is below 64.
    pub(crate) fn at_or_below(self, value: u8) -> Option<u8> {
        let below = self.bits << (63 - value);
        // At most `value`.
        (below != 0).then(|| value - below.leading_zeros() as u8)
    }
}

/// What is wrong, and at which character of the field, from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) at: usize,
    pub(crate) words: String,
}

impl Kind {
    /// Reads a field.
    pub(crate) fn parse(self, text: &str) -> Result<Set, Wrong> {
        let mut set = Set { bits: 0, star: false };
        let mut at = 0;
        for item in text.split(',') {
            // Kubernetes takes `1,,2` and `5,`.
            if !item.is_empty() {
                let found = self.item(item).map_err(|wrong| Wrong { at: at + wrong.at, ..wrong })?;
                set = Set { bits: set.bits | found.bits, star: set.star || found.star };
            }
            at += item.chars().count() + 1;
        }
        if set.bits == 0 {
            return Err(Wrong { at: 0, words: format!("there is no value; write {}", self.example()) });
        }
        Ok(set)
    }

    /// Reads one of the values, ranges and steps between commas.
    fn item(self, text: &str) -> Result<Set, Wrong> {
        let (values, step) = match text.split_once('/') {
            None => (text, None),
            Some((values, step)) => {
                // The slash is one character.
                let at = values.chars().count() + 1;
                (values, Some(step_of(step).map_err(|words| Wrong { at, words })?))
            }
        };
        let wrong = |at: usize| move |words: String| Wrong { at, words };
        let (low, high) = match values.split_once('-') {
            None => (values, None),
            Some((low, high)) => (low, Some((high, low.chars().count() + 1))),
        };
        if matches!(low, "*" | "?") {
            if let Some((_, at)) = high {
                return Err(wrong(at)(format!(
                    "{low} is the whole range and has no end; write {low} or a range"
                )));
            }
            let bits = range(self.minimum, self.maximum, step.unwrap_or(1));
            return Ok(Set { bits, star: step.is_none_or(|step| step == 1) });
        }
        let first = self.value(low).map_err(wrong(0))?;
        let last = match high {
            Some((high, at)) => self.value(high).map_err(wrong(at))?,
            None if step.is_some() => self.maximum,
            None => first,
        };
        if first > last {
            return Err(wrong(0)(format!(
                "the range {} ends before it begins; write two, with a comma between",
                quoted(values)
            )));
        }
        Ok(Set { bits: range(first, last, step.unwrap_or(1)), star: false })
    }

    fn value(self, text: &str) -> Result<u8, String> {
        if let Some(index) = self.names.iter().position(|name| text.eq_ignore_ascii_case(name)) {
            // At most 11.
            return Ok(self.minimum + index as u8);
        }
        let Ok(number) = text.parse::<u64>() else {
            return Err(if text.is_empty() {
                format!("a value is missing; write {}", self.example())
            } else {
                format!("{} is not a value; write {}", quoted(text), self.example())
            });
        };
        match u8::try_from(number) {
            Ok(number) if number < self.minimum => Err(format!("{number} is below {}", self.minimum)),
            Ok(number) if number <= self.maximum => Ok(number),
            _ if self == WEEKDAY && number == 7 => Err("7 is above 6; Sunday is 0".to_owned()),
            _ => Err(format!("{number} is above {}", self.maximum)),
        }
    }

    /// What a field may hold, in words.
    fn example(self) -> String {
        let names = match self.names {
            [first, .., last] => format!(" or {first} to {last}"),
            _ => String::new(),
        };
        format!(
            "{} to {}{names}, a range such as {}-{}, or *",
            self.minimum,
            self.maximum,
            self.minimum,
            self.minimum + 4
        )
    }
}

fn step_of(text: &str) -> Result<u8, String> {
    // Kubernetes' numbers end with i64's, too.
    match text.parse::<i64>() {
        Ok(0) => Err("a step of 0 never advances; write 1 or more".to_owned()),
        // A step past the end of the field leaves the first value only, however large it is.
        Ok(step) if step > 0 => Ok(u8::try_from(step).unwrap_or(u8::MAX)),
        _ => Err(format!("{} is not a step; write a number such as 5", quoted(text))),
    }
}

/// Every `step`th value from `first` on. `last` is below 64.
fn range(first: u8, last: u8, step: u8) -> u64 {
    (first..=last).step_by(usize::from(step)).fold(0, |bits, value| bits | 1 << value)
}

pub(crate) fn quoted(text: &str) -> String {
    let mut short: String = text.chars().take(QUOTED).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("{short:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(kind: Kind, text: &str) -> Vec<u8> {
        let set = kind.parse(text).unwrap();
        (0..64).filter(|value| set.has(*value)).collect()
    }

    #[test]
    fn lists_ranges_steps_and_names_are_read() {
        for (kind, text, expected) in [
            (MINUTE, "7", vec![7]),
            (MINUTE, "0,30,5", vec![0, 5, 30]),
            (HOUR, "8-11", vec![8, 9, 10, 11]),
            (HOUR, "*/6", vec![0, 6, 12, 18]),
            (DAY, "?/10", vec![1, 11, 21, 31]),
            (MINUTE, "5/15", vec![5, 20, 35, 50]),
            (HOUR, "8-17/4", vec![8, 12, 16]),
            (HOUR, "8-17/4000000000", vec![8]),
            (HOUR, "8-17/9223372036854775807", vec![8]),
            (MONTH, "jan,APR-Jun", vec![1, 4, 5, 6]),
            (WEEKDAY, "mon-fri", vec![1, 2, 3, 4, 5]),
            (WEEKDAY, "Sun/3", vec![0, 3, 6]),
            (MINUTE, "007,+8", vec![7, 8]),
            (MINUTE, ",1,,2,", vec![1, 2]),
        ] {
            assert_eq!(values(kind, text), expected, "{text}");
        }
    }

    #[test]
    fn a_star_counts_as_unrestricted_unless_it_steps() {
        for (text, star) in
            [("*", true), ("?", true), ("*/1", true), ("*,3", true), ("*/2", false), ("1-31", false)]
        {
            assert_eq!(DAY.parse(text).unwrap().star, star, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (kind, text, at, words) in [
            (MINUTE, "60", 0, "60 is above 59"),
            (DAY, "1,0", 2, "0 is below 1"),
            (WEEKDAY, "1-7", 2, "7 is above 6; Sunday is 0"),
            (HOUR, "17-8", 0, "the range \"17-8\" ends before it begins; write two, with a comma between"),
            (HOUR, "*/0", 2, "a step of 0 never advances; write 1 or more"),
            (HOUR, "1/x", 2, "\"x\" is not a step; write a number such as 5"),
            (HOUR, "1/2/3", 2, "\"2/3\" is not a step; write a number such as 5"),
            (HOUR, "1/-3", 2, "\"-3\" is not a step; write a number such as 5"),
            (
                HOUR,
                "*/9223372036854775808",
                2,
                "\"9223372036854775808\" is not a step; write a number such as 5",
            ),
            (HOUR, "*-5", 2, "* is the whole range and has no end; write * or a range"),
            (HOUR, "-5", 0, "a value is missing; write 0 to 23, a range such as 0-4, or *"),
            (MINUTE, ",", 0, "there is no value; write 0 to 59, a range such as 0-4, or *"),
            (
                MONTH,
                "é,mai",
                0,
                "\"é\" is not a value; write 1 to 12 or jan to dec, a range such as 1-5, or *",
            ),
        ] {
            assert_eq!(kind.parse(text), Err(Wrong { at, words: words.to_owned() }), "{text}");
        }
    }

    #[test]
    fn the_nearest_values_are_found() {
        let set = MINUTE.parse("0,10,59").unwrap();
        assert_eq!(
            (set.at_or_above(0), set.at_or_above(1), set.at_or_above(59)),
            (Some(0), Some(10), Some(59))
        );
        assert_eq!(
            (set.at_or_below(0), set.at_or_below(58), set.at_or_below(59)),
            (Some(0), Some(10), Some(59))
        );
        let set = MINUTE.parse("10").unwrap();
        assert_eq!((set.at_or_above(11), set.at_or_below(9)), (None, None));
    }
}
