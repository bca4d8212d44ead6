//! `stoker migrate`: manifests of the older systems become Stoker's. What becomes of which field is the business of the
//! crate stoker-migrate; here files are read and the cluster is asked.

mod cluster;

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args as ClapArgs;
use stoker_migrate::{Migrated, Options, Outcome};

use crate::claim::block_on;
use crate::out;

#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  stoker migrate pools.yaml flows.yaml                    prints Stoker's objects
  kubectl get hotstandbyjobs.apps.paia.tech -o yaml | stoker migrate - | kubectl apply --dry-run=server -f -
  stoker migrate --from-cluster --all-namespaces -o new/  a file for each object that the cluster has

Comments above each object say what changed, and `# WARNING:` what is not carried over and what to do instead. Nothing in \
the cluster is changed. The exit code is 0 with warnings, too; it is not 0 when something could not be read or migrated. \
docs/migrating.md tells the way from each system without an outage.")]
pub struct Args {
    /// Manifests of the older systems, each with any number of documents; - is the standard input.
    #[arg(value_name = "FILE", required_unless_present = "from_cluster", conflicts_with = "from_cluster")]
    files: Vec<PathBuf>,
    /// Read the older systems' objects from the cluster instead.
    #[arg(long)]
    from_cluster: bool,
    /// Those of this namespace. Omitted: that of the kubeconfig's current context.
    #[arg(long, short = 'n', requires = "from_cluster", conflicts_with_all = ["files", "all_namespaces"])]
    namespace: Option<String>,
    /// Those of all namespaces.
    #[arg(long, short = 'A', requires = "from_cluster", conflicts_with = "files")]
    all_namespaces: bool,
    /// Write a file for each object into this folder instead of printing.
    #[arg(long, short = 'o', value_name = "DIR")]
    output: Option<PathBuf>,
    /// Where Redis is, for pools with busyProbe.mode redis: redis://HOST[:PORT][/DATABASE].
    #[arg(long, value_name = "URL")]
    redis_url: Option<String>,
    /// The image in which the scripts of JobFlows' ErrorHandlers run.
    #[arg(long, value_name = "IMAGE")]
    script_image: Option<String>,
}

pub fn migrate(args: Args) -> Result<ExitCode> {
    let options = Options { redis_url: args.redis_url, script_image: args.script_image };
    let outcome = if args.from_cluster {
        let namespaces = match (args.all_namespaces, args.namespace) {
            (true, _) => cluster::Namespaces::All,
            (false, Some(name)) => cluster::Namespaces::One(name),
            (false, None) => cluster::Namespaces::Current,
        };
        block_on(cluster::objects(namespaces, &options))?
    } else {
        let mut outcome = Outcome::default();
        for file in &args.files {
            let (name, text) = read(file)?;
            outcome.extend(stoker_migrate::migrate(&name, &text, &options));
        }
        outcome
    };
    match &args.output {
        Some(dir) => write(dir, &outcome.objects)?,
        None => {
            out::print(format_args!("{}", outcome.render()));
        }
    }
    tell(&outcome);
    Ok(if outcome.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A file's text, and what it is called.
fn read(file: &Path) -> Result<(String, String)> {
    if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("cannot read the standard input as text")?;
        return Ok(("standard input".to_owned(), text));
    }
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?;
    Ok((name, text))
}

/// A file for each object.
fn write(dir: &Path, objects: &[Migrated]) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make the folder {}", dir.display()))?;
    for object in objects {
        let path = dir.join(file_name(object));
        std::fs::write(&path, object.render()).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// No name in Kubernetes has an underscore, so that no two objects meet in a file.
fn file_name(object: &Migrated) -> String {
    let namespace = object.namespace.as_deref().map(|name| format!("{name}_")).unwrap_or_default();
    format!("{namespace}{}_{}.yaml", object.kind.to_lowercase(), object.name)
}

/// What people have to know beside the output.
fn tell(outcome: &Outcome) {
    let mut lines: Vec<String> = outcome.passed_over.iter().map(ToString::to_string).collect();
    lines.extend(outcome.problems.iter().map(ToString::to_string));
    let (objects, warnings) = (outcome.objects.len(), outcome.warnings());
    let mut counts = format!("{objects} migrated");
    if warnings > 0 {
        counts += &format!(", {warnings} warnings: see the lines with # WARNING:");
    }
    if !outcome.problems.is_empty() {
        counts += &format!("; {} could not be migrated", outcome.problems.len());
    }
    lines.push(counts);
    for line in lines {
        writeln!(std::io::stderr(), "stoker: {line}").ok();
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn either_files_or_the_cluster() {
        let read = |words: &[&str]| Cli::try_parse_from(std::iter::once(&"migrate").chain(words)).is_ok();
        assert!(
            read(&["a.yaml", "-"]) && read(&["--from-cluster", "-A"]) && read(&["--from-cluster", "-n", "x"])
        );
        for bad in [
            &[][..],
            &["a.yaml", "--from-cluster"],
            &["a.yaml", "-n", "x"],
            &["--from-cluster", "-A", "-n", "x"],
        ] {
            assert!(!read(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_file_for_each_object() {
        let text = "{apiVersion: api.practice.com/v1alpha1, kind: JobTemplate, metadata: {name: a-b, namespace: ops}, \
                    spec: {template: {spec: {containers: [{name: c, image: i}]}}}}";
        let outcome = stoker_migrate::migrate("x", text, &Options::default());
        let names: Vec<String> = outcome.objects.iter().map(file_name).collect();
        assert_eq!(names, ["ops_jobtemplate_a-b.yaml"]);
    }
}
