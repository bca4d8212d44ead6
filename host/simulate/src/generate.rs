//! Loads that are made up, of shapes that people know from theirs.

use jiff::SignedDuration;

use crate::chance::Chance;
use crate::load::{Load, Request, monday};

/// The shape of a load: how many are busy on average, over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Days with a peak in the evening, and weekends that are higher: players.
    Diurnal,
    /// Office hours on weekdays, and bursts of many requests at once: builds.
    Bursts,
    /// Up for some hours, and down again: a batch that grows.
    Ramps,
    /// Little, and once a day six times as much within a minute: a sale, an outage elsewhere.
    FlashCrowd,
}

impl Shape {
    /// All of them, by name.
    pub const ALL: [(&'static str, Self); 4] = [
        ("diurnal", Self::Diurnal),
        ("bursts", Self::Bursts),
        ("ramps", Self::Ramps),
        ("flash-crowd", Self::FlashCrowd),
    ];

    /// The shape's share of the peak, from 0 to 1, at an hour since Monday's midnight.
    fn share(self, hour: f64) -> f64 {
        let (day, of_day) = ((hour / 24.0) as i64 % 7, hour % 24.0);
        let weekend = day >= 5;
        // A hill around an hour of the day; the day before and after count, too.
        let hill = |around: f64, width: f64| {
            [-24.0, 0.0, 24.0]
                .iter()
                .map(|shift| (-((of_day - around + shift) / width).powi(2)).exp())
                .sum::<f64>()
        };
        match self {
            Self::Diurnal => {
                (0.08 + (if weekend { 0.9 } else { 0.7 }) * hill(20.5, 3.0) + 0.15 * hill(13.0, 3.0)).min(1.0)
            }
            Self::Bursts if weekend => 0.03,
            Self::Bursts => 0.03 + 0.45 * (hill(10.5, 2.0) + hill(15.0, 2.0)).min(1.0),
            Self::Ramps => {
                let of_cycle = hour % 8.0;
                0.05 + 0.95 * if of_cycle < 5.0 { of_cycle / 5.0 } else { (8.0 - of_cycle) / 3.0 }
            }
            // A quarter of an hour long, at 11:00 and some minutes that shift from day to day.
            Self::FlashCrowd => {
                let begins = 11.0 + (day as f64) * 0.13;
                if (begins..begins + 0.25).contains(&of_day) { 1.0 } else { 0.15 }
            }
        }
    }
}

/// A load of a shape: how many are busy at its peak, for how long each on average, over so many hours.
pub fn generate(shape: Shape, peak: f64, lasts: SignedDuration, hours: f64, seed: u64) -> Load {
    let mut chance = Chance::new(seed);
    let (mean, most) = (lasts.as_secs_f64(), peak / lasts.as_secs_f64());
    let mut requests = Vec::new();
    let mut seconds = 0.0;
    let mut add = |seconds: f64, chance: &mut Chance| {
        let lasts = chance.wait(1.0 / mean).max(1.0);
        let millis = |seconds: f64| SignedDuration::from_millis((seconds * 1000.0).round() as i64);
        requests.push(Request { at: monday() + millis(seconds), lasts: millis(lasts) });
    };
    loop {
        // As many as at the peak come, and are left out by chance.
        seconds += chance.wait(most);
        if seconds >= hours * 3600.0 {
            break;
        }
        if chance.share() >= shape.share(seconds / 3600.0) {
            continue;
        }
        add(seconds, &mut chance);
        // One push in forty starts a whole matrix of builds.
        if shape == Shape::Bursts && chance.share() < 0.025 {
            for _ in 0..(peak / 4.0) as usize {
                let later = seconds + chance.share() * 5.0;
                add(later, &mut chance);
            }
        }
    }
    let name = Shape::ALL.iter().find(|(_, of)| *of == shape).map_or("", |(name, _)| *name);
    Load::new(name, requests)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy_hours(load: &Load, from: f64, until: f64) -> f64 {
        let within = |request: &&Request| {
            let hour = request.at.duration_since(monday()).as_secs_f64() / 3600.0;
            (from..until).contains(&hour)
        };
        load.requests.iter().filter(within).map(|request| request.lasts.as_secs_f64() / 3600.0).sum()
    }

    #[test]
    fn the_same_seed_makes_the_same_load_and_another_another() {
        let of = |seed| generate(Shape::Diurnal, 20.0, SignedDuration::from_mins(10), 24.0, seed);
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }

    #[test]
    fn loads_have_their_shapes() {
        let of = |shape| generate(shape, 40.0, SignedDuration::from_mins(10), 7.0 * 24.0, 1);
        let diurnal = of(Shape::Diurnal);
        assert!(busy_hours(&diurnal, 20.0, 21.0) > 5.0 * busy_hours(&diurnal, 4.0, 5.0));
        let bursts = of(Shape::Bursts);
        assert!(busy_hours(&bursts, 0.0, 24.0) > 5.0 * busy_hours(&bursts, 120.0, 144.0));
        let flash = of(Shape::FlashCrowd);
        assert!(busy_hours(&flash, 11.0, 11.25) > 3.0 * busy_hours(&flash, 10.0, 10.25));
        let ramps = of(Shape::Ramps);
        assert!(busy_hours(&ramps, 4.0, 5.0) > 2.0 * busy_hours(&ramps, 1.0, 2.0));
    }
}
