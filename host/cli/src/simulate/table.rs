//! The figures of simulations, a line for each.

use stoker_simulate::Outcome;

const HEAD: [&str; 10] = [
    "load",
    "policy",
    "requests",
    "at once",
    "wait p50",
    "wait p99",
    "pod-hours",
    "above best",
    "most pods",
    "created",
];

fn cells(outcome: &Outcome) -> [String; 10] {
    let wait = |millis: i64| match millis {
        0 => "0 s".to_owned(),
        1..100 => "< 0.1 s".to_owned(),
        100..10_000 => format!("{:.1} s", millis as f64 / 1000.0),
        _ => format!("{} s", millis / 1000),
    };
    // Who was never served has waited for longer than can be told.
    let p99 =
        if outcome.unserved * 100 > outcome.requests { "never".to_owned() } else { wait(outcome.wait_p99) };
    [
        outcome.load.clone(),
        outcome.policy.clone(),
        outcome.requests.to_string(),
        format!("{:.2} %", outcome.at_once()),
        wait(outcome.wait_p50),
        p99,
        format!("{:.1}", outcome.pod_hours),
        format!("{:+.0} %", outcome.above_best()),
        outcome.most_pods.to_string(),
        outcome.created.to_string(),
    ]
}

/// For a terminal: columns, numbers to the right.
pub fn text(outcomes: &[Outcome]) -> String {
    let rows: Vec<[String; 10]> = outcomes.iter().map(cells).collect();
    let width = |i: usize| {
        let cells = rows.iter().map(|row| row[i].chars().count());
        cells.chain([HEAD[i].len()]).max().unwrap_or(0)
    };
    let line = |row: [&str; 10]| {
        let cell = |(i, text): (usize, &str)| {
            let width = width(i);
            if i < 2 { format!("{text:<width$}") } else { format!("{text:>width$}") }
        };
        row.into_iter().enumerate().map(cell).collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    let mut out = line(HEAD);
    for (i, row) in rows.iter().enumerate() {
        if i > 0 && row[0] != rows[i - 1][0] {
            out.push('\n');
        }
        out += &line(row.each_ref().map(String::as_str));
    }
    out
}

/// For documents.
pub fn markdown(outcomes: &[Outcome]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut out = line(&HEAD.map(str::to_owned));
    out += "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|\n";
    outcomes.iter().for_each(|outcome| out += &line(&cells(outcome)));
    out
}
