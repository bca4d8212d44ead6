//! Simulations as pictures: what was asked for, what worked, what stood by.

use anyhow::{Result, anyhow};
use jiff::{SignedDuration, Timestamp};
use plotters::prelude::*;
use stoker_simulate::{Outcome, Point};

/// Lines of a picture in the terminal.
const LINES: usize = 12;
/// A picture's height and the document's width in an SVG, in pixels.
const PANEL: (u32, u32) = (1000, 220);

/// What held on average, or at most, in a part of the time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Bin {
    demand: f64,
    waiting: f64,
    busy: f64,
    standby: f64,
    starting: f64,
    target: f64,
}

/// The time in equal parts. Of demand and target the most counts in each, of the rest the mean.
fn bins(outcome: &Outcome, parts: usize) -> Vec<Bin> {
    let mut bins = vec![Bin::default(); parts];
    let points: Vec<&Point> = outcome.points.iter().collect();
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return bins };
    let (begins, span) = (first.at, last.at.duration_since(first.at).as_secs_f64().max(1.0));
    let place = |at: Timestamp| at.duration_since(begins).as_secs_f64() / span * parts as f64;
    for pair in points.windows(2) {
        let (from, until, point) = (place(pair[0].at), place(pair[1].at), pair[0]);
        let mut bin = from.floor() as usize;
        while bin < parts && (bin as f64) < until {
            let share = until.min(bin as f64 + 1.0) - from.max(bin as f64);
            let of = &mut bins[bin];
            of.busy += share * f64::from(point.busy);
            of.standby += share * f64::from(point.standby);
            of.starting += share * f64::from(point.starting);
            of.demand = of.demand.max(f64::from(point.demand));
            of.waiting = of.waiting.max(f64::from(point.demand - point.busy.min(point.demand)));
            of.target = of.target.max(f64::from(point.target));
            bin += 1;
        }
    }
    bins
}

fn most(bins: &[Bin]) -> f64 {
    let of = |bin: &Bin| bin.demand.max(bin.target).max(bin.busy + bin.standby + bin.starting);
    bins.iter().map(of).fold(1.0, f64::max)
}

/// When the load begins: what came before is the pool's filling.
fn begins(outcome: &Outcome) -> Option<Timestamp> {
    let last = outcome.points.last()?.at;
    Some(last - outcome.simulated)
}

/// A simulation in a terminal of so many columns.
pub fn terminal(outcome: &Outcome, columns: usize) -> String {
    let parts = columns.saturating_sub(8).max(20);
    let bins = bins(outcome, parts);
    let step = most(&bins) / LINES as f64;
    let mut out = format!("{} on {}\n", outcome.policy, outcome.load);
    for line in (0..LINES).rev() {
        let middle = (line as f64 + 0.5) * step;
        let sign = |bin: &Bin| match bin {
            bin if middle < bin.busy => '█',
            bin if middle < bin.demand && middle >= bin.demand - bin.waiting => '×',
            bin if middle < bin.demand => '▓',
            bin if middle < bin.busy + bin.standby => '▒',
            bin if middle < bin.busy + bin.standby + bin.starting => '░',
            bin if (middle - bin.target).abs() <= step / 2.0 => '─',
            _ => ' ',
        };
        let label = if line % 4 == 3 || line == 0 {
            format!("{:.0}", (line as f64 + 1.0) * step)
        } else {
            String::new()
        };
        let row: String = bins.iter().map(sign).collect();
        out += &format!("{label:>5} │{}\n", row.trim_end());
    }
    out += &format!("{:>5} └{}\n", "", "─".repeat(parts));
    if let Some(begins) = begins(outcome) {
        let ends = begins + outcome.simulated;
        let (from, until) = (begins.to_string(), ends.to_string());
        let (from, until) = (&from[..from.len().min(16)], &until[..until.len().min(16)]);
        out += &format!("{:7}{from}{:>width$}\n", "", until, width = parts - from.len());
    }
    out += "       █ busy on average, ▓ at most  × waits  ▒ standby  ░ starting  ─ target\n";
    out
}

/// Simulations as one SVG document, one below the other.
pub fn svg(outcomes: &[Outcome]) -> Result<String> {
    let mut text = String::new();
    {
        let count = u32::try_from(outcomes.len()).unwrap_or(1).max(1);
        let root = SVGBackend::with_string(&mut text, (PANEL.0, PANEL.1 * count)).into_drawing_area();
        let drawn = |error: &dyn std::fmt::Display| anyhow!("the picture cannot be drawn: {error}");
        root.fill(&WHITE).map_err(|error| drawn(&error))?;
        // All panels of a load have the same scale, so that they can be compared.
        let most_of = |load: &str| {
            let same = outcomes.iter().filter(|outcome| outcome.load == load);
            same.map(|outcome| most(&bins(outcome, 500))).fold(1.0, f64::max)
        };
        for (panel, outcome) in root.split_evenly((outcomes.len().max(1), 1)).iter().zip(outcomes) {
            draw(panel, outcome, most_of(&outcome.load)).map_err(|error| drawn(&error))?;
        }
        root.present().map_err(|error| drawn(&error))?;
    }
    Ok(text)
}

const DEMAND: RGBColor = RGBColor(197, 48, 48);
const BUSY: RGBColor = RGBColor(43, 108, 176);
const STANDBY: RGBColor = RGBColor(144, 205, 244);
const STARTING: RGBColor = RGBColor(226, 232, 240);
const TARGET: RGBColor = RGBColor(45, 55, 72);

/// What is drawn of each part of the time, in which colour, and its name.
type Series = (fn(&Bin) -> f64, RGBColor, &'static str);

type Area<'a, 'b> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn draw(
    panel: &Area<'_, '_>,
    outcome: &Outcome,
    most: f64,
) -> Result<(), DrawingAreaErrorKind<std::io::Error>> {
    let bins = bins(outcome, 500);
    let hours = outcome.simulated.as_secs_f64() / 3600.0 + 1.0;
    let at = |bin: usize| bin as f64 / 500.0 * hours - 1.0;
    let caption = format!(
        "{} on {}: {:.1} % at once, {:.0} pod-hours ({:+.0} % above the best)",
        outcome.policy,
        outcome.load,
        outcome.at_once(),
        outcome.pod_hours,
        outcome.above_best()
    );
    let mut chart = ChartBuilder::on(panel)
        .caption(caption, ("sans-serif", 16))
        .margin(8)
        .x_label_area_size(24)
        .y_label_area_size(40)
        .build_cartesian_2d(-1.0..hours - 1.0, 0.0..most * 1.05)?;
    let label = |hour: &f64| {
        let begins = begins(outcome).unwrap_or(Timestamp::UNIX_EPOCH);
        let time = begins + SignedDuration::from_secs((hour * 3600.0) as i64);
        time.to_string().get(5..16).unwrap_or_default().replace('T', " ")
    };
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.08))
        .x_labels(10)
        .y_labels(5)
        .x_label_formatter(&label)
        .y_label_formatter(&|pods| format!("{pods:.0}"))
        .draw()?;
    let stacked: [Series; 3] = [
        (|bin| bin.busy + bin.standby + bin.starting, STARTING, "starting"),
        (|bin| bin.busy + bin.standby, STANDBY, "standby"),
        (|bin| bin.busy, BUSY, "busy"),
    ];
    for (of, colour, name) in stacked {
        let line = bins.iter().enumerate().map(|(i, bin)| (at(i), of(bin)));
        chart
            .draw_series(AreaSeries::new(line, 0.0, colour.filled()))?
            .label(name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 4), (x + 12, y + 4)], colour.filled()));
    }
    let lines: [Series; 2] = [(|bin| bin.target, TARGET, "target"), (|bin| bin.demand, DEMAND, "demand")];
    for (of, colour, name) in lines {
        let line = bins.iter().enumerate().map(|(i, bin)| (at(i), of(bin)));
        chart
            .draw_series(LineSeries::new(line, colour.stroke_width(1)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 12, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .label_font(("sans-serif", 12))
        .draw()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome() -> Outcome {
        let point = |seconds: i64, demand, busy, standby, target| Point {
            at: Timestamp::from_second(seconds).unwrap(),
            demand,
            busy,
            standby,
            starting: 0,
            target,
        };
        Outcome {
            load: "evening".into(),
            policy: "buffer".into(),
            requests: 2,
            misses: 1,
            unserved: 0,
            interrupted: 0,
            wait_p50: 0,
            wait_p99: 4_000,
            pod_hours: 2.0,
            busy_hours: 1.0,
            best_hours: 1.0,
            most_pods: 4,
            created: 4,
            removed: 0,
            looks: 9,
            failures: 0,
            error: None,
            simulated: SignedDuration::from_secs(100),
            points: vec![point(0, 0, 0, 2, 2), point(50, 4, 2, 0, 4), point(100, 0, 0, 4, 4)],
        }
    }

    #[test]
    fn each_part_of_the_time_shows_what_held_in_it() {
        let bins = bins(&outcome(), 4);
        assert_eq!((bins[0].standby, bins[0].busy, bins[0].target), (2.0, 0.0, 2.0));
        assert_eq!((bins[3].busy, bins[3].demand, bins[3].target), (2.0, 4.0, 4.0));
    }

    #[test]
    fn a_terminal_shows_work_and_what_waits_for_it() {
        let drawn = terminal(&outcome(), 60);
        let lines: Vec<&str> = drawn.lines().collect();
        assert_eq!(lines[0], "buffer on evening");
        assert!(lines[1].ends_with('×') && lines[12].ends_with('█'), "{drawn}");
        assert!(lines[12].contains('▒'), "{drawn}");
        assert!(lines.iter().all(|line| line.chars().count() <= 90), "{drawn}");
    }

    #[test]
    fn a_document_has_a_panel_for_each_simulation() {
        let drawn = svg(&[outcome(), outcome()]).unwrap();
        assert_eq!(drawn.matches("buffer on evening").count(), 2);
        assert!(drawn.starts_with("<svg") && drawn.contains("height=\"440\""));
    }
}
