//! What the policy remembers from one decision to the next: for each quarter of an hour of a season, how many pods were in
//! use at most. It is kept as bytes in the object's status, 1.4 KB at most.

use crate::config::Season;

/// A quarter of an hour, in milliseconds.
pub const SLOT: i64 = 15 * 60 * 1000;
const DAY: i64 = 24 * 60 * 60 * 1000;
/// 1970 began on a Thursday; weeks begin on Mondays.
const THURSDAY: i64 = 3 * DAY;

/// The version of the bytes.
const VERSION: u8 = 1;
/// Numbers are kept in eighths: up to 8,191 pods.
const EIGHTHS: f64 = 8.0;
/// A slot of which nothing is known.
const NOTHING: u16 = u16::MAX;
/// Bytes before the slots: version, season, the slot that is being watched, its most.
const HEAD: usize = 12;

/// What is remembered.
#[derive(Clone, Debug, PartialEq)]
pub struct Memory {
    season: Season,
    /// The slot that is being watched, counted from 1970; None = none yet.
    slot: Option<i64>,
    /// The most that were in use in it so far.
    most: u16,
    /// What was in use in each slot of the season at most, smoothed, in eighths.
    slots: Vec<u16>,
}

impl Memory {
    /// Nothing yet.
    pub fn new(season: Season) -> Self {
        let slots = match season {
            Season::Day => DAY / SLOT,
            Season::Week => 7 * DAY / SLOT,
        };
        Self { season, slot: None, most: 0, slots: vec![NOTHING; slots as usize] }
    }

    /// What was kept, if it can be read and is of this season.
    pub fn read(bytes: &[u8], season: Season) -> Option<Self> {
        let mut memory = Self::new(season);
        let (head, slots) = bytes.split_at_checked(HEAD)?;
        if head[0] != VERSION || head[1] != season as u8 || slots.len() != 2 * memory.slots.len() {
            return None;
        }
        let slot = i64::from_le_bytes(head[2..10].try_into().ok()?);
        memory.slot = (slot != i64::MIN).then_some(slot);
        memory.most = u16::from_le_bytes(head[10..12].try_into().ok()?);
        for (slot, bytes) in memory.slots.iter_mut().zip(slots.chunks_exact(2)) {
            *slot = u16::from_le_bytes(bytes.try_into().ok()?);
        }
        Some(memory)
    }

    /// To be kept.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION, self.season as u8];
        bytes.extend(self.slot.unwrap_or(i64::MIN).to_le_bytes());
        bytes.extend(self.most.to_le_bytes());
        self.slots.iter().for_each(|slot| bytes.extend(slot.to_le_bytes()));
        bytes
    }

    /// The place in its season of a slot that is counted from 1970.
    fn place(&self, slot: i64) -> usize {
        let from = if self.season == Season::Week { THURSDAY / SLOT } else { 0 };
        (slot + from).rem_euclid(self.slots.len() as i64) as usize
    }

    /// Takes note of how many are in use now. A slot that is over is learned from, at this rate.
    pub fn note(&mut self, now: i64, in_use: u32, rate: f64) {
        let slot = now.div_euclid(SLOT);
        match self.slot {
            Some(watched) if watched == slot => {}
            Some(watched) if watched < slot => {
                let place = self.place(watched);
                let seen = f64::from(self.most) * EIGHTHS;
                let known = self.slots[place];
                let new =
                    if known == NOTHING { seen } else { f64::from(known) + rate * (seen - f64::from(known)) };
                self.slots[place] = new.round().min(f64::from(NOTHING - 1)) as u16;
                (self.slot, self.most) = (Some(slot), 0);
            }
            // The clock was set back: what is being watched goes on from there.
            _ => (self.slot, self.most) = (Some(slot), 0),
        }
        self.most = self.most.max(u16::try_from(in_use).unwrap_or(u16::MAX));
    }

    /// The most that is expected to be in use from one time to another, and when that begins; None = nothing is known of
    /// that time.
    pub fn forecast(&self, from: i64, until: i64) -> Option<(f64, i64)> {
        let (first, last) = (from.div_euclid(SLOT), until.div_euclid(SLOT));
        // More than a season is no more than a season.
        let last = last.min(first + self.slots.len() as i64 - 1);
        let known = (first..=last).filter_map(|slot| match self.slots[self.place(slot)] {
            NOTHING => None,
            eighths => Some((f64::from(eighths) / EIGHTHS, slot * SLOT)),
        });
        known.reduce(|most, other| if other.0 > most.0 { other } else { most })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Monday, 2026-01-05, 00:00 UTC.
    const MONDAY: i64 = 1_767_571_200_000;

    #[test]
    fn what_is_kept_comes_back_and_nothing_else_does() {
        for season in [Season::Day, Season::Week] {
            let mut memory = Memory::new(season);
            for i in 0..1000 {
                memory.note(MONDAY + i * SLOT, i as u32 % 50, 0.5);
            }
            let bytes = memory.bytes();
            assert!(bytes.len() <= 4096, "{}", bytes.len());
            assert_eq!(Memory::read(&bytes, season), Some(memory));
            let other = if season == Season::Day { Season::Week } else { Season::Day };
            assert_eq!(Memory::read(&bytes, other), None);
            assert_eq!(Memory::read(&bytes[1..], season), None);
            for length in [0, 1, 11, 12, 100] {
                assert_eq!(Memory::read(&bytes[..length], season), None);
            }
        }
    }

    #[test]
    fn the_most_of_a_slot_is_expected_at_the_same_time_of_the_next_season() {
        let mut memory = Memory::new(Season::Day);
        memory.note(MONDAY, 4, 0.5);
        memory.note(MONDAY + 1000, 9, 0.5);
        memory.note(MONDAY + 2000, 1, 0.5);
        assert_eq!(memory.forecast(MONDAY, MONDAY), None, "the slot is not over");
        memory.note(MONDAY + SLOT, 2, 0.5);
        assert_eq!(memory.forecast(MONDAY + DAY, MONDAY + DAY), Some((9.0, MONDAY + DAY)));
        assert_eq!(memory.forecast(MONDAY + DAY + SLOT, MONDAY + DAY + 2 * SLOT), None);
        // The next day it is less: halfway between.
        memory.note(MONDAY + DAY, 3, 0.5);
        memory.note(MONDAY + DAY + SLOT, 3, 0.5);
        assert_eq!(memory.forecast(MONDAY + 2 * DAY, MONDAY + 2 * DAY).unwrap().0, 6.0);
    }

    #[test]
    fn the_greatest_of_a_time_counts_with_when_it_begins() {
        let mut memory = Memory::new(Season::Week);
        for (slot, in_use) in [(0, 1), (1, 7), (2, 3), (3, 0)] {
            memory.note(MONDAY + slot * SLOT, in_use, 1.0);
        }
        let next = MONDAY + 7 * DAY;
        assert_eq!(memory.forecast(next, next + 2 * SLOT), Some((7.0, next + SLOT)));
        assert_eq!(memory.forecast(next + 2 * SLOT, next + 2 * SLOT).unwrap().0, 3.0);
        assert_eq!(memory.forecast(next, next + 100 * 7 * DAY).unwrap().0, 7.0);
    }

    #[test]
    fn a_clock_that_is_set_back_and_numbers_that_are_too_large_do_no_harm() {
        let mut memory = Memory::new(Season::Day);
        memory.note(MONDAY, u32::MAX, 0.5);
        memory.note(MONDAY - 10 * SLOT, 5, 0.5);
        memory.note(-1, 5, 0.5);
        memory.note(MONDAY, u32::MAX, 0.5);
        memory.note(MONDAY + SLOT, 0, 0.5);
        assert!(memory.forecast(MONDAY, MONDAY).unwrap().0 < 8_192.0);
    }
}
