//! `stoker flow`: a JobFlow as a picture, in the terminal or as SVG, once or whenever it changes.

mod graph;

use std::io::IsTerminal as _;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::anyhow;
use clap::{Args as ClapArgs, ValueEnum};
use futures::StreamExt as _;
use jiff::Timestamp;
use kube::runtime::watcher;
use stoker_api::JobFlow;
use stoker_picture::{Layout, svg, terminal};

use crate::claim::block_on;
use crate::objects::Named;
use crate::out::print;

/// The columns of what is not a terminal.
const COLUMNS: usize = 100;
/// How often a watched picture is drawn again while nothing changes but the time that steps have run.
const TICK: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Lines and signs, in colour if this is a terminal and NO_COLOR is not set.
    Terminal,
    /// An SVG document.
    Svg,
}

#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  stoker flow nightly                         draws it
  stoker flow nightly --watch                 draws it again whenever it changes, until Ctrl-C
  stoker flow nightly -o svg > nightly.svg    for a browser or a report

Steps: ✓ succeeded, ✗ failed, ▶ running, · waiting, ⊘ skipped. What is broader than the terminal, or has more than \
about sixty steps, is a list by layers.")]
pub struct Args {
    /// The JobFlow.
    name: String,
    /// Its namespace. Omitted: that of the kubeconfig's current context, or of the pod that this runs in.
    #[arg(long, short = 'n')]
    namespace: Option<String>,
    /// What is printed.
    #[arg(long, short = 'o', value_enum, default_value = "terminal")]
    output: Output,
    /// Draw again whenever the flow changes, until it is deleted.
    #[arg(long, short = 'w')]
    watch: bool,
}

pub fn flow(args: Args) -> anyhow::Result<ExitCode> {
    if args.watch && args.output == Output::Svg {
        return Err(anyhow!("--watch draws in the terminal only: leave out --watch or --output svg"));
    }
    block_on(async {
        let client = stoker_operator::connect().await?;
        let named: Named<JobFlow> = Named::new(client, args.name, args.namespace);
        let flow = named.get().await?;
        if args.watch {
            watch(&named, flow).await
        } else {
            let layout = Layout::new(graph::graph(&flow, Timestamp::now()));
            let picture = match args.output {
                Output::Svg => svg(&layout),
                Output::Terminal => Screen::look().draw(&layout),
            };
            print(format_args!("{picture}"));
            Ok(())
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Draws a flow now and whenever it changes. On a terminal also each second while steps run, in one place.
async fn watch(named: &Named<JobFlow>, mut flow: JobFlow) -> anyhow::Result<()> {
    let mut changes = pin!(watcher::watch_object(named.api.clone(), &named.name));
    let live = std::io::stdout().is_terminal();
    let mut shown = String::new();
    let mut trouble: Option<String> = None;
    loop {
        let screen = Screen::look();
        let mut drawn = screen.draw(&Layout::new(graph::graph(&flow, Timestamp::now())));
        if let Some(trouble) = &trouble {
            drawn.push_str(&format!("! not up to date: {trouble}\n"));
        }
        if drawn != shown {
            // The whole screen anew: a picture that has become smaller leaves nothing behind.
            let (before, after) = if live { ("\u{1b}[H\u{1b}[2J", "") } else { ("", "\n") };
            print(format_args!("{before}{drawn}{after}"));
            shown = drawn;
        }
        let change = if live {
            tokio::select! {
                change = changes.next() => change,
                () = tokio::time::sleep(TICK) => continue,
            }
        } else {
            changes.next().await
        };
        match change {
            Some(Ok(Some(changed))) => {
                flow = changed;
                trouble = None;
            }
            Some(Ok(None)) => {
                eprintln!("stoker: JobFlow {} has been deleted", named.name);
                return Ok(());
            }
            // The watch goes on by itself, after ever longer pauses.
            Some(Err(error)) => trouble = Some(error.to_string()),
            None => return Err(anyhow!("the watch of JobFlow {} has ended", named.name)),
        }
    }
}

/// What the output can show.
struct Screen {
    columns: usize,
    colour: bool,
}

impl Screen {
    fn look() -> Self {
        let out = std::io::stdout();
        let terminal = out.is_terminal();
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        let size = rustix::termios::tcgetwinsize(&out).ok().map(|size| usize::from(size.ws_col));
        Self {
            columns: size.filter(|&columns| columns > 0).unwrap_or(COLUMNS),
            colour: terminal && !plain && !dumb,
        }
    }

    fn draw(&self, layout: &Layout) -> String {
        terminal(layout, self.columns, self.colour)
    }
}
