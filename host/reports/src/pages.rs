//! The listings as pages for people. All that is not ours is escaped by the template.

use maud::{DOCTYPE, Markup, PreEscaped, html};
use percent_encoding::utf8_percent_encode;

use crate::catalogue::{ExecutionDetail, ExecutionEntry, FileEntry, JobEntry, NodeEntry, Told};
use crate::cluster::NodeState;
use crate::content::SEGMENT;
use crate::slot::{JobKey, LATEST};

/// What all pages look like.
pub const STYLE: &str = "\
:root{color-scheme:light dark;font:16px/1.5 system-ui,sans-serif}\
body{margin:0 auto;max-width:75rem;padding:1rem}\
nav ol{display:flex;flex-wrap:wrap;gap:.5rem;list-style:none;padding:0}\
nav li+li::before{content:'/';padding-right:.5rem}\
table{border-collapse:collapse;width:100%}\
caption{text-align:left;padding:.5rem 0}\
th,td{text-align:left;vertical-align:top;padding:.35rem .75rem .35rem 0;border-bottom:1px solid #8886;overflow-wrap:anywhere}\
td ul{margin:0;padding:0;list-style:none}\
.bad{font-weight:bold;color:light-dark(#a30000,#ff8f8f)}\
small{opacity:.8}\
";

/// A step of the way to a page: its text, and where it leads unless it is the page itself.
type Step<'a> = (&'a str, Option<&'a str>);

fn page(title: &str, root: &str, steps: &[Step<'_>], body: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " · Stoker reports" }
                link rel="stylesheet" href={ (root) "style.css" };
            }
            body {
                nav aria-label="Breadcrumb" {
                    ol {
                        @for (text, href) in steps {
                            @match href {
                                Some(href) => li { a href=(href) { (text) } },
                                None => li { span aria-current="page" { (text) } },
                            }
                        }
                    }
                }
                main {
                    h1 { (title) }
                    (body)
                }
            }
        }
    };
    page.into_string()
}

fn segment(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

/// All jobs, at `/reports/`.
pub fn jobs(jobs: &[JobEntry]) -> String {
    let body = html! {
        @if jobs.is_empty() {
            p { "Nothing has been reported yet." }
        } @else {
            table {
                caption { "NodeBatchJobs and their reports" }
                thead { tr { th scope="col" { "Namespace" } th scope="col" { "NodeBatchJob" } } }
                tbody {
                    @for job in jobs {
                        tr {
                            td { (job.namespace) }
                            td {
                                a href={ (segment(&job.namespace)) "/" (segment(&job.name)) "/" } { (job.name) }
                                @if job.exists == Some(false) { " " small { "(deleted)" } }
                            }
                        }
                    }
                }
            }
        }
    };
    page("Reports", "../", &[("Reports", None)], &body)
}

/// A job's executions, at `/reports/<namespace>/<job>/`.
pub fn executions(key: &JobKey, entries: &[ExecutionEntry]) -> String {
    let title = key.to_string();
    let body = html! {
        @if entries.is_empty() {
            p { "It has not run yet." }
        } @else {
            p { a href={ (LATEST) "/" } { "The latest execution" } }
            table {
                caption { "Executions, the newest first" }
                thead {
                    tr {
                        @for head in ["Execution", "Started", "Ended", "Nodes", "Reported", "Failed"] {
                            th scope="col" { (head) }
                        }
                    }
                }
                tbody { @for entry in entries { (execution_row(entry)) } }
            }
        }
    };
    page(&title, "../../../", &[("Reports", Some("../../")), (&title, None)], &body)
}

fn execution_row(entry: &ExecutionEntry) -> Markup {
    html! {
        tr {
            th scope="row" { a href={ (entry.id) "/" } { (entry.id) } }
            @match &entry.told {
                Some(told) => (told_cells(told)),
                None => td colspan="5" { small { "kept; how it ended is not known" } },
            }
        }
    }
}

fn told_cells(told: &Told) -> Markup {
    html! {
        td { @if let Some(started) = &told.started { (time(started)) } }
        td { @match &told.ended { Some(ended) => (time(ended)), None => "running" } }
        td { (count(told.nodes)) }
        td { (count(told.reported)) }
        td class=[told.failed.is_some_and(|failed| failed > 0).then_some("bad")] { (count(told.failed)) }
    }
}

/// A number, or what stands for one that is not known.
fn count(number: Option<usize>) -> String {
    number.map_or_else(|| "…".to_owned(), |number| number.to_string())
}

fn time(at: &jiff::Timestamp) -> Markup {
    let text = at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string();
    html! { time datetime=(at) { (text) } }
}

/// An execution, at `/reports/<namespace>/<job>/<execution>/`.
pub fn detail(key: &JobKey, detail: &ExecutionDetail) -> String {
    let title = format!("Execution {}", detail.id);
    let missing = detail.nodes.iter().filter(|node| is_missing(node)).count();
    let body = html! {
        p {
            @if let Some(started) = &detail.started { "Started " (time(started)) ". " }
            @if let Some(ended) = &detail.ended { "Ended " (time(ended)) ". " }
            (detail.nodes.len()) " nodes, " (missing) " without a result."
        }
        table {
            caption { "What each node reported" }
            thead {
                tr {
                    @for head in ["Node", "State", "Ran", "Result", "Files", "Logs"] { th scope="col" { (head) } }
                }
            }
            tbody { @for node in &detail.nodes { (node_row(node)) } }
        }
    };
    let job = key.to_string();
    let steps = [("Reports", Some("../../../")), (&*job, Some("../")), (&*detail.id, None)];
    page(&title, "../../../../", &steps, &body)
}

/// Whether it was to report a result and has not, so far.
fn is_missing(node: &NodeEntry) -> bool {
    node.result.is_none() && node.state != Some(NodeState::Gone)
}

fn node_row(node: &NodeEntry) -> Markup {
    let failed = node.state == Some(NodeState::Failed);
    html! {
        tr {
            th scope="row" { (node.node) }
            td class=[failed.then_some("bad")] { (node.state.map_or("unknown", NodeState::word)) }
            td { @if let Some(ran) = node.duration_milliseconds { (seconds(ran)) } }
            td {
                @match &node.result {
                    Some(file) => (link(file)),
                    None => span class=[is_missing(node).then_some("bad")] { "none" },
                }
            }
            td { (links(&node.files)) }
            td { (links(&node.logs)) }
        }
    }
}

fn links(files: &[FileEntry]) -> Markup {
    html! { @if !files.is_empty() { ul { @for file in files { li { (link(file)) } } } } }
}

fn link(file: &FileEntry) -> Markup {
    html! {
        a href=(segment(&file.name)) { bdi { (file.name) } }
        (PreEscaped(" ")) small { (size(file.bytes)) }
    }
}

fn seconds(milliseconds: u64) -> String {
    format!("{:.1} s", milliseconds as f64 / 1000.0)
}

fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut units = ["KiB", "MiB", "GiB", "TiB"].iter();
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut unit = "";
    while value >= 1024.0 {
        let Some(next) = units.next() else { break };
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_uploaded_is_escaped() {
        let name = "n-<script>alert(1)</script>&\"'.txt";
        let file = FileEntry { name: name.into(), bytes: 2048, modified: jiff::Timestamp::UNIX_EPOCH };
        let node = NodeEntry {
            node: "n".into(),
            state: Some(NodeState::Failed),
            pod: Some("p".into()),
            duration_milliseconds: Some(1234),
            result: None,
            files: vec![file],
            logs: Vec::new(),
        };
        let (key, id) = (JobKey { namespace: "ns".into(), name: "job".into() }, "1".to_owned());
        let whole = ExecutionDetail {
            namespace: "ns".into(),
            job: "job".into(),
            id,
            started: None,
            ended: None,
            nodes: vec![node],
        };
        let page = detail(&key, &whole);
        assert!(!page.contains("<script"), "{page}");
        assert!(page.contains("href=\"n-%3Cscript%3E") && page.contains("2.0 KiB"), "{page}");
        assert!(page.contains("&lt;script&gt;") && page.contains("1.2 s"), "{page}");
    }

    #[test]
    fn sizes_are_told_in_their_unit() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(10 << 20), "10.0 MiB");
    }
}
