//! `selvedge uninstall`: takes a mesh out of a cluster, in an order in which pods can start whenever it is interrupted.

use std::path::PathBuf;

use anyhow::{Context, bail};
use selvedge_control_plane::removal::{Cluster, Injected, Step, Target};
use selvedge_install::removal;

/// Take the mesh out of a cluster: injection first, then the control plane.
#[derive(Debug, clap::Args)]
pub struct UninstallArgs {
    /// The file that names the cluster; when absent those that kubectl reads, else the cluster around this process.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Go on although pods run with sidecars, which then have no control plane.
    #[arg(long)]
    force: bool,
    /// Delete what users have written for the mesh, too, and the key of its authority. They are listed first.
    #[arg(long)]
    purge: bool,
    /// Only say what would be deleted, and whether it would be refused.
    #[arg(long)]
    dry_run: bool,
}

/// Deletes step by step.
///
/// # Errors
/// Pods that run with sidecars, or a cluster that does not do as it is told.
pub fn run(args: &UninstallArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(uninstall(args))
}

async fn uninstall(args: &UninstallArgs) -> anyhow::Result<()> {
    let cluster = Cluster::connect(args.kubeconfig.as_deref()).await?;
    let (injected, asking) = (cluster.injected().await?, cluster.asking().await?);
    let refused = !injected.is_empty() && !args.force;
    if refused && !args.dry_run {
        bail!("{}", refusal(&injected, &asking));
    }
    let written = cluster.written(&removal::written()).await?;
    if !written.is_empty() {
        let fate = if args.purge { "goes" } else { "stays; --purge deletes it, and the key of the authority" };
        println!("What users have written {fate}:");
        written.iter().for_each(|object| println!("  {object}"));
    }
    let steps = removal::steps(args.purge);
    if args.purge && !args.dry_run {
        look(&cluster, &removal::purged()).await?;
    }
    let found = if args.dry_run { look(&cluster, &steps).await? } else { remove(&cluster, &steps).await? };
    if !found {
        println!("There is nothing of the mesh in this cluster.");
    }
    if refused {
        bail!("{}", refusal(&injected, &asking));
    }
    if !injected.is_empty() {
        println!("These pods run on with a sidecar. Start them again:");
        injected.iter().for_each(|injected| println!("  {}", injected.restart()));
    }
    if !asking.is_empty() {
        println!(
            "These namespaces keep their label, which nobody reads then, but for the next installation. Take it off:"
        );
        unlabel(&asking).for_each(|command| println!("  {command}"));
    }
    Ok(())
}

/// Says what would be deleted, step by step; whether there is anything.
async fn look(cluster: &Cluster, steps: &[Step]) -> anyhow::Result<bool> {
    let mut found = false;
    for step in steps {
        let present = cluster.present(step).await?;
        if !present.is_empty() {
            println!("{}, to be deleted:", step.what);
        }
        present.iter().for_each(|target| println!("  {target}"));
        found |= !present.is_empty();
    }
    Ok(found)
}

/// Deletes, step by step; whether there was anything.
async fn remove(cluster: &Cluster, steps: &[Step]) -> anyhow::Result<bool> {
    let mut found = false;
    for step in steps {
        let told = |target: &Target| {
            found = true;
            println!("deleted {target}");
        };
        cluster.remove(step, told).await?;
    }
    Ok(found)
}

/// The commands that take the label off these namespaces.
fn unlabel(namespaces: &[String]) -> impl Iterator<Item = String> {
    namespaces.iter().map(|namespace| format!("kubectl label namespace {namespace} selvedge.dev/inject-"))
}

/// Why nothing was deleted, and what to do first.
fn refusal(injected: &[Injected], asking: &[String]) -> String {
    let commands: Vec<String> = unlabel(asking).chain(injected.iter().map(Injected::restart)).collect();
    format!(
        "pods run with sidecars, and would get no certificates any more. Take the label selvedge.dev/inject off \
         namespaces and templates, start them again, and then do this again (or do it now, with --force):\n  {}",
        commands.join("\n  ")
    )
}
