//! Text that others wrote, made fit to be shown: one line, without what would move a cursor or turn the line around.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// One line without control characters, without marks of direction, without blanks at its ends.
pub(crate) fn line(text: &str) -> String {
    let shown: String =
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).filter(|&c| visible(c)).collect();
    shown.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn visible(c: char) -> bool {
    // Directions, joiners and byte order marks show nothing themselves; the last two are not allowed in XML.
    !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

/// The columns that a terminal gives a text.
pub(crate) fn width(text: &str) -> usize {
    UnicodeWidthStr::width(text)
}

/// The columns that a terminal gives a character.
pub(crate) fn char_width(c: char) -> usize {
    UnicodeWidthChar::width(c).unwrap_or(0)
}

/// A text of at most so many columns: what is too long loses its middle, as names often differ at their ends.
pub(crate) fn middle_cut(text: &str, most: usize) -> String {
    if width(text) <= most {
        return text.to_owned();
    }
    let room = most.saturating_sub(1);
    let tail_room = room / 3;
    let head = head_of(text.chars(), room - tail_room);
    let tail: String = head_of(text.chars().rev(), tail_room).chars().rev().collect();
    format!("{head}…{tail}")
}

/// A text of at most so many columns: what is too long loses its end.
pub(crate) fn end_cut(text: &str, most: usize) -> String {
    if width(text) <= most {
        return text.to_owned();
    }
    if most == 0 {
        return String::new();
    }
    format!("{}…", head_of(text.chars(), most - 1).trim_end())
}

fn head_of(characters: impl Iterator<Item = char>, most: usize) -> String {
    let mut taken = 0;
    characters
        .take_while(|&c| {
            taken += char_width(c);
            taken <= most
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_stays_one_line_and_moves_no_cursor() {
        assert_eq!(line(" exit\u{1b}[2J 1\r\nout of\tmemory \u{202e}"), "exit [2J 1 out of memory");
    }

    #[test]
    fn long_texts_lose_their_middle_or_their_end() {
        assert_eq!(middle_cut("load-customers-eu", 10), "load-c…-eu");
        assert_eq!(middle_cut("load", 10), "load");
        assert_eq!(end_cut("out of memory", 7), "out of…");
        assert_eq!(end_cut("out", 0), "");
        assert_eq!(width(&middle_cut("工程工程工程", 7)), 7);
    }
}
