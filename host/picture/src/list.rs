//! The steps as a list by layers: for graphs that are too broad, too long, or no pictures at all.

use crate::canvas::{Ink, print_line};
use crate::graph::Step;
use crate::layout::Layout;
use crate::text;

/// The columns that names and details may keep from those behind them; longer ones push them to the right.
const NAME_COLUMNS: usize = 40;
const DETAIL_COLUMNS: usize = 24;

/// A line of the list.
pub(crate) struct Row {
    /// The layer's number on its first line, else nothing.
    pub(crate) layer: String,
    pub(crate) step: usize,
    /// What waits for it.
    pub(crate) targets: Vec<String>,
}

/// All steps, layer by layer; then those that no layer has, then those that run at the end.
pub(crate) fn rows(layout: &Layout) -> Vec<Row> {
    let steps = &layout.graph.steps;
    let mut order: Vec<usize> = (0..steps.len()).collect();
    order
        .sort_by_key(|&step| (steps[step].closing, layout.depths[step].is_none(), layout.depths[step], step));
    let mut targets: Vec<Vec<String>> = vec![Vec::new(); steps.len()];
    for edge in &layout.graph.edges {
        let label = edge.label.as_ref().map(|label| format!(" ({label})")).unwrap_or_default();
        targets[edge.from].push(format!("{}{label}", steps[edge.to].name));
    }
    let mut before = None;
    let mut row = |step: usize| {
        let layer = (steps[step].closing, layout.depths[step]);
        let first = before.replace(layer) != Some(layer);
        let name = match layer {
            _ if !first => String::new(),
            (true, _) => "end".to_owned(),
            (false, Some(depth)) => (depth + 1).to_string(),
            (false, None) => "–".to_owned(),
        };
        Row { layer: name, step, targets: std::mem::take(&mut targets[step]) }
    };
    order.into_iter().map(&mut row).collect()
}

pub(crate) fn print(layout: &Layout, width: usize, colour: bool, out: &mut String) {
    let rows = rows(layout);
    let steps = &layout.graph.steps;
    let widest = |text: fn(&Step) -> &str, most: usize| {
        steps.iter().map(|step| text::width(text(step))).filter(|&width| width <= most).max().unwrap_or(0)
    };
    let layer_column = rows.iter().map(|row| text::width(&row.layer)).max().unwrap_or(0);
    let name_column = widest(|step| &step.name, NAME_COLUMNS);
    let detail_column = widest(|step| &step.detail, DETAIL_COLUMNS);
    for row in rows {
        let step = &steps[row.step];
        let layer = format!("{}{}  ", " ".repeat(layer_column - text::width(&row.layer)), row.layer);
        let mark = format!("{} ", step.state.mark());
        let mut room = width.saturating_sub(text::width(&layer) + 2);
        let name = padded(&text::middle_cut(&step.name, room), name_column);
        room = room.saturating_sub(text::width(&name));
        let mut pieces = vec![(layer, Ink::Faint), (mark, Ink::State(step.state)), (name, Ink::Plain)];
        if detail_column > 0 || !step.detail.is_empty() {
            let detail = text::end_cut(&step.detail, room.saturating_sub(2));
            let detail = padded(&format!("  {detail}"), detail_column + 2);
            room = room.saturating_sub(text::width(&detail));
            pieces.push((detail, Ink::Faint));
        }
        if !row.targets.is_empty() {
            pieces.push((format!("  → {}", fitting(&row.targets, room.saturating_sub(4))), Ink::Faint));
        }
        // Nothing but blanks behind the last word.
        while let Some((last, _)) = pieces.last_mut() {
            last.truncate(last.trim_end().len());
            if !last.is_empty() {
                break;
            }
            pieces.pop();
        }
        let pieces: Vec<(&str, Ink)> = pieces.iter().map(|(text, ink)| (text.as_str(), *ink)).collect();
        print_line(&pieces, colour, out);
    }
}

fn padded(text: &str, column: usize) -> String {
    format!("{text}{}", " ".repeat(column.saturating_sub(text::width(text))))
}

/// As many names as fit, and how many more there are.
pub(crate) fn fitting(names: &[String], room: usize) -> String {
    let all = names.join(", ");
    if text::width(&all) <= room {
        return all;
    }
    let mut shown = String::new();
    for (count, name) in names.iter().enumerate() {
        let rest = format!(" +{}", names.len() - count - 1);
        let comma = if count == 0 { "" } else { ", " };
        if text::width(&shown) + text::width(comma) + text::width(name) + text::width(&rest) > room {
            let more = names.len() - count;
            return if count == 0 { format!("{more} steps") } else { format!("{shown} +{more}") };
        }
        shown.push_str(comma);
        shown.push_str(name);
    }
    shown
}
