//! `stoker policy push`: a component is put into a ConfigMap.

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args as ClapArgs;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ObjectMeta, Patch, PatchParams};
use stoker_policy::Digest;

use super::build::{CONFIG_MAP_BYTES, too_large};
use super::component::Component;
use crate::claim::block_on;

/// Tells people which component is in the ConfigMap.
const DIGEST: &str = "stoker.dev/policy-digest";

#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  stoker policy push rush_hour.wasm --name rush-hour        and prints what to write into an object's spec
  stoker policy push rush_hour.wasm --name rush-hour --dry-run

Objects that name the ConfigMap decide with the new component as soon as it is compiled and has accepted their config; \
until then, and if anything fails, the last good one goes on deciding.")]
pub struct Args {
    /// The component: a .wasm file, or builtin:NAME.
    component: String,
    /// The ConfigMap. It is made if there is none.
    #[arg(long)]
    name: String,
    /// Its namespace: that of the objects which name it. Omitted: that of the kubeconfig's current context.
    #[arg(long, short = 'n')]
    namespace: Option<String>,
    /// The key in the ConfigMap.
    #[arg(long, default_value = "policy.wasm")]
    key: String,
    /// Have the API server check it, and change nothing.
    #[arg(long)]
    dry_run: bool,
}

pub fn push(args: Args) -> Result<()> {
    let component = Component::read(&args.component)?;
    let bytes = component.bytes.len();
    if bytes > CONFIG_MAP_BYTES {
        bail!("{}: {}", component.name, too_large(bytes));
    }
    block_on(async {
        let (_, policy) = component.load().await?;
        let digest = Digest::of(&component.bytes).to_string();
        let client = stoker_operator::connect().await?;
        let namespace = args.namespace.unwrap_or_else(|| client.default_namespace().to_owned());
        let api: Api<ConfigMap> = Api::namespaced(client, &namespace);
        let map = ConfigMap {
            metadata: ObjectMeta {
                name: Some(args.name.clone()),
                annotations: Some([(DIGEST.to_owned(), digest.clone())].into()),
                ..ObjectMeta::default()
            },
            binary_data: Some([(args.key.clone(), ByteString(component.bytes.to_vec()))].into()),
            ..ConfigMap::default()
        };
        let params = PatchParams { dry_run: args.dry_run, ..PatchParams::apply("stoker-policy") };
        let answer = api.patch(&args.name, &params, &Patch::Apply(&map)).await;
        answer.map_err(|error| match error {
            kube::Error::Api(status) if status.code == 409 => anyhow!(
                "ConfigMap {} of namespace {namespace} is also written by another: {}; use another name, or delete it first",
                args.name,
                status.message
            ),
            other => anyhow!(other).context(format!("cannot write ConfigMap {} in namespace {namespace}", args.name)),
        })?;
        let did = if args.dry_run { "would be" } else { "is" };
        let info = policy.info();
        say!("{} {} {did} in ConfigMap {} of namespace {namespace}. In an object's spec:\n", info.name, info.version, args.name);
        say!("  policy:\n    configMap: {{name: {}, key: {}}}\n    digest: {digest}", args.name, args.key);
        say!("\nWith the digest no other bytes are taken: leave it out to have what is pushed later swapped in.");
        anyhow::Ok(())
    })
    .context(component.name)
}
