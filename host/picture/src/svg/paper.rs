//! An SVG document in the making. Colours are attributes rather than a style sheet, so that it looks the same
//! wherever it is embedded; every word is escaped here.

use std::fmt::Write as _;

use crate::graph::State;

/// A point: from the left, from the top.
pub(crate) type Point = (i64, i64);

/// How broad the characters of monospaced fonts are, in percent of their size.
const CHARACTER_PERCENT: i64 = 60;
pub(crate) const NAME_SIZE: i64 = 13;
pub(crate) const DETAIL_SIZE: i64 = 11;
const FONT: &str = "ui-monospace, SFMono-Regular, Menlo, Consolas, &quot;DejaVu Sans Mono&quot;, monospace";

pub(crate) const INK: &str = "#1f2328";
pub(crate) const FAINT_INK: &str = "#59636e";
pub(crate) const LINE: &str = "#8c959f";

/// How a state looks: its frame and mark, its paper, and its dashes.
fn colours(state: State) -> (&'static str, &'static str, &'static str) {
    match state {
        State::Succeeded => ("#1a7f37", "#e6f6e9", ""),
        State::Failed => ("#c21c26", "#ffe8e6", ""),
        State::Running => ("#0860ca", "#e2f0ff", ""),
        State::Waiting => ("#6e7781", "#ffffff", ""),
        State::Skipped => ("#8c959f", "#f6f8fa", r#" stroke-dasharray="4 3""#),
    }
}

/// The breadth of a text of so many columns.
pub(crate) fn breadth(columns: usize, size: i64) -> i64 {
    (i64::try_from(columns).unwrap_or(0) * size * CHARACTER_PERCENT + 99) / 100
}

/// Where a text begins.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Anchor {
    Start,
    Middle,
}

/// How a text is written.
#[derive(Clone, Copy)]
pub(crate) struct Hand {
    pub(crate) size: i64,
    pub(crate) ink: &'static str,
    pub(crate) bold: bool,
    pub(crate) anchor: Anchor,
}

impl Hand {
    pub(crate) const fn new(size: i64, ink: &'static str) -> Self {
        Self { size, ink, bold: false, anchor: Anchor::Start }
    }

    pub(crate) const fn bold(self) -> Self {
        Self { bold: true, ..self }
    }

    pub(crate) const fn middle(self) -> Self {
        Self { anchor: Anchor::Middle, ..self }
    }
}

#[derive(Default)]
pub(crate) struct Paper {
    body: String,
}

// Writing to a String does not fail.
impl Paper {
    pub(crate) fn raw(&mut self, text: &str) {
        self.body.push_str(text);
        self.body.push('\n');
    }

    pub(crate) fn text(&mut self, (x, y): Point, text: &str, hand: Hand) {
        let Hand { size, ink, bold, anchor } = hand;
        let weight = if bold { r#" font-weight="600""# } else { "" };
        let anchor = if anchor == Anchor::Middle { r#" text-anchor="middle""# } else { "" };
        let text = escaped(text);
        writeln!(
            self.body,
            r#"<text x="{x}" y="{y}" font-size="{size}" fill="{ink}"{weight}{anchor}>{text}</text>"#
        )
        .ok();
    }

    /// A text over lines, which stop short of it.
    pub(crate) fn label(&mut self, at: Point, text: &str) {
        self.body.push_str(
            r##"<g stroke="#ffffff" stroke-width="4" stroke-linejoin="round" paint-order="stroke">"##,
        );
        self.text(at, text, Hand::new(DETAIL_SIZE, FAINT_INK).middle());
        self.raw("</g>");
    }

    pub(crate) fn rule(&mut self, (x0, y0): Point, (x1, y1): Point) {
        writeln!(
            self.body,
            r##"<path d="M{x0} {y0}L{x1} {y1}" stroke="#d0d7de" stroke-dasharray="6 4" fill="none"/>"##
        )
        .ok();
    }

    /// The mark of a state in a circle, 16 broad, around a point.
    pub(crate) fn mark(&mut self, (x, y): Point, state: State) {
        let (ink, _, _) = colours(state);
        writeln!(
            self.body,
            r##"<use href="#stoker-{}" x="{}" y="{}" color="{ink}"/>"##,
            state.word(),
            x - 8,
            y - 8
        )
        .ok();
    }

    /// Opens a step's group: what a pointer over it tells, and its frame.
    pub(crate) fn open_step(&mut self, (x, y): Point, (width, height): Point, state: State, told: &str) {
        let (ink, paper, dashes) = colours(state);
        let bold = if matches!(state, State::Failed | State::Running) { "2" } else { "1.25" };
        writeln!(
            self.body,
            r#"<g class="step {}"><title>{}</title><rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" fill="{paper}" stroke="{ink}" stroke-width="{bold}"{dashes}/>"#,
            state.word(),
            escaped(told),
        )
        .ok();
    }

    pub(crate) fn close(&mut self) {
        self.raw("</g>");
    }

    /// The document, of this size, named for those who cannot see it.
    pub(crate) fn finish(self, (width, height): Point, title: &str, told: &str) -> String {
        let (title, told) = (escaped(title), escaped(told));
        let marks: String = State::ALL.into_iter().map(shape_of).collect();
        format!(
            r##"<?xml version="1.0" encoding="UTF-8"?>
<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img" font-family="{FONT}">
<title>{title}</title>
<desc>{told}</desc>
<defs>
{marks}<marker id="stoker-arrow" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="8" markerHeight="8" markerUnits="userSpaceOnUse" orient="auto"><path d="M0 .5L8 4L0 7.5Z" fill="{LINE}"/></marker>
</defs>
<rect width="{width}" height="{height}" fill="#ffffff"/>
{}</svg>
"##,
            self.body
        )
    }
}

/// The mark of a state as a shape: fonts differ in whether they have the character, and in how it looks.
fn shape_of(state: State) -> String {
    let full = r#"<circle cx="8" cy="8" r="7.5" fill="currentColor"/>"#;
    let ring = r#"<circle cx="8" cy="8" r="6.75" fill="none" stroke="currentColor" stroke-width="1.5"/>"#;
    let white =
        r##"fill="none" stroke="#ffffff" stroke-width="2" stroke-linecap="round" stroke-linejoin="round""##;
    let shape = match state {
        State::Succeeded => format!(r#"{full}<path d="M4.6 8.3L7 10.7L11.4 5.6" {white}/>"#),
        State::Failed => format!(r#"{full}<path d="M5.2 5.2L10.8 10.8M10.8 5.2L5.2 10.8" {white}/>"#),
        State::Running => format!(r##"{full}<path d="M6.2 4.6L11.6 8L6.2 11.4Z" fill="#ffffff"/>"##),
        State::Waiting => format!(r#"{ring}<circle cx="8" cy="8" r="1.75" fill="currentColor"/>"#),
        State::Skipped => {
            format!(r#"{ring}<path d="M3.4 12.6L12.6 3.4" stroke="currentColor" stroke-width="1.5"/>"#)
        }
    };
    format!("<g id=\"stoker-{}\">{shape}</g>\n", state.word())
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            other => escaped.push(other),
        }
    }
    escaped
}
