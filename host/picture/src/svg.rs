//! The picture as SVG: whole in itself, without scripts, style sheets or fonts from elsewhere.

mod edges;
mod paper;

use crate::bundle::{Bundle, bundles};
use crate::graph::Step;
use crate::layout::Layout;
use crate::{list, place, text};
use edges::{Edges, Stretch, Way};
use paper::{DETAIL_SIZE, FAINT_INK, Hand, INK, NAME_SIZE, Paper, Point, breadth};

const MARGIN: i64 = 24;
/// The columns that a name, and what is below it, may take; a pointer over the box tells all.
const NAME_COLUMNS: usize = 32;
const DETAIL_COLUMNS: usize = 38;
/// What a box has around its text, the mark included.
const BOX_LEFT: i64 = 34;
const BOX_RIGHT: i64 = 12;
/// Between boxes of one layer.
const GAP_BESIDE: i64 = 28;
const GAP_BELOW: i64 = 14;
/// Between layers, more where edges go far across: to a limit, so that they can be followed.
const LEAST_STRETCH: i64 = 56;
const MOST_STRETCH: i64 = 280;
/// A picture broader than this that is also this many times as broad as high has its layers from left to right, as
/// boxes are broader than high.
const BROAD: i64 = 1_400;
const BROAD_BY_HEIGHT: i64 = 2;
const HEADING: i64 = 64;
const NOTE: i64 = 20;
const LIST_ROW: i64 = 26;
/// The columns that a list has for what waits for a step.
const LIST_TARGETS: usize = 90;
const CLOSING: &str = "once all else has ended";

/// The picture as an SVG document. Layers follow each other downwards, or to the right if that is far less broad. A
/// graph with a circle is a list.
pub fn svg(layout: &Layout) -> String {
    let mut paper = Paper::default();
    let (mut width, mut height) =
        if layout.circled() { draw_list(layout, &mut paper) } else { draw(layout, &mut paper) };
    let heading = draw_heading(layout, &mut paper);
    for note in &layout.graph.notes {
        height += NOTE;
        paper.text((MARGIN, height), note, Hand::new(DETAIL_SIZE + 1, INK));
        width = width.max(2 * MARGIN + breadth(text::width(note), DETAIL_SIZE + 1));
    }
    let told: Vec<String> =
        layout.graph.counts().iter().map(|(state, count)| format!("{count} {}", state.word())).collect();
    paper.finish((width.max(heading), height + MARGIN), &layout.graph.title, &told.join(", "))
}

/// Title and counts; gives how broad they are.
fn draw_heading(layout: &Layout, paper: &mut Paper) -> i64 {
    let title = &layout.graph.title;
    paper.text((MARGIN, MARGIN + 12), title, Hand::new(16, INK).bold());
    let mut x = MARGIN;
    for (state, count) in layout.graph.counts() {
        let words = format!("{count} {}", state.word());
        paper.mark((x + 8, MARGIN + 34), state);
        paper.text((x + 22, MARGIN + 38), &words, Hand::new(DETAIL_SIZE + 1, FAINT_INK));
        x += 22 + breadth(text::width(&words), DETAIL_SIZE + 1) + 20;
    }
    x.max(MARGIN + breadth(text::width(title), 17)) + MARGIN
}

/// What a box shows.
struct Content {
    name: String,
    detail: String,
}

impl Content {
    fn of(step: &Step) -> Self {
        Self {
            name: text::middle_cut(&step.name, NAME_COLUMNS),
            detail: text::end_cut(&step.detail, DETAIL_COLUMNS),
        }
    }

    fn breadth(&self) -> i64 {
        let (name, detail) = (text::width(&self.name), text::width(&self.detail));
        // Even, so that the middle is a whole number.
        let text = breadth(name, NAME_SIZE).max(breadth(detail, DETAIL_SIZE));
        (BOX_LEFT + text + BOX_RIGHT + 1) / 2 * 2
    }

    fn height(&self) -> i64 {
        if self.detail.is_empty() { 32 } else { 48 }
    }
}

fn draw_box(paper: &mut Paper, step: &Step, content: &Content, corner: Point, size: Point) {
    let (x, y) = corner;
    let comma = if step.detail.is_empty() { "" } else { ", " };
    let told = format!("{}: {}{comma}{}", step.name, step.state.word(), step.detail);
    paper.open_step(corner, size, step.state, &told);
    let middle = y + size.1 / 2;
    paper.mark((x + 18, middle), step.state);
    if content.detail.is_empty() {
        paper.text((x + BOX_LEFT, middle + 4), &content.name, Hand::new(NAME_SIZE, INK));
    } else {
        paper.text((x + BOX_LEFT, middle - 4), &content.name, Hand::new(NAME_SIZE, INK));
        paper.text((x + BOX_LEFT, middle + 13), &content.detail, Hand::new(DETAIL_SIZE, FAINT_INK));
    }
    paper.close();
}

/// Where everything is when the layers follow each other in one way.
struct Plan {
    way: Way,
    /// The middle of each node, across.
    across: Vec<i64>,
    /// Where each layer begins and how thick it is.
    layers: Vec<(i64, i64)>,
    /// How far the picture goes along and across.
    size: (i64, i64),
}

impl Plan {
    fn new(layout: &Layout, contents: &[Option<Content>], gaps: &[Vec<Bundle>], way: Way) -> Self {
        let of = |node: usize| contents[node].as_ref();
        let half = |node: usize| match way {
            Way::Down => of(node).map_or(4, |content| content.breadth() / 2),
            Way::Right => of(node).map_or(4, |content| content.height() / 2),
        };
        let half: Vec<i64> = (0..contents.len()).map(half).collect();
        let gap = if way == Way::Down { GAP_BESIDE } else { GAP_BELOW };
        let across = place::centres(layout, &half, 0, gap);
        let thickness = |layer: &Vec<usize>| {
            let boxes = layer.iter().filter_map(|&node| of(node));
            let thick =
                |content: &Content| if way == Way::Down { content.height() } else { content.breadth() };
            boxes.map(thick).max().unwrap_or(0)
        };
        let mut along = 0;
        let mut layers = Vec::new();
        for (depth, layer) in layout.layers.iter().enumerate() {
            let thick = thickness(layer);
            layers.push((along, thick));
            along += thick + gaps.get(depth).map_or(0, |gap| stretch(gap, &across, way));
        }
        let breadth =
            layout.layers.iter().flatten().map(|&node| across[node] + half[node]).max().unwrap_or(0);
        Self { way, across, layers, size: (along, breadth) }
    }

    /// The picture's size: from the left, from the top.
    fn extent(&self) -> Point {
        self.way.point(self.size.0, self.size.1)
    }
}

/// The distance of two layers.
fn stretch(gap: &[Bundle], across: &[i64], way: Way) -> i64 {
    let ends = |bundle: &Bundle| {
        bundle.sources.iter().chain(&bundle.targets).map(|&node| across[node]).collect::<Vec<_>>()
    };
    let span =
        |ends: Vec<i64>| ends.iter().max().copied().unwrap_or(0) - ends.iter().min().copied().unwrap_or(0);
    let farthest = gap.iter().map(|bundle| span(ends(bundle))).max().unwrap_or(0);
    let labels = gap.iter().filter_map(|bundle| bundle.label.as_ref());
    let label = labels.map(|label| breadth(text::width(label), DETAIL_SIZE)).max().unwrap_or(0);
    let label = if way == Way::Right { label + 24 } else { label.min(14) };
    (LEAST_STRETCH + farthest / 16).min(MOST_STRETCH) + label
}

/// Draws all but the heading; gives the size of what is drawn with the margins above, left and right.
fn draw(layout: &Layout, paper: &mut Paper) -> Point {
    let steps = &layout.graph.steps;
    let contents: Vec<Option<Content>> =
        (0..layout.nodes.len()).map(|node| layout.step(node).map(|step| Content::of(&steps[step]))).collect();
    let gaps: Vec<Vec<Bundle>> = layout.gaps.iter().map(|gap| bundles(gap)).collect();
    let mut plan = Plan::new(layout, &contents, &gaps, Way::Down);
    let (width, height) = plan.extent();
    if width > BROAD && width > BROAD_BY_HEIGHT * height {
        let other = Plan::new(layout, &contents, &gaps, Way::Right);
        if other.extent().0 < width {
            plan = other;
        }
    }
    let closing: Vec<(&Step, Content)> =
        layout.closing.iter().map(|&step| (&steps[step], Content::of(&steps[step]))).collect();
    let caption = if closing.is_empty() { 0 } else { breadth(CLOSING.len() + 8, DETAIL_SIZE) };
    let room = plan
        .extent()
        .0
        .max(caption)
        .max(closing.iter().map(|(_, content)| content.breadth()).max().unwrap_or(0));
    let origin =
        (MARGIN + if plan.way == Way::Down { (room - plan.extent().0) / 2 } else { 0 }, MARGIN + HEADING);
    draw_layers(layout, &contents, &gaps, &plan, origin, paper);
    let bottom = origin.1 + plan.extent().1;
    let (right, bottom) = draw_closing(&closing, bottom, room, paper);
    (right.max(MARGIN + room) + MARGIN, bottom)
}

fn draw_layers(
    layout: &Layout,
    contents: &[Option<Content>],
    gaps: &[Vec<Bundle>],
    plan: &Plan,
    origin: Point,
    paper: &mut Paper,
) {
    let way = plan.way;
    let (along, across) = if way == Way::Down { (origin.1, origin.0) } else { origin };
    let mut edges = Edges::new();
    for (depth, layer) in layout.layers.iter().enumerate() {
        let (start, thick) = plan.layers[depth];
        let end = along + start + thick;
        for &node in layer.iter().filter(|&&node| contents[node].is_none()) {
            edges.through(Stretch { way, from: along + start, to: end }, across + plan.across[node]);
        }
        let (Some(gap), Some(&(next, _))) = (gaps.get(depth), plan.layers.get(depth + 1)) else { continue };
        for bundle in gap {
            let stretch = Stretch { way, from: end, to: along + next };
            edges.bundle(bundle, stretch, |node| (across + plan.across[node], contents[node].is_none()));
        }
    }
    edges.draw(paper);
    for (depth, layer) in layout.layers.iter().enumerate() {
        let (start, thick) = plan.layers[depth];
        for &node in layer {
            let (Some(content), Some(step)) = (&contents[node], layout.step(node)) else { continue };
            // All boxes of a layer reach from where it begins to where it ends, so that edges begin and end there.
            let size = match way {
                Way::Down => (content.breadth(), thick),
                Way::Right => (thick, content.height()),
            };
            let side = if way == Way::Down { size.0 } else { size.1 };
            let corner = way.point(along + start, across + plan.across[node] - side / 2);
            draw_box(paper, &layout.graph.steps[step], content, corner, size);
        }
    }
}

/// The steps at the end, below a line, as many side by side as have room; gives the right and the lower end.
fn draw_closing(closing: &[(&Step, Content)], top: i64, room: i64, paper: &mut Paper) -> Point {
    if closing.is_empty() {
        return (0, top);
    }
    let line = top + 36;
    paper.rule((MARGIN, line), (MARGIN + room, line));
    paper.label((MARGIN + room / 2, line + 4), CLOSING);
    let mut rows: Vec<(i64, Vec<&(&Step, Content)>)> = Vec::new();
    for step in closing {
        let breadth = step.1.breadth();
        match rows.last_mut() {
            Some((taken, row)) if *taken + GAP_BESIDE + breadth <= room => {
                *taken += GAP_BESIDE + breadth;
                row.push(step);
            }
            _ => rows.push((breadth, vec![step])),
        }
    }
    let (mut right, mut y) = (0, line + 22);
    for (taken, row) in rows {
        let mut x = MARGIN + (room - taken) / 2;
        let height = row.iter().map(|(_, content)| content.height()).max().unwrap_or(0);
        for (step, content) in row {
            draw_box(paper, step, content, (x, y), (content.breadth(), height));
            x += content.breadth() + GAP_BESIDE;
        }
        right = right.max(x - GAP_BESIDE);
        y += height + GAP_BELOW;
    }
    (right, y - GAP_BELOW)
}

/// The steps as a list; gives its size as [`draw`] does.
fn draw_list(layout: &Layout, paper: &mut Paper) -> Point {
    let steps = &layout.graph.steps;
    let widest = |shown: fn(&Content) -> &str| {
        steps.iter().map(|step| text::width(shown(&Content::of(step)))).max().unwrap_or(0)
    };
    let name_x = MARGIN + 62;
    let detail_x = name_x + breadth(widest(|content| &content.name), NAME_SIZE) + 20;
    let detail_columns = widest(|content| &content.detail);
    let targets_x = detail_x + if detail_columns > 0 { breadth(detail_columns, DETAIL_SIZE) + 20 } else { 0 };
    let mut right = targets_x;
    let mut y = MARGIN + HEADING + 8;
    for row in list::rows(layout) {
        let step = &steps[row.step];
        let content = Content::of(step);
        let faint = Hand::new(DETAIL_SIZE, FAINT_INK);
        paper.raw(&format!(r#"<g class="row {}">"#, step.state.word()));
        paper.text((MARGIN, y), &row.layer, faint);
        paper.mark((name_x - 18, y - 4), step.state);
        paper.text((name_x, y), &content.name, Hand::new(NAME_SIZE, INK));
        paper.text((detail_x, y), &content.detail, faint);
        if !row.targets.is_empty() {
            let targets = format!("→ {}", list::fitting(&row.targets, LIST_TARGETS));
            right = right.max(targets_x + breadth(text::width(&targets), DETAIL_SIZE));
            paper.text((targets_x, y), &targets, faint);
        }
        paper.close();
        y += LIST_ROW;
    }
    (right + MARGIN, y)
}
