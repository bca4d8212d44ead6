//! The picture in a terminal: a box for each step, layers from the top, lines between them.

use crate::bundle::{Bundle, bundles};
use crate::canvas::{Canvas, Ink, print_line};
use crate::graph::{Graph, State};
use crate::layout::Layout;
use crate::wires::{self, Spot, Wire, columns};
use crate::{list, place, text};

/// More steps than this are a list: a picture of them would not fit a screen.
const MOST_STEPS: usize = 60;
/// The columns that a name may take, and those between boxes side by side. What is too broad for the terminal is tried
/// again, closer, then with shorter names.
const TRIES: [Try; 4] =
    [Try { name: 40, gap: 3 }, Try { name: 40, gap: 2 }, Try { name: 24, gap: 2 }, Try { name: 16, gap: 2 }];

#[derive(Clone, Copy)]
struct Try {
    name: usize,
    gap: i64,
}

/// What stands between the steps and those that run at the end.
const CLOSING: &str = " once all else has ended ";

/// The picture as lines of at most `width` columns, with ANSI colours if asked for. A graph that is too broad, has more
/// than about sixty steps, or contains a circle is a list by layers.
pub fn terminal(layout: &Layout, width: usize, colour: bool) -> String {
    let mut out = String::new();
    heading(&layout.graph, width, colour, &mut out);
    let fits = layout.graph.steps.len() <= MOST_STEPS && !layout.circled();
    let drawing = fits.then(|| TRIES.iter().find_map(|&with| draw(layout, with, width))).flatten();
    match drawing {
        Some(canvas) => canvas.print(colour, &mut out),
        None => list::print(layout, width, colour, &mut out),
    }
    if !layout.graph.notes.is_empty() {
        out.push('\n');
    }
    for note in &layout.graph.notes {
        print_line(&[("! ", Ink::Strong), (note, Ink::Plain)], colour, &mut out);
    }
    out
}

/// The title, and how many steps are how far.
fn heading(graph: &Graph, width: usize, colour: bool, out: &mut String) {
    if !graph.title.is_empty() {
        print_line(&[(&text::end_cut(&graph.title, width), Ink::Strong)], colour, out);
    }
    let counts: Vec<(String, State)> = graph
        .counts()
        .into_iter()
        .map(|(state, count)| (format!("{} {count} {}", state.mark(), state.word()), state))
        .collect();
    let pieces: Vec<(&str, Ink)> = counts
        .iter()
        .flat_map(|(words, state)| [(words.as_str(), Ink::State(*state)), ("   ", Ink::Plain)])
        .collect();
    print_line(&pieces[..pieces.len().saturating_sub(1)], colour, out);
    out.push('\n');
}

/// A box before it has a place.
struct Content {
    name: String,
    detail: String,
    state: State,
}

impl Content {
    fn of(layout: &Layout, step: usize, most: usize) -> Self {
        let step = &layout.graph.steps[step];
        let name = format!("{} {}", step.state.mark(), text::middle_cut(&step.name, most));
        Self { name, detail: text::end_cut(&step.detail, most), state: step.state }
    }

    /// Half its breadth with frame and blanks, without the middle column.
    fn half(&self) -> i64 {
        (columns(text::width(&self.name).max(text::width(&self.detail) + 2)) + 4) / 2
    }

    fn draw(&self, canvas: &mut Canvas, owner: usize, centre: i64, half: i64, top: usize, height: usize) {
        let (left, right) = (at(centre - half), at(centre + half));
        canvas.frame(owner, (left, top), (right, top + height - 1), Ink::State(self.state));
        let mark = self.name.chars().next().map(String::from).unwrap_or_default();
        canvas.text(left + 2, top + 1, &self.name, Ink::Plain);
        canvas.text(left + 2, top + 1, &mark, Ink::State(self.state));
        canvas.text(left + 4, top + 2, &self.detail, Ink::Faint);
    }
}

/// A column of the picture as one of the canvas.
fn at(column: i64) -> usize {
    usize::try_from(column).unwrap_or(0)
}

fn draw(layout: &Layout, with: Try, width: usize) -> Option<Canvas> {
    let Try { name: most, gap } = with;
    let contents: Vec<Option<Content>> = (0..layout.nodes.len())
        .map(|node| layout.step(node).map(|step| Content::of(layout, step, most)))
        .collect();
    let gaps: Vec<Vec<Bundle>> = layout.gaps.iter().map(|gap| bundles(gap)).collect();
    let half: Vec<i64> = halves(&contents, &gaps);
    let centres = place::centres(layout, &half, 1, gap);
    let mut spots: Vec<Spot> = (0..layout.nodes.len())
        .map(|node| Spot { centre: centres[node], half: half[node], bend: contents[node].is_none() })
        .collect();
    let routed: Vec<Vec<Wire>> = gaps.iter().map(|gap| wires::route(gap, &mut spots)).collect();

    let closing: Vec<Content> = layout.closing.iter().map(|&step| Content::of(layout, step, most)).collect();
    let closing_breadth = closing.iter().map(|content| 2 * content.half() + 1 + gap).sum::<i64>() - gap;
    let layers_breadth =
        layout.layers.iter().flatten().map(|&node| spots[node].centre + half[node] + 1).max().unwrap_or(0);
    let caption = if closing.is_empty() { 0 } else { columns(text::width(CLOSING)) + 6 };
    let breadth = layers_breadth.max(closing_breadth).max(caption);
    if breadth > columns(width) {
        return None;
    }
    let shift = (breadth - layers_breadth) / 2;
    spots.iter_mut().for_each(|spot| spot.centre += shift);

    let heights: Vec<usize> = layout
        .layers
        .iter()
        .map(|layer| box_height(layer.iter().filter_map(|&n| contents[n].as_ref())))
        .collect();
    let gap_heights: Vec<usize> = routed.iter().map(|wires| gap_height(wires)).collect();
    let closing_height = if closing.is_empty() { 0 } else { 2 + box_height(closing.iter()) };
    let height = heights.iter().chain(&gap_heights).sum::<usize>() + closing_height;
    let mut canvas = Canvas::new(at(breadth), height);
    let mut top = 0;
    for (depth, layer) in layout.layers.iter().enumerate() {
        let bottom = top + heights[depth] - 1;
        for &node in layer {
            match &contents[node] {
                Some(content) => {
                    content.draw(&mut canvas, node, spots[node].centre, half[node], top, heights[depth])
                }
                None => canvas.vertical(node, at(spots[node].centre), top, bottom, Ink::Faint),
            }
        }
        if let Some(wires) = routed.get(depth) {
            let lane = Lane { wires, shift, bottom, height: gap_heights[depth] };
            let bends: Vec<usize> = layer.iter().copied().filter(|&node| spots[node].bend).collect();
            join_bends(&mut canvas, &bends, &lane, &spots);
            draw_wires(&mut canvas, &lane, &spots, layout.nodes.len());
            top = bottom + 1 + gap_heights[depth];
        } else {
            top = bottom + 1;
        }
    }
    let first = (breadth - closing_breadth) / 2;
    draw_closing(&mut canvas, &closing, first, gap, breadth, top);
    Some(canvas)
}

/// Half the breadth of each node: what is written in it, and its lines.
fn halves(contents: &[Option<Content>], gaps: &[Vec<Bundle>]) -> Vec<i64> {
    let mut arriving: Vec<Vec<&Bundle>> = vec![Vec::new(); contents.len()];
    let mut leaving = vec![0_usize; contents.len()];
    for bundle in gaps.iter().flatten() {
        bundle.targets.iter().for_each(|&node| arriving[node].push(bundle));
        bundle.sources.iter().for_each(|&node| leaving[node] += 1);
    }
    let half = |node: usize, content: &Option<Content>| match content {
        Some(content) => content.half().max(wires::half_for(&arriving[node], leaving[node])),
        None => columns(leaving[node].saturating_sub(1)),
    };
    contents.iter().enumerate().map(|(node, content)| half(node, content)).collect()
}

/// Three rows, one more if a box has a detail.
fn box_height<'a>(mut boxes: impl Iterator<Item = &'a Content>) -> usize {
    if boxes.any(|content| !content.detail.is_empty()) { 4 } else { 3 }
}

/// Rows across, a row for labels, and one for arrows.
fn gap_height(wires: &[Wire]) -> usize {
    let across = wires.iter().filter_map(|wire| wire.row).max().map_or(1, |row| row + 1);
    across + usize::from(wires.iter().any(|wire| wire.label.is_some())) + 1
}

/// What lies between two layers.
struct Lane<'a> {
    wires: &'a [Wire],
    shift: i64,
    /// The last row of the layer above.
    bottom: usize,
    height: usize,
}

fn draw_wires(canvas: &mut Canvas, lane: &Lane<'_>, spots: &[Spot], first_owner: usize) {
    let arrows = lane.bottom + lane.height;
    let owner = |index: usize| first_owner + index;
    // Lines across first, so that lines down interrupt them.
    for (index, wire) in lane.wires.iter().enumerate() {
        if let Some(row) = wire.row {
            let (left, right) = wire.span();
            canvas.horizontal(
                owner(index),
                lane.bottom + 1 + row,
                at(left + lane.shift),
                at(right + lane.shift),
                Ink::Faint,
            );
        }
    }
    for (index, wire) in lane.wires.iter().enumerate() {
        let turn = wire.row.map(|row| lane.bottom + 1 + row);
        for &(top, _) in &wire.tops {
            let column = at(top + lane.shift);
            canvas.leave(column, lane.bottom);
            canvas.drop_from(owner(index), column, lane.bottom + 1, turn.unwrap_or(arrows), Ink::Faint);
        }
        for &(bottom, node) in &wire.bottoms {
            let column = at(bottom + lane.shift);
            if let Some(turn) = turn {
                canvas.vertical(owner(index), column, turn, arrows, Ink::Faint);
            }
            if spots[node].bend {
                canvas.leave(column, arrows);
            } else {
                canvas.text(column, arrows, "▼", Ink::Faint);
                if let Some(label) = &wire.label {
                    canvas.text(column + 2, arrows - 1, label, Ink::Faint);
                }
            }
        }
    }
}

/// Joins a bend's line to those that leave it, in the last row of its layer.
fn join_bends(canvas: &mut Canvas, bends: &[usize], lane: &Lane<'_>, spots: &[Spot]) {
    for &node in bends {
        let leaving = lane.wires.iter().flat_map(|wire| &wire.tops).filter(|&&(_, from)| from == node);
        let columns: Vec<usize> =
            leaving.map(|&(column, _)| at(column + lane.shift)).chain([at(spots[node].centre)]).collect();
        if let (Some(&left), Some(&right)) = (columns.iter().min(), columns.iter().max())
            && left < right
        {
            canvas.horizontal(node, lane.bottom, left, right, Ink::Faint);
        }
    }
}

fn draw_closing(canvas: &mut Canvas, closing: &[Content], first: i64, gap: i64, breadth: i64, top: usize) {
    if closing.is_empty() {
        return;
    }
    let dashes = at(breadth) - text::width(CLOSING);
    let rule = format!("{}{CLOSING}{}", "╌".repeat(dashes / 2), "╌".repeat(dashes - dashes / 2));
    canvas.text(0, top + 1, &rule, Ink::Faint);
    let height = box_height(closing.iter());
    let mut left = first;
    for (place, content) in closing.iter().enumerate() {
        let half = content.half();
        content.draw(canvas, usize::MAX - 1 - place, left + half, half, top + 2, height);
        left += 2 * half + 1 + gap;
    }
}
