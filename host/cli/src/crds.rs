//! `stoker crds`: the definitions that the cluster needs, generated from the types.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args as ClapArgs;

#[derive(ClapArgs)]
pub struct Args {
    /// Write a file for each kind into this folder instead of printing.
    #[arg(long)]
    dir: Option<PathBuf>,
}

pub fn print(args: &Args) -> anyhow::Result<()> {
    for crd in stoker_api::crds() {
        let text = serde_yaml::to_string(&crd)?;
        match &args.dir {
            None => say!("---\n{text}"),
            Some(dir) => {
                let path = dir.join(format!("{}.yaml", crd.spec.names.plural));
                std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            }
        }
    }
    Ok(())
}
