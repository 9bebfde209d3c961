//! Starts every process of the demo, in an order that needs no waiting but for the control plane's address.

use std::{ffi::OsString, net::SocketAddr, time::Duration};

use anyhow::Context;
use selvedge_saas::local_postgres;
use tokio::time::{sleep, timeout};

use super::{
    children::Children,
    files::{self, Files},
    observe::Sidecar,
    plan::{DATABASE, POSTGRES},
    stage::{Place, Stage},
};

/// How long everything may take to come up.
pub(super) const START_LIMIT: Duration = Duration::from_secs(60);

const POLL: Duration = Duration::from_millis(10);

/// Starts everything; returns the sidecars.
pub(super) async fn launch(files: &Files, stage: &Stage, children: &mut Children) -> anyhow::Result<Vec<Sidecar>> {
    files.write_mesh(stage)?;
    files.write_tokens(stage)?;
    let control_plane = start_control_plane(files, stage, children).await?;
    let third_party = ["demo-service", "third-party", "--reuse-port", "--listen", &stage.third_party.to_string()];
    children.start("third-party", stage.outside.as_deref(), third_party.map(OsString::from).into())?;
    let mut sidecars = Vec::with_capacity(stage.places.len());
    for place in &stage.places {
        let config = files.write_bootstrap(place, control_plane)?;
        let name = format!("{}-sidecar", place.instance.name);
        let arguments = vec!["proxy".into(), "--config".into(), config.into()];
        let pid = children.start(&name, place.namespace.as_deref(), arguments)?;
        sidecars.push(Sidecar {
            instance: place.instance,
            dialed: place.inbound.or(place.app),
            metrics: place.metrics,
            pid,
        });
        if place.instance.service == POSTGRES {
            start_database(place, files, children)?;
        } else if let Some(arguments) = service_arguments(place, files) {
            children.start(place.instance.name, place.namespace.as_deref(), arguments)?;
        }
    }
    Ok(sidecars)
}

async fn start_control_plane(files: &Files, stage: &Stage, children: &mut Children) -> anyhow::Result<SocketAddr> {
    let ports = files.path("control-plane.ports");
    let mut arguments: Vec<OsString> = vec!["control-plane".into(), "--config-dir".into(), files.path("mesh").into()];
    arguments.extend(["--state-dir".into(), files.path("control-plane").into()]);
    arguments.extend(["--listen".into(), stage.control_plane.to_string().into()]);
    arguments.extend(["--admin", "127.0.0.1:0"].map(OsString::from));
    arguments.extend(["--ports-file".into(), ports.clone().into()]);
    children.start("control-plane", None, arguments)?;
    let listening = async {
        loop {
            if let Some(address) = files::read_port(&ports, "listen") {
                return address;
            }
            sleep(POLL).await;
        }
    };
    tokio::select! {
        address = timeout(START_LIMIT, listening) => address.context("the control plane does not come up"),
        failure = children.failure() => Err(failure),
    }
}

/// Starts PostgreSQL as a workload like the others.
fn start_database(place: &Place, files: &Files, children: &mut Children) -> anyhow::Result<()> {
    let (Some(listen), Some(database)) = (place.app, files.database()) else { return Ok(()) };
    let command = database.command(listen);
    children.start_command(place.instance.name, place.namespace.as_deref(), database.user(), command)?;
    Ok(())
}

/// The command line of a service; `None` where there is only a sidecar.
fn service_arguments(place: &Place, files: &Files) -> Option<Vec<OsString>> {
    let instance = place.instance;
    let mut words = vec!["demo-service".to_owned(), instance.service.to_owned(), "--reuse-port".to_owned()];
    words.extend(["--listen".to_owned(), place.app?.to_string(), "--instance".to_owned(), instance.name.to_owned()]);
    for (call, address) in instance.calls.iter().zip(&place.outbound) {
        let value = if call.to == DATABASE { local_postgres::url(*address) } else { address.to_string() };
        words.extend([call.flag.to_owned(), value]);
    }
    words.extend(instance.flags.iter().map(ToString::to_string));
    let mut words: Vec<OsString> = words.into_iter().map(OsString::from).collect();
    match instance.service {
        "metrics-log" => words.extend(["--file".into(), files.path("metrics.log").into()]),
        "data" => match files.database() {
            Some(database) => words.extend(["--database-password-file".into(), database.password_file().into()]),
            None => words.extend(["--database".into(), files.path("saas.db").into()]),
        },
        _ => {}
    }
    Some(words)
}
