//! What is drawn, whole: a change to any of these pictures is to be looked at.
#![allow(clippy::unwrap_used)]

mod fixtures;

use fixtures::{edge, graph, labelled};
use stoker_picture::{Graph, Layout, State, Step, terminal};

/// The picture without title and counts, which have their own test.
fn drawn(graph: Graph) -> String {
    let drawn = terminal(&Layout::new(graph), 100, false);
    drawn.split_once("\n\n").map(|(_, picture)| format!("\n{picture}")).unwrap()
}

#[test]
fn a_flow_of_five_steps() {
    let five = graph(
        &[
            ("build", State::Succeeded, "12s"),
            ("fetch-data", State::Succeeded, "3s"),
            ("test", State::Running, "41s"),
            ("lint", State::Failed, "exit code 1"),
            ("release", State::Waiting, ""),
        ],
        &[edge(0, 2), edge(0, 3), edge(1, 2), edge(2, 4), edge(3, 4)],
    );
    assert_eq!(
        drawn(five),
        "
         ┌─────────┐   ┌───────────────┐
         │ ✓ build │   │ ✓ fetch-data  │
         │   12s   │   │   3s          │
         └───┬─┬───┘   └───────┬───────┘
             │ └─────────┬─────┘
             ▼           ▼
┌───────────────┐   ┌─────────┐
│ ✗ lint        │   │ ▶ test  │
│   exit code 1 │   │   41s   │
└───────┬───────┘   └────┬────┘
        └────────┬───────┘
                 ▼
           ┌───────────┐
           │ · release │
           └───────────┘
"
    );
}

#[test]
fn a_diamond_with_a_condition() {
    let diamond = graph(
        &[
            ("a", State::Succeeded, ""),
            ("b", State::Succeeded, ""),
            ("c", State::Running, ""),
            ("d", State::Waiting, ""),
        ],
        &[edge(0, 1), edge(0, 2), edge(1, 3), labelled(2, 3, "Finished")],
    );
    assert_eq!(
        drawn(diamond),
        "
     ┌─────┐
     │ ✓ a │
     └──┬──┘
   ┌────┴────┐
   ▼         ▼
┌─────┐   ┌─────┐
│ ✓ b │   │ ▶ c │
└──┬──┘   └──┬──┘
   │ ┌───────┘
   │ │ Finished
   ▼ ▼
 ┌─────────────┐
 │ · d         │
 └─────────────┘
"
    );
}

#[test]
fn an_edge_that_passes_layers_goes_straight_down_beside_them() {
    let long = graph(
        &[
            ("extract", State::Succeeded, ""),
            ("clean", State::Succeeded, ""),
            ("model", State::Running, ""),
            ("publish", State::Waiting, ""),
        ],
        &[edge(0, 1), edge(1, 2), edge(2, 3), edge(0, 3)],
    );
    assert_eq!(
        drawn(long),
        "
     ┌───────────┐
     │ ✓ extract │
     └─────┬─────┘
     ┌─────┴──┐
     ▼        │
┌─────────┐   │
│ ✓ clean │   │
└────┬────┘   │
     │        │
     ▼        │
┌─────────┐   │
│ ▶ model │   │
└────┬────┘   │
     └─────┬──┘
           ▼
     ┌───────────┐
     │ · publish │
     └───────────┘
"
    );
}

#[test]
fn a_fan_out_and_in_is_one_line_each() {
    assert_eq!(
        drawn(fixtures::fan(6)),
        "
                                         ┌─────────┐
                                         │ ✓ start │
                                         │   1s    │
                                         └────┬────┘
      ┌───────────────┬───────────────┬───────┴───────┬───────────────┬───────────────┐
      ▼               ▼               ▼               ▼               ▼               ▼
┌───────────┐   ┌───────────┐   ┌───────────┐   ┌───────────┐   ┌───────────┐   ┌───────────┐
│ ▶ part-1  │   │ ▶ part-2  │   │ ▶ part-3  │   │ ▶ part-4  │   │ ▶ part-5  │   │ ▶ part-6  │
└─────┬─────┘   └─────┬─────┘   └─────┬─────┘   └─────┬─────┘   └─────┬─────┘   └─────┬─────┘
      └───────────────┴───────────────┴───────┬───────┴───────────────┴───────────────┘
                                              ▼
                                         ┌─────────┐
                                         │ · merge │
                                         └─────────┘
"
    );
}

#[test]
fn lines_that_cross_do_not_look_joined() {
    let names = ["a", "b", "c", "d", "e", "f"];
    let steps: Vec<_> = names.iter().map(|&name| (name, State::Waiting, "")).collect();
    let crossed =
        graph(&steps, &[edge(0, 3), edge(0, 4), edge(0, 5), edge(1, 4), edge(1, 5), edge(2, 3), edge(2, 5)]);
    assert_eq!(
        drawn(crossed),
        "
   ┌─────┐   ┌─────┐   ┌─────┐
   │ · a │   │ · b │   │ · c │
   └┬─┬─┬┘   └─┬─┬─┘   └─┬─┬─┘
   ┌┴─│─│──────┘ │       │ │
   │  │ └────────┴─────┬─│─┘
   │  └──────┬─────────│─┘
   ▼         ▼         ▼
┌─────┐   ┌─────┐   ┌─────┐
│ · e │   │ · d │   │ · f │
└─────┘   └─────┘   └─────┘
"
    );
}

#[test]
fn steps_at_the_end_stand_apart() {
    let mut end = graph(&[("work", State::Failed, "out of memory")], &[]);
    end.steps.push(Step { closing: true, ..fixtures::step("onFailure", State::Running, "2s") });
    assert_eq!(
        drawn(end),
        "
      ┌─────────────────┐
      │ ✗ work          │
      │   out of memory │
      └─────────────────┘

╌╌╌ once all else has ended ╌╌╌
        ┌─────────────┐
        │ ▶ onFailure │
        │   2s        │
        └─────────────┘
"
    );
}

#[test]
fn what_is_too_broad_is_a_list_by_layers() {
    assert_eq!(
        drawn(fixtures::fan(12)),
        "
1  ✓ start    1s  → part-1, part-2, part-3, part-4, part-5, part-6, part-7, part-8, part-9 +3
2  ▶ part-1       → merge
   ▶ part-2       → merge
   ▶ part-3       → merge
   ▶ part-4       → merge
   ▶ part-5       → merge
   ▶ part-6       → merge
   ▶ part-7       → merge
   ▶ part-8       → merge
   ▶ part-9       → merge
   ▶ part-10      → merge
   ▶ part-11      → merge
   ▶ part-12      → merge
3  · merge
"
    );
}

#[test]
fn a_circle_is_a_list_and_named() {
    let steps = ["a", "b", "c", "d"].map(|name| (name, State::Waiting, ""));
    let circle = graph(&steps, &[edge(0, 1), edge(1, 2), edge(2, 1), edge(2, 3)]);
    assert_eq!(
        drawn(circle),
        "
1  · a  → b
–  · b  → c
   · c  → b, d
   · d

! a circle, so none of it can start: b → c → b
"
    );
}

#[test]
fn a_step_that_waits_for_itself_is_a_circle() {
    let own = graph(&[("a", State::Waiting, "")], &[edge(0, 0)]);
    assert_eq!(
        drawn(own),
        "
–  · a  → a

! a circle, so none of it can start: a → a
"
    );
}
