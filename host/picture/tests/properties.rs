//! What holds for every picture, read back from what was written.
#![allow(clippy::unwrap_used)]

mod fixtures;

use std::collections::BTreeMap;

use fixtures::{Numbers, edge, graph, labelled, layered, step};
use roxmltree::{Document, Node};
use stoker_picture::{Edge, Graph, Layout, State, Step, svg, terminal};

#[derive(Debug, Clone, Copy)]
struct Frame {
    left: i64,
    top: i64,
    right: i64,
    bottom: i64,
}

impl Frame {
    fn apart(self, other: Self) -> bool {
        self.right < other.left
            || other.right < self.left
            || self.bottom < other.top
            || other.bottom < self.top
    }
}

fn number(node: Node<'_, '_>, name: &str) -> i64 {
    node.attribute(name).unwrap().parse().unwrap()
}

fn child<'a, 'd>(node: Node<'a, 'd>, name: &str) -> Node<'a, 'd> {
    node.children().find(|child| child.has_tag_name(("http://www.w3.org/2000/svg", name))).unwrap()
}

/// The boxes of an SVG by their steps' names.
fn boxes(document: &Document<'_>) -> BTreeMap<String, Frame> {
    let steps =
        document.descendants().filter(|node| node.attribute("class").is_some_and(|c| c.starts_with("step ")));
    let mut boxes = BTreeMap::new();
    for group in steps {
        let name = child(group, "title").text().unwrap().split_once(": ").unwrap().0.to_owned();
        let rect = child(group, "rect");
        let (left, top) = (number(rect, "x"), number(rect, "y"));
        let frame =
            Frame { left, top, right: left + number(rect, "width"), bottom: top + number(rect, "height") };
        assert!(boxes.insert(name.clone(), frame).is_none(), "{name} is drawn twice");
    }
    boxes
}

/// Reads an SVG back and checks what holds for all; gives the boxes and whether layers follow each other downwards.
fn checked(graph: &Graph) -> (BTreeMap<String, Frame>, bool) {
    let text = svg(&Layout::new(graph.clone()));
    let document = Document::parse(&text).unwrap();
    let boxes = boxes(&document);
    assert_eq!(boxes.len(), graph.steps.len(), "each step is drawn once");
    let (width, height) =
        (number(document.root_element(), "width"), number(document.root_element(), "height"));
    let frames: Vec<Frame> = boxes.values().copied().collect();
    for (place, frame) in frames.iter().enumerate() {
        assert!(
            frame.left >= 0 && frame.top >= 0 && frame.right <= width && frame.bottom <= height,
            "{frame:?}"
        );
        assert!(frames[..place].iter().all(|other| frame.apart(*other)), "{frame:?} overlaps");
    }
    let of = |step: usize| boxes[&graph.steps[step].name];
    let downwards = graph.edges.iter().all(|edge| of(edge.from).bottom < of(edge.to).top);
    let rightwards = graph.edges.iter().all(|edge| of(edge.from).right < of(edge.to).left);
    assert!(downwards || rightwards, "edges go one way");
    (boxes, downwards)
}

/// How often each step's box is in a terminal's picture, and that lines are no longer than asked for.
fn check_terminal(graph: &Graph, width: usize) {
    let drawn = terminal(&Layout::new(graph.clone()), width, false);
    for line in drawn.lines() {
        assert!(line.chars().count() <= width, "{line}");
        assert_eq!(line, line.trim_end(), "blanks at the end");
    }
    for step in &graph.steps {
        // The name with a mark is a box or a list's line; what waits for a step is named without one.
        let marks = ['✓', '✗', '▶', '·', '⊘'];
        let shown = |mark: char| {
            drawn
                .match_indices(&format!("{mark} {}", step.name))
                .filter(|(at, found)| {
                    drawn[at + found.len()..].chars().next().is_none_or(char::is_whitespace)
                })
                .count()
        };
        assert_eq!(marks.map(shown).iter().sum::<usize>(), 1, "{} in\n{drawn}", step.name);
    }
}

#[test]
fn a_thousand_steps_in_layers_of_a_hundred_are_drawn_once_each_without_overlap_and_one_way() {
    let graph = layered(10, 100, 1);
    let (boxes, downwards) = checked(&graph);
    // A hundred boxes side by side would be broader than anybody scrolls.
    assert!(!downwards);
    assert!(boxes.values().map(|frame| frame.right).max() < Some(6_000));
    check_terminal(&graph, 120);
}

#[test]
fn layers_that_wait_for_all_of_the_layer_before_are_few_lines() {
    let mut graph = layered(10, 100, 1);
    graph.edges = (100..1_000)
        .flat_map(|to| (to / 100 * 100 - 100..to / 100 * 100).map(move |from| edge(from, to)))
        .collect();
    assert_eq!(graph.edges.len(), 90_000);
    checked(&graph);
    let text = svg(&Layout::new(graph));
    assert_eq!(
        Document::parse(&text)
            .unwrap()
            .descendants()
            .filter(|node| node.has_tag_name("path") && node.attribute("class") == Some("arrives"))
            .count(),
        900
    );
    assert!(text.len() < 2_000_000, "{}", text.len());
}

#[test]
fn a_thousand_steps_one_after_another_that_all_wait_for_all_earlier_ones_lose_what_is_implied() {
    let steps = (0..1_000).map(|number| step(&format!("step-{number}"), State::Waiting, "")).collect();
    let edges = (0..1_000).flat_map(|to| (0..to).map(move |from| edge(from, to))).collect();
    let graph = Graph { steps, edges, ..Graph::default() };
    checked(&graph);
    let text = svg(&Layout::new(graph));
    assert!(text.contains("498501 dependencies that others imply are not drawn"));
    assert!(text.len() < 2_000_000, "{}", text.len());
}

#[test]
fn random_graphs_are_drawn_once_each_without_overlap_and_one_way() {
    for seed in 0..150 {
        let mut numbers = Numbers(seed);
        let count = 1 + numbers.below(30);
        let mut graph = Graph { title: format!("seed {seed}"), ..Graph::default() };
        for number in 0..count {
            let name = format!("s{number}{}", "-long".repeat(numbers.below(3)));
            let detail = ["", "3m12s", "exit code 137"][numbers.below(3)];
            graph.steps.push(step(&name, State::Running, detail));
            for _ in 0..numbers.below(4).min(number) {
                let label = ["Failed", "HTTP 8080"].get(numbers.below(8)).map(|&label| label.to_owned());
                graph.edges.push(Edge { from: numbers.below(number), to: number, label });
            }
        }
        checked(&graph);
        for width in [60, 100, 400] {
            check_terminal(&graph, width);
        }
    }
}

/// Follows the lines of a picture downwards from a box and tells which boxes it comes to. A line that crosses another
/// goes on behind it; one that joins another shares its way from there.
#[test]
fn in_a_terminal_lines_lead_from_each_step_to_just_those_that_wait_for_it() {
    for seed in 0..200 {
        let mut numbers = Numbers(1_000 + seed);
        let count = 2 + numbers.below(14);
        let mut graph = Graph::default();
        for number in 0..count {
            graph.steps.push(step(&format!("s{number}"), State::Waiting, ""));
            for _ in 0..numbers.below(3).min(number) {
                graph.edges.push(edge(numbers.below(number), number));
            }
        }
        let drawn = terminal(&Layout::new(graph.clone()), 400, false);
        let cells: Vec<Vec<char>> = drawn.lines().map(|line| line.chars().collect()).collect();
        let at = |(y, x): (usize, usize)| cells.get(y).and_then(|line| line.get(x)).copied().unwrap_or(' ');
        for (from, source) in graph.steps.iter().enumerate() {
            let (y, x) = find(&cells, &source.name);
            // The frame's lower edge, and where lines leave it.
            let bottom = y + 1;
            let left = (0..x).rev().find(|&x| at((bottom, x)) == '└').unwrap();
            let right = (x..).find(|&x| at((bottom, x)) == '┘').unwrap();
            let mut reached: Vec<String> = (left..=right)
                .filter(|&x| at((bottom, x)) == '┬')
                .flat_map(|x| followed(&at, (bottom + 1, x)))
                .map(|(y, x)| name_in(&cells, y + 2, x))
                .collect();
            reached.sort();
            reached.dedup();
            let mut expected: Vec<String> = graph
                .edges
                .iter()
                .filter(|e| e.from == from)
                .map(|e| graph.steps[e.to].name.clone())
                .collect();
            expected.sort();
            expected.dedup();
            assert_eq!(reached, expected, "seed {seed}, from {}\n{drawn}", source.name);
        }
    }
}

fn find(cells: &[Vec<char>], name: &str) -> (usize, usize) {
    let wanted: Vec<char> = format!("· {name} ").chars().collect();
    let found = cells
        .iter()
        .enumerate()
        .find_map(|(y, line)| line.windows(wanted.len()).position(|window| window == wanted).map(|x| (y, x)));
    found.unwrap()
}

/// The name of the box that has this column in this line.
fn name_in(cells: &[Vec<char>], y: usize, x: usize) -> String {
    let line = &cells[y];
    let left = (0..=x).rev().find(|&x| line[x] == '│').unwrap();
    line[left + 4..].iter().take_while(|c| !c.is_whitespace()).collect()
}

/// The arrowheads that a line going down into a cell leads to.
fn followed(at: &impl Fn((usize, usize)) -> char, start: (usize, usize)) -> Vec<(usize, usize)> {
    #[derive(Clone, Copy)]
    enum Going {
        Down,
        Left,
        Right,
    }
    let mut heads = Vec::new();
    let mut ways = vec![(start, Going::Down)];
    while let Some(((y, x), going)) = ways.pop() {
        let sign = at((y, x));
        let (down, left, right) =
            (((y + 1, x), Going::Down), ((y, x.wrapping_sub(1)), Going::Left), ((y, x + 1), Going::Right));
        match (going, sign) {
            (Going::Down, '▼') => heads.push((y, x)),
            (Going::Down, '│') => ways.push(down),
            (Going::Down, '┘' | '┤') => ways.push(left),
            (Going::Down, '└' | '├') => ways.push(right),
            (Going::Down, '┴') => ways.extend([left, right]),
            (Going::Down, '┼') => ways.extend([left, right, down]),
            // Behind a line that goes down.
            (Going::Left, '│' | '─' | '┴') => ways.push(left),
            (Going::Right, '│' | '─' | '┴') => ways.push(right),
            (Going::Left, '┬' | '┼') => ways.extend([left, down]),
            (Going::Right, '┬' | '┼') => ways.extend([right, down]),
            (Going::Left, '┌' | '├') | (Going::Right, '┐' | '┤') => ways.push(down),
            (Going::Left, '└') | (Going::Right, '┘') => {}
            (_, other) => panic!("a line ends in {other:?} at {y}, {x}"),
        }
        if matches!((going, sign), (Going::Down, '┤' | '├')) {
            ways.push(down);
        }
    }
    heads
}

#[test]
fn names_and_words_of_others_neither_break_xml_nor_move_the_cursor() {
    let evil = "<script>&\"'\u{1b}[2J\u{0}\u{ffff}\u{202e}]]>";
    let mut graph = graph(&[(evil, State::Failed, evil), ("b", State::Waiting, "")], &[labelled(0, 1, evil)]);
    graph.title = evil.to_owned();
    graph.notes.push(evil.to_owned());
    let text = svg(&Layout::new(graph.clone()));
    let document = Document::parse(&text).unwrap();
    assert!(!document.descendants().any(|node| node.has_tag_name("script")));
    let texts: Vec<&str> = document.descendants().filter_map(|node| node.text()).collect();
    assert!(texts.iter().any(|text| text.starts_with("<script>&\"' [2J")), "{texts:?}");
    let drawn = terminal(&Layout::new(graph), 100, false);
    assert!(
        !drawn.contains('\u{1b}') && !drawn.contains('\u{202e}') && !drawn.contains('\u{0}'),
        "{drawn:?}"
    );
}

#[test]
fn a_circle_in_svg_is_a_list_with_a_note() {
    let steps = ["a", "b", "c"].map(|name| (name, State::Waiting, ""));
    let text = svg(&Layout::new(graph(&steps, &[edge(0, 1), edge(1, 2), edge(2, 0)])));
    let document = Document::parse(&text).unwrap();
    assert_eq!(boxes(&document).len(), 0);
    assert_eq!(document.descendants().filter(|n| n.attribute("class") == Some("row waiting")).count(), 3);
    assert!(text.contains("a circle, so none of it can start: a → b → c → a"), "{text}");
}

#[test]
fn great_circles_end_too_and_are_told_in_short() {
    let steps = (0..1_000).map(|number| step(&format!("s{number}"), State::Waiting, "")).collect();
    let edges = (0..1_000).map(|from| edge(from, (from + 1) % 1_000)).collect();
    let graph = Graph { steps, edges, ..Graph::default() };
    let drawn = terminal(&Layout::new(graph), 100, false);
    assert!(drawn.ends_with("s0 → s1 → s2 → s3 → s4 → s5 → s6 → s7 → s8 → … → s999 → s0\n"), "{drawn}");
}

#[test]
fn colour_is_there_when_asked_for_only_and_ends_with_each_line() {
    let layout = Layout::new(fixtures::fan(3));
    assert!(!terminal(&layout, 100, false).contains('\u{1b}'));
    let coloured = terminal(&layout, 100, true);
    assert!(coloured.contains("\u{1b}[32m"));
    for line in coloured.lines().filter(|line| line.contains('\u{1b}')) {
        let last = line.rfind("\u{1b}[").unwrap();
        assert!(line[last..].starts_with("\u{1b}[0m"), "{line:?}");
    }
}

#[test]
fn states_are_told_by_marks_and_counted() {
    let states = [State::Succeeded, State::Failed, State::Running, State::Waiting, State::Skipped];
    let names = ["a", "b", "c", "d", "e"];
    let steps: Vec<_> = names.into_iter().zip(states).map(|(name, state)| (name, state, "")).collect();
    let layout = Layout::new(graph(&steps, &[]));
    let drawn = terminal(&layout, 100, false);
    assert!(
        drawn.starts_with("flow\n✓ 1 succeeded   ✗ 1 failed   ▶ 1 running   · 1 waiting   ⊘ 1 skipped\n\n"),
        "{drawn}"
    );
    let text = svg(&layout);
    for word in ["succeeded", "failed", "running", "waiting", "skipped"] {
        assert_eq!(
            text.matches(&format!("href=\"#stoker-{word}\"")).count(),
            2,
            "in the box and in the legend"
        );
    }
}

#[test]
fn no_steps_at_all_are_a_title() {
    let empty = Layout::new(Graph { title: "flow".to_owned(), ..Graph::default() });
    assert_eq!(terminal(&empty, 100, false).lines().next(), Some("flow"));
    Document::parse(&svg(&empty)).unwrap();
    let closing = Step { closing: true, ..step("onExit", State::Waiting, "") };
    let end = Layout::new(Graph { steps: vec![closing], ..Graph::default() });
    assert!(terminal(&end, 100, false).contains("· onExit"));
    Document::parse(&svg(&end)).unwrap();
}
