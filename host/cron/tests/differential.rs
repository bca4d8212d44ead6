//! Random schedules against the Go library that Kubernetes uses, live: `stoker-cluster cron` answers for it, with
//! the time zones of the tests. `make unit` builds that program and runs these tests.
//!
//! Seeds are fixed, so a run says the same as the one before. Where the two differ, one of two rules must explain
//! it, and how many they explain is bounded:
//!
//! - [`refused_here`]: texts that Kubernetes takes and Stoker does not, each kind for a reason;
//! - [`odd`]: changes of the clocks at which Kubernetes' search goes wrong. The judge is the oracle, which asks of
//!   each minute whether it is named.
#![allow(clippy::unwrap_used)]

mod fixtures;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fixtures::{DAY, Fields, MINUTE, SECONDS, ZONES, fields, instant, near};
use jiff::civil::date;
use jiff::tz::{TimeZone, TimeZoneTransition};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use stoker_cron::Schedule;

/// Schedules that are compared, each in every zone from an instant of its own.
const SCHEDULES: usize = 20_000;
/// Texts of which most are no schedule.
const TEXTS: usize = 60_000;
/// Instants in a row.
const COUNT: usize = 3;
/// Both sides search up to the end of the fifth year after the one in which they begin.
const SEARCHED: i64 = 6 * 366 * DAY;
/// A search may go back to the first of the month before it goes on, and a bit more by a change of the clocks.
const BACK: i64 = 33 * DAY;

/// Zones without odd changes at any time of [`SECONDS`] and of the searches that begin there.
const EVEN_ZONES: [&str; 4] = ["UTC", "Europe/Berlin", "Europe/Dublin", "America/New_York"];

/// Values of a strategy, the same in each run.
struct Chance(TestRunner);

impl Chance {
    fn of(seed: u8) -> Self {
        let chance = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
        Self(TestRunner::new_with_rng(Config { failure_persistence: None, ..Config::default() }, chance))
    }

    fn one<T: std::fmt::Debug>(&mut self, strategy: &impl Strategy<Value = T>) -> T {
        strategy.new_tree(&mut self.0).unwrap().current()
    }
}

/// What Kubernetes' library answers to a line.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Kubernetes {
    Refuses,
    /// The instants, and whether there are no more, or the search for the next does not end.
    Names(Vec<Timestamp>, Option<End>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    None,
    Endless,
}

/// A folder of the tests' zones, under names that no machine has: another database than this one is not found.
fn zones() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("zones");
    for zone in ZONES {
        let file = folder.join("stoker").join(zone);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        // Tests that run at the same time write the same: none may find half a file.
        let written = file.with_extension(format!("{:?}", std::thread::current().id()));
        std::fs::write(&written, fixtures::zone_data(zone)).unwrap();
        std::fs::rename(written, file).unwrap();
    }
    folder
}

/// Asks for the next `count` instants of each schedule in a zone after an instant; 0 = whether it is taken.
fn ask(count: usize, questions: &[(&str, &str, Timestamp)]) -> Vec<Kubernetes> {
    // Where it runs, not where it was built: folders may share a target folder.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from("."), PathBuf::from);
    let program = here.join("../../target/cluster/bin/stoker-cluster");
    let mut child = Command::new(&program)
        .args(["cron", &count.to_string()])
        .env("ZONEINFO", zones())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}; hack/setup.sh cluster builds it", program.display()));
    let lines: String =
        questions.iter().map(|(text, zone, after)| format!("{text}|stoker/{zone}|{after}\n")).collect();
    // It reads all before it answers.
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}: {}", program.display(), output.status);
    let answers: Vec<Kubernetes> = String::from_utf8(output.stdout).unwrap().lines().map(answer).collect();
    assert_eq!(answers.len(), questions.len());
    answers
}

fn answer(line: &str) -> Kubernetes {
    if line == "error" {
        return Kubernetes::Refuses;
    }
    let (mut instants, mut end) = (Vec::new(), None);
    for word in line.split_whitespace() {
        match word {
            "none" => end = Some(End::None),
            "endless" => end = Some(End::Endless),
            _ => instants.push(word.parse().unwrap_or_else(|_| panic!("{line}"))),
        }
    }
    Kubernetes::Names(instants, end)
}

fn seconds_after(at: Timestamp, seconds: i64) -> Timestamp {
    at.checked_add(SignedDuration::from_secs(seconds)).unwrap()
}

/// Whether Kubernetes' search may go wrong at this change of the clocks. It steps by an hour on the clock that
/// runs through, takes what it lands on for a full hour, and goes to a day by way of its midnight. So it loses
/// times, or turns back, where
///
/// - the clocks change by other than full hours, or not at a full hour;
/// - a midnight is skipped or repeated;
/// - more than an hour is repeated.
fn odd(change: &TimeZoneTransition, zone: &TimeZone) -> bool {
    const HOUR: i64 = 60 * MINUTE;
    let at = change.timestamp().as_second();
    let before = at + i64::from(zone.to_offset(seconds_after(change.timestamp(), -1)).seconds());
    let after = at + i64::from(change.offset().seconds());
    // The local times that are skipped or repeated are those from the one to before the other.
    let (from, to) = (before.min(after), before.max(after));
    let midnight = from.div_euclid(DAY) * DAY;
    let has_midnight = from < to && (midnight == from || midnight + DAY < to);
    before.rem_euclid(HOUR) != 0 || after.rem_euclid(HOUR) != 0 || has_midnight || before - after > HOUR
}

/// Whether one of the changes in this time is odd.
fn odd_between(from: Timestamp, to: Timestamp, zone: &TimeZone) -> bool {
    zone.following(seconds_after(from, -BACK))
        .take_while(|change| change.timestamp() <= to)
        .any(|change| odd(&change, zone))
}

#[derive(Debug, Default)]
struct Counts {
    /// Instants that were compared.
    compared: usize,
    /// Of these, with no odd change near: there the two may not differ.
    even: usize,
    differ: usize,
    endless: usize,
    /// Of those that differ, Kubernetes goes back in time.
    back: usize,
}

/// Where Stoker and Kubernetes name different instants, an odd change is between, and the oracle is with Stoker.
#[test]
#[ignore = "needs target/cluster/bin/stoker-cluster: make unit"]
fn kubernetes_and_stoker_name_the_same_instants() {
    let mut chance = Chance::of(1);
    let (fields, near) = (fields(), near());
    let schedules: Vec<Fields> = (0..SCHEDULES).map(|_| chance.one(&fields)).collect();
    let zones = ZONES.map(|name| (name, fixtures::zone(name)));
    let mut questions = Vec::new();
    for fields in &schedules {
        for (name, zone) in &zones {
            let (second, near) = (chance.one(&SECONDS), chance.one(&near));
            // Most are full seconds.
            let nanoseconds = chance.one(&prop::sample::select(&[0, 0, 0, 1, 999_999_999_i64][..]));
            let after = instant(zone, second, near);
            let after = after.checked_add(SignedDuration::from_nanos(nanoseconds)).unwrap();
            questions.push((fields, *name, zone, after));
        }
    }
    // Every hour about each turn of the year around 2100, which is no leap year: where searches give up.
    let february = [28, 29, 30].map(fixtures::in_february);
    for (fields, (name, zone)) in
        february.iter().flat_map(|fields| zones.iter().map(move |zone| (fields, zone)))
    {
        for (year, hour) in (2094..2106).flat_map(|year| (-15..15).map(move |hour| (year, hour))) {
            let turn = date(year, 1, 1).at(0, 0, 0, 0).to_zoned(TimeZone::UTC).unwrap().timestamp();
            questions.push((fields, *name, zone, seconds_after(turn, hour * 60 * MINUTE)));
        }
    }
    let lines: Vec<_> =
        questions.iter().map(|(fields, name, _, after)| (fields.text.as_str(), *name, *after)).collect();
    let begun = std::time::Instant::now();
    let answers = ask(COUNT, &lines);
    println!("Kubernetes: {:?}", begun.elapsed());
    let begun = std::time::Instant::now();
    let mut counts = Counts::default();
    for ((fields, name, zone, after), answer) in questions.iter().zip(answers) {
        let what = format!("{:?} in {name} after {after}", fields.text);
        let schedule = Schedule::parse(&fields.text).unwrap_or_else(|error| panic!("{what}: {error}"));
        let Kubernetes::Names(instants, end) = answer else { panic!("{what}: Kubernetes refuses") };
        let mut from = *after;
        let named = instants.into_iter().map(Ok).chain(end.map(Err));
        for theirs in named {
            let ours = schedule.next(from, zone);
            counts.compared += 1;
            counts.endless += usize::from(theirs == Err(End::Endless));
            compare(fields, ours, theirs, from, zone, &mut counts, &what);
            match theirs {
                Ok(instant) => from = instant,
                Err(_) => break,
            }
        }
    }
    println!("{counts:?}, compared within {:?}", begun.elapsed());
    // Measured: 871,940 instants, of which 85 % are even; 3,103 differ, and 5 searches do not end.
    assert!(counts.compared > 800_000, "{counts:?}");
    assert!(counts.even * 100 > counts.compared * 80, "{counts:?}");
    assert!(counts.differ * 1_000 < counts.compared * 5, "{counts:?}");
    assert!(counts.endless < 20, "{counts:?}");
    // Else what the crate's page says of Kubernetes is no longer so.
    assert!(counts.endless > 0 && counts.back > 0, "{counts:?}");
}

fn compare(
    fields: &Fields,
    ours: Option<Timestamp>,
    theirs: Result<Timestamp, End>,
    from: Timestamp,
    zone: &TimeZone,
    counts: &mut Counts,
    what: &str,
) {
    let end = seconds_after(from, SEARCHED);
    let last = ours.unwrap_or(end).max(theirs.unwrap_or(end));
    let odd = odd_between(from, last, zone);
    counts.even += usize::from(!odd);
    if theirs == ours.ok_or(End::None) {
        return;
    }
    counts.differ += 1;
    counts.back += usize::from(theirs.is_ok_and(|theirs| theirs <= from));
    assert!(
        odd,
        "{what}: from {from} Stoker says {ours:?}, Kubernetes {theirs:?}, and no odd change is between"
    );
    let minute = from.as_second().div_euclid(MINUTE) * MINUTE + MINUTE;
    let right = fields.first(minute, ours.unwrap_or(end).as_second(), zone);
    assert_eq!(
        ours, right,
        "{what}: from {from} Stoker says {ours:?}, Kubernetes {theirs:?}, the oracle {right:?}"
    );
}

/// Why a text is refused that Kubernetes may take, or nothing where both must say the same.
fn refused_here(text: &str) -> Option<&'static str> {
    if text.starts_with("@every") {
        return Some("@every names no instants without a beginning");
    }
    if text.starts_with("TZ=") || text.starts_with("CRON_TZ=") {
        return Some("the zone has a field of its own, and Kubernetes' API refuses such a prefix, too");
    }
    let mut fields = text.split_whitespace();
    if fields.clone().any(|field| field.chars().all(|letter| letter == ',')) {
        return Some("a field of commas only names nothing");
    }
    if fields.any(|field| field.split(',').any(|item| item.starts_with("*-") || item.starts_with("?-"))) {
        return Some("Kubernetes does not read what follows *-");
    }
    // In lower case it is the letter i for Kubernetes, and so `frİ` is Friday.
    text.to_uppercase().contains("FRİ").then_some("an İ is no i")
}

/// A text that may be a schedule, but mostly is not: a good one with changes, one of chosen pieces, or anything.
fn text() -> impl Strategy<Value = String> {
    let letters = "0123456789-*/,? \t@abcdefhijlmnoprstuvwyFRIWLTZ#=+.|_\u{a0}\u{2003}é٣İ";
    let letter = prop::sample::select(letters.chars().collect::<Vec<_>>());
    let change = (any::<prop::sample::Index>(), 0..3_u8, letter.clone());
    let changed = (fields(), prop::collection::vec(change, 1..4)).prop_map(|(fields, changes)| {
        let mut text: Vec<char> = fields.text.chars().collect();
        for (place, what, letter) in changes {
            let at = place.index(text.len() + 1);
            match what {
                0 => text.insert(at, letter),
                1 if at < text.len() => text[at] = letter,
                _ if at < text.len() => drop(text.remove(at)),
                _ => {}
            }
        }
        text.into_iter().collect()
    });
    let piece = prop::sample::select(vec![
        "*",
        "?",
        "0",
        "1",
        "5",
        "6",
        "7",
        "12",
        "13",
        "23",
        "24",
        "31",
        "32",
        "59",
        "60",
        "-1",
        "00",
        "+5",
        "jan",
        "DEC",
        "sun",
        "Fri",
        "frİ",
        "mon-fri",
        "fri-mon",
        "1-5",
        "5-1",
        "9-9",
        "1-60",
        "0-59/7",
        "*/2",
        "*/1",
        "*/0",
        "*/01",
        "?/3",
        "5/15",
        "59/100",
        "*/+3",
        "*/-3",
        "*/",
        "/5",
        "1//2",
        "1/2/3",
        "1-2-3",
        "*-5",
        "?-x",
        "*-5/2",
        ",",
        ",,",
        "1,",
        ",2",
        "1,,2",
        "*,3",
        "L",
        "5L",
        "1W",
        "1#2",
        "MONDAY",
        "1.5",
        "1e1",
        "0x5",
        "1_0",
        "*/9223372036854775807",
        "*/9223372036854775808",
        "1/18446744073709551615",
        "*/18446744073709551616",
        "9223372036854775808",
        "99999999999999999999",
        "@daily",
        "@Daily",
        "@every",
        "1h",
        "TZ=UTC",
    ]);
    let pieces = prop::collection::vec(piece.clone(), 5).prop_map(|pieces| pieces.join(" "));
    let one_piece =
        (fields(), any::<prop::sample::Index>(), piece.clone()).prop_map(|(fields, place, piece)| {
            let mut parts: Vec<&str> = fields.text.split_whitespace().collect();
            let at = place.index(parts.len());
            parts[at] = piece;
            parts.join(" ")
        });
    let some_pieces = prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.join(" "));
    let words = prop::sample::select(vec![
        "",
        " ",
        "@",
        "@hourly",
        "@HOURLY",
        " @hourly",
        "@hourly ",
        "@reboot",
        "@every 1h",
        "@every",
        "@every x",
        "@everyday",
        "@yearly",
        "@annually",
        "@annualy",
        "@midnight",
        "TZ=UTC 0 8 * * *",
        "CRON_TZ=Europe/Berlin 0 8 * * *",
        "TZ=UTC",
        "TZ=Mars 0 8 * * *",
        " TZ=UTC 0 8 * * *",
        "tz=UTC 0 8 * * *",
        "TZ=UTC @daily",
    ]);
    let anything = prop::collection::vec(letter, 0..24).prop_map(|letters| letters.into_iter().collect());
    prop_oneof![
        6 => changed,
        6 => one_piece,
        1 => pieces,
        1 => some_pieces,
        1 => words.prop_map(str::to_owned),
        1 => anything,
    ]
}

/// Both take the same texts as schedules, but for those that are refused for a reason, and read them alike.
#[test]
#[ignore = "needs target/cluster/bin/stoker-cluster: make unit"]
fn kubernetes_and_stoker_refuse_the_same_texts() {
    let mut chance = Chance::of(2);
    let text = text();
    let zones = EVEN_ZONES.map(|name| (name, fixtures::zone(name))).to_vec();
    for (name, zone) in &zones {
        let ends = [SECONDS.start, SECONDS.end].map(|second| Timestamp::from_second(second).unwrap());
        assert!(
            !odd_between(ends[0], seconds_after(ends[1], 3 * SEARCHED), zone),
            "{name} has an odd change"
        );
    }
    let (zone, near) = (prop::sample::select(zones), near());
    let (mut alike, mut apart) = (Vec::new(), Vec::new());
    for _ in 0..TEXTS {
        let (text, (name, zone)) = (chance.one(&text), chance.one(&zone));
        let after = instant(&zone, chance.one(&SECONDS), chance.one(&near));
        match refused_here(&text) {
            None => alike.push((text, name, zone, after)),
            Some(reason) => apart.push((text, name, after, reason)),
        }
    }

    let lines: Vec<_> = alike.iter().map(|(text, name, _, after)| (text.as_str(), *name, *after)).collect();
    let (mut taken, mut refused) = (0, 0);
    for ((text, name, zone, after), answer) in alike.iter().zip(ask(COUNT, &lines)) {
        let ours = match Schedule::parse(text) {
            Err(_) => Kubernetes::Refuses,
            Ok(schedule) => {
                let first = schedule.next(*after, zone);
                let all = std::iter::successors(first, |last| schedule.next(*last, zone));
                let instants: Vec<_> = all.take(COUNT).collect();
                let end = (instants.len() < COUNT).then_some(End::None);
                Kubernetes::Names(instants, end)
            }
        };
        assert_eq!(ours, answer, "{text:?} in {name} after {after}");
        *(if ours == Kubernetes::Refuses { &mut refused } else { &mut taken }) += 1;
    }

    // Whether it is taken is enough: a search may take long, as it does for commas.
    let lines: Vec<_> = apart.iter().map(|(text, name, after, _)| (text.as_str(), *name, *after)).collect();
    let mut reasons: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for ((text, .., reason), answer) in apart.iter().zip(ask(0, &lines)) {
        assert!(Schedule::parse(text).is_err(), "{text:?} is taken, though {reason}");
        let (all, taken) = reasons.entry(reason).or_default();
        *all += 1;
        *taken += usize::from(answer != Kubernetes::Refuses);
    }
    println!("alike: {taken} taken, {refused} refused; refused here (and taken by Kubernetes): {reasons:?}");
    assert!(taken > TEXTS / 10 && refused > TEXTS / 10, "{taken} taken, {refused} refused");
    // Each reason is one that makes a difference, and together they excuse few texts.
    assert!(reasons.len() == 5 && reasons.values().all(|(_, taken)| *taken > 0), "{reasons:?}");
    assert!(apart.len() * 10 < TEXTS, "{reasons:?}");
}
