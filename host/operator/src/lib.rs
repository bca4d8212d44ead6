//! The shell: it watches, asks policies, applies plans and reports. What to do is core's to say.
//!
//! Watched are the pool objects, the pods and Jobs that carry an owner label, and the metadata of ConfigMaps:
//!
//! ```text
//!   pods, Jobs ▶ indexes ───┐
//!   pools ─────▶ controllers ┼─▶ reconcile: observe → decide → plan → apply → report
//!   ConfigMaps ▶ Policies ───┘
//! ```

mod again;
mod api_requests;
mod apply;
mod asking;
mod callback_urls;
mod carry_out;
mod certificates;
mod children;
mod claim_auth;
mod claim_metrics;
mod claim_server;
mod claims;
mod context;
mod cron_jobs;
mod daemon_jobs;
mod deciding;
mod decision_file;
mod decisions;
mod desk;
mod exec_probe;
mod fence;
mod flow_metrics;
mod http_probe;
mod job_flows;
mod job_templates;
mod kept;
mod leads;
mod lease;
mod looked;
mod looks;
mod members;
mod metrics;
mod node_batch_jobs;
mod node_batch_metrics;
mod nodes;
mod object;
mod observe;
mod open_files;
mod orphans;
mod pod_logs;
mod pod_tls;
mod policies;
mod policy_cache;
mod policy_metrics;
mod pool;
mod probe_metrics;
mod prober;
mod projection;
mod question;
mod redis_probe;
mod report;
mod run_metrics;
mod seat;
mod server;
mod shadow;
mod signal_source;
mod signals;
mod slim_job;
mod slim_meta;
mod slim_node;
mod slim_pod;
mod standby_claims;
mod startup;
mod step_checks;
mod trust;

use std::sync::Arc;

use futures::StreamExt;
use futures::future::join_all;
use kube::api::Api;
use kube::runtime::controller::{self, Action, Config};
use kube::runtime::{Controller, Predicate as _, WatchStreamExt as _, predicates, reflector, watcher};
use stoker_api::{DaemonJob, HotStandbyDeployment, HotStandbyJob, JobFlow, NodeBatchJob, PreScaledCronJob};
use tokio::sync::watch;

/// What a simulation needs to ask a policy and to plan as the operator does.
pub mod rehearsal {
    pub use crate::desk::Demand;
    pub use crate::object::Pool;
    pub use crate::pool::settings;
    pub use crate::projection::{ScalingContext, asked, scaling_input};
}

pub use again::{WatchBackOff, watches};
pub use certificates::keep_current;
pub use context::{ClaimOptions, Options, ReportOptions, SignalOptions};
pub use lease::LeaseOptions;
pub use slim_node::SlimNode;
pub use slim_pod::SlimPod;
pub use startup::{StartError, connect, may};
pub use stoker_policy::{CompileLimits, compile_program};

use crate::context::Context;
use crate::kept::control as keep;
use crate::lease::Contender;
use crate::looked::Looked;
use crate::object::{Key, PoolKind};
use crate::observe::watch_children;
use crate::slim_job::SlimJob;

/// Runs the operator until `stop` becomes true.
///
/// # Errors
/// When the cluster cannot be used, in words that say what to do.
pub async fn run(
    client: kube::Client,
    options: Options,
    stop: watch::Receiver<bool>,
) -> Result<(), StartError> {
    startup::check(&client, &options).await?;
    let listen = options.listen.clone();
    let claims = options.claims.clone();
    let decisions = options.decisions.clone();
    let lease = options.lease.clone();
    let context = Context::new(client.clone(), options)?;
    if lease.is_none() {
        context.lead();
    }
    let server = server::serve(listen, context.clone(), stop.clone()).await?;
    let claims = claim_server::serve(claims, context.clone(), stop.clone()).await?;
    let decisions = decisions::serve(decisions, context.clone(), stop.clone()).await?;

    let mut tasks = vec![
        tokio::spawn(nodes::watch_nodes(context.clone(), stop.clone())),
        tokio::spawn(context.prober.clone().run(stop.clone())),
        tokio::spawn(tell_changes(context.clone(), stop.clone())),
    ];
    for scope in context.scopes() {
        tasks.push(tokio::spawn(watch_children::<SlimPod>(context.clone(), scope.clone(), stop.clone())));
        tasks.push(tokio::spawn(watch_children::<SlimJob>(context.clone(), scope.clone(), stop.clone())));
        tasks.push(tokio::spawn(policies::watch_config_maps(context.clone(), scope.clone(), stop.clone())));
        tasks.push(tokio::spawn(control(context.clone(), scope.clone(), deployments, stop.clone())));
        tasks.push(tokio::spawn(control(context.clone(), scope.clone(), jobs, stop.clone())));
        tasks.push(tokio::spawn(standby_claims::control(context.clone(), scope.clone(), stop.clone())));
        let (context, scope) = (context.clone(), scope.clone());
        tasks.push(tokio::spawn(job_templates::control(context.clone(), scope.clone(), stop.clone())));
        tasks.push(tokio::spawn(keep::<PreScaledCronJob>(context.clone(), scope.clone(), stop.clone())));
        tasks.push(tokio::spawn(keep::<JobFlow>(context.clone(), scope.clone(), stop.clone())));
        tasks.push(tokio::spawn(keep::<DaemonJob>(context.clone(), scope.clone(), stop.clone())));
        tasks.push(tokio::spawn(keep::<NodeBatchJob>(context, scope, stop.clone())));
    }
    tracing::info!(scopes = ?context.scopes().iter().map(|s| s.label()).collect::<Vec<_>>(), "running");
    let mut contender = lease.map(|options| Contender::new(client, options));
    let lead = lead(&context, &mut contender, stop);
    let mut all = std::pin::pin!(join_all(tasks));
    tokio::select! {
        // Whatever is under way is dropped with the process.
        Some(lost) = lead => return Err(StartError::LeaseLost(lost)),
        _ = &mut all => {}
    }
    pool::flush_states(&context).await;
    if let Some(contender) = contender.as_mut().filter(|_| context.leads()) {
        contender.release().await;
    }
    for server in [server, claims, decisions] {
        server.await.ok();
    }
    Ok(())
}

/// Leads once it is this replica's turn. It ends with a lease that is lost; None = told to stop before.
async fn lead(
    context: &Arc<Context>,
    contender: &mut Option<Contender>,
    stop: watch::Receiver<bool>,
) -> Option<lease::Lost> {
    let Some(contender) = contender else { return std::future::pending().await };
    lease::mark(&context.client, false).await;
    if !contender.acquire(stop).await {
        return None;
    }
    context.lead();
    let (lost, ()) = futures::join!(contender.renew(), lease::mark(&context.client, true));
    Some(lost)
}

/// Has the pools looked at whose pods answer something else than before.
async fn tell_changes(context: Arc<Context>, mut stop: watch::Receiver<bool>) {
    let mut changes = context.prober.take_changes();
    loop {
        tokio::select! {
            changed = changes.next() => match changed {
                Some(owner) => context.answered_otherwise(&owner),
                None => return,
            },
            _ = stop.wait_for(|s| *s) => return,
        }
    }
}

fn deployments(scope: &context::Scope) -> &Looked<HotStandbyDeployment> {
    &scope.deployments
}

fn jobs(scope: &context::Scope) -> &Looked<HotStandbyJob> {
    &scope.jobs
}

/// Looks after the objects of a kind within a scope.
async fn control<K: PoolKind>(
    context: Arc<Context>,
    scope: Arc<context::Scope>,
    looked: fn(&context::Scope) -> &Looked<K>,
    mut stop: watch::Receiver<bool>,
) {
    let api: Api<K> = scope.api(context.client.clone());
    let triggers = looked(&scope).take_triggers();
    let (pools, writer) = reflector::store();
    looked(&scope).keep(pools.clone());
    // What Stoker writes itself, the status, asks for no look.
    let wanted = predicates::generation.combine(predicates::finalizers);
    let changes = watcher(api, watches())
        .backoff(WatchBackOff::default())
        .modify(|object| {
            // Kept for each object for as long as it exists, and read by nobody here.
            object.meta_mut().managed_fields = None;
        })
        .reflect(writer)
        .inspect(move |event| looked(&scope).hear(event))
        .touched_objects()
        .predicate_filter(wanted, Default::default());
    Controller::for_stream(changes, pools)
        .with_config(Config::default().concurrency(64))
        .reconcile_on(triggers)
        .graceful_shutdown_on(async move {
            stop.wait_for(|s| *s).await.ok();
        })
        .run(
            |pool, context| looks::numbered(pool::reconcile::<K>(pool, context)),
            on_error::<K>,
            context.clone(),
        )
        .for_each(|result| {
            match result {
                // An object that was deleted.
                Err(controller::Error::ObjectNotFound(gone)) => {
                    let namespace = gone.namespace.unwrap_or_default();
                    context.forget(&Key { kind: K::KIND, namespace, name: gone.name });
                    tracing::debug!(remembered = context.remembered(), "forgot a pool that is gone");
                }
                Err(error) => tracing::debug!(%error, "reconcile"),
                Ok(_) => {}
            }
            std::future::ready(())
        })
        .await;
}

fn on_error<K: PoolKind>(object: Arc<K>, error: &pool::ReconcileError, context: Arc<Context>) -> Action {
    let (namespace, name) = (&object.meta().namespace, &object.meta().name);
    tracing::warn!(kind = K::KIND.as_str(), namespace, name, %error, "reconcile failed, trying again");
    context.metrics.reconciled("error");
    Action::requeue(context.unfinished.note(&K::pool(object).key()))
}
