//! A sheet of terminal cells: lines that join where they belong together, text over them, and ink for colour.

use crate::graph::State;
use crate::text;

/// What a cell is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ink {
    /// As the terminal writes.
    Plain,
    /// Present without being looked at: edges and details.
    Faint,
    /// Titles.
    Strong,
    /// As steps of this state are.
    State(State),
}

impl Ink {
    fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain | Self::State(State::Waiting) => None,
            Self::Faint | Self::State(State::Skipped) => Some("90"),
            Self::Strong => Some("1"),
            Self::State(State::Succeeded) => Some("32"),
            Self::State(State::Failed) => Some("1;31"),
            Self::State(State::Running) => Some("1;36"),
        }
    }
}

/// Where a line leaves a cell.
const UP: u8 = 1;
const DOWN: u8 = 2;
const LEFT: u8 = 4;
const RIGHT: u8 = 8;

#[derive(Clone, Copy)]
struct Cell {
    /// Text wins over lines. A zero is the second half of a wide character.
    text: Option<char>,
    lines: u8,
    /// Whose lines these are: lines of others pass without joining.
    owner: usize,
    ink: Ink,
}

const EMPTY: Cell = Cell { text: None, lines: 0, owner: usize::MAX, ink: Ink::Plain };

pub(crate) struct Canvas {
    width: usize,
    cells: Vec<Cell>,
}

impl Canvas {
    pub(crate) fn new(width: usize, height: usize) -> Self {
        Self { width, cells: vec![EMPTY; width * height] }
    }

    fn cell(&mut self, x: usize, y: usize) -> Option<&mut Cell> {
        if x >= self.width {
            return None;
        }
        self.cells.get_mut(y * self.width + x)
    }

    /// A frame from corner to corner.
    pub(crate) fn frame(
        &mut self,
        owner: usize,
        (x0, y0): (usize, usize),
        (x1, y1): (usize, usize),
        ink: Ink,
    ) {
        for y in [y0, y1] {
            self.horizontal(owner, y, x0, x1, ink);
        }
        for x in [x0, x1] {
            self.vertical(owner, x, y0, y1, ink);
        }
    }

    /// A line that leaves a cell downwards without changing its ink: where an edge leaves a box.
    pub(crate) fn leave(&mut self, x: usize, y: usize) {
        if let Some(cell) = self.cell(x, y) {
            cell.lines |= DOWN;
        }
    }

    /// A line across. Where it meets another's line down, that one stays and this one passes beneath.
    pub(crate) fn horizontal(&mut self, owner: usize, y: usize, x0: usize, x1: usize, ink: Ink) {
        for x in x0..=x1 {
            let ends = if x > x0 { LEFT } else { 0 } | if x < x1 { RIGHT } else { 0 };
            let Some(cell) = self.cell(x, y) else { continue };
            if cell.owner == owner || cell.lines == 0 {
                *cell = Cell { lines: cell.lines | ends, owner, ink, ..*cell };
            }
        }
    }

    /// A line down, over lines across of others.
    pub(crate) fn vertical(&mut self, owner: usize, x: usize, y0: usize, y1: usize, ink: Ink) {
        self.down(owner, x, (y0, y1), 0, ink);
    }

    /// A line down that comes from the cell above its first.
    pub(crate) fn drop_from(&mut self, owner: usize, x: usize, y0: usize, y1: usize, ink: Ink) {
        self.down(owner, x, (y0, y1), UP, ink);
    }

    fn down(&mut self, owner: usize, x: usize, (y0, y1): (usize, usize), first: u8, ink: Ink) {
        for y in y0..=y1 {
            let ends = if y > y0 { UP } else { first } | if y < y1 { DOWN } else { 0 };
            let Some(cell) = self.cell(x, y) else { continue };
            let kept = if cell.owner == owner { cell.lines } else { 0 };
            *cell = Cell { lines: kept | ends, owner, ink, ..*cell };
        }
    }

    /// Text from a cell on to the right.
    pub(crate) fn text(&mut self, x: usize, y: usize, text: &str, ink: Ink) {
        let mut at = x;
        for character in text.chars() {
            let width = text::char_width(character);
            if width == 0 {
                continue;
            }
            for (offset, shown) in
                std::iter::once(character).chain(std::iter::repeat('\0')).take(width).enumerate()
            {
                if let Some(cell) = self.cell(at + offset, y) {
                    cell.text = Some(shown);
                    cell.ink = ink;
                }
            }
            at += width;
        }
    }

    /// The sheet as lines, without blanks at their ends.
    pub(crate) fn print(&self, colour: bool, out: &mut String) {
        for row in self.cells.chunks(self.width.max(1)) {
            let end = row
                .iter()
                .rposition(|cell| cell.text.is_some() || cell.lines != 0)
                .map_or(0, |last| last + 1);
            let mut written = Written::new(colour);
            for cell in row[..end].iter().filter(|cell| cell.text != Some('\0')) {
                let shown = cell.text.unwrap_or_else(|| line(cell.lines));
                written.push(shown, if shown == ' ' { Ink::Plain } else { cell.ink }, out);
            }
            written.end(out);
        }
    }
}

/// One line on its way out: changes of ink only where it changes.
struct Written {
    colour: bool,
    code: Option<&'static str>,
}

impl Written {
    fn new(colour: bool) -> Self {
        Self { colour, code: None }
    }

    fn push(&mut self, shown: char, ink: Ink, out: &mut String) {
        self.change(ink.code(), out);
        out.push(shown);
    }

    fn change(&mut self, code: Option<&'static str>, out: &mut String) {
        if self.colour && code != self.code {
            if self.code.is_some() {
                out.push_str("\u{1b}[0m");
            }
            if let Some(code) = code {
                out.push_str("\u{1b}[");
                out.push_str(code);
                out.push('m');
            }
            self.code = code;
        }
    }

    fn end(mut self, out: &mut String) {
        self.change(None, out);
        out.push('\n');
    }
}

/// One line of pieces of text.
pub(crate) fn print_line(pieces: &[(&str, Ink)], colour: bool, out: &mut String) {
    let mut written = Written::new(colour);
    for (text, ink) in pieces {
        text.chars().for_each(|shown| written.push(shown, if shown == ' ' { Ink::Plain } else { *ink }, out));
    }
    written.end(out);
}

fn line(ends: u8) -> char {
    const SIGNS: [char; 16] =
        [' ', '│', '│', '│', '─', '┘', '┐', '┤', '─', '└', '┌', '├', '─', '┴', '┬', '┼'];
    SIGNS[usize::from(ends & 15)]
}
