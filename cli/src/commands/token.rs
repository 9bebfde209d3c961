//! `selvedge token create`: a join token, made on the state directory without a running control plane.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, ensure};
use selvedge_control_plane::{
    clock,
    identity::{Authority, Grant, LEAF_LIFETIME, Role, token_id},
};
use selvedge_identity::audit::{self, Event, Happening, Trail};
use selvedge_policies::{duration::Span, facts::Identity, names};

/// How long the audit log may take for a line.
const PATIENCE: Duration = Duration::from_secs(10);

/// Make join tokens for workloads that have no certificate yet.
#[derive(Debug, clap::Args)]
pub struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, clap::Subcommand)]
enum TokenCommand {
    /// Print a token that is worth one certificate.
    Create(CreateArgs),
}

#[derive(Debug, clap::Args)]
struct CreateArgs {
    /// The control plane's state directory.
    #[arg(long, value_name = "DIR")]
    state_dir: PathBuf,
    /// The identity its bearer gets: namespace and service account.
    #[arg(long, value_name = "NS/SA")]
    identity: String,
    /// The only workload that may use it.
    #[arg(long, value_name = "NS/NAME")]
    workload: Option<String>,
    /// How long it is good for, for instance 30m or 1h.
    #[arg(long, value_name = "DURATION", default_value = "1h")]
    ttl: Span,
    /// The audit log to add to, such as that of the control plane.
    #[arg(long, value_name = "FILE")]
    audit_log: Option<PathBuf>,
    /// Trust domain of the mesh.
    #[arg(long, value_name = "TD", default_value = "mesh.local")]
    trust_domain: String,
}

/// Prints the token, and nothing else, to standard output.
///
/// # Errors
/// A malformed name, or a state directory that cannot be used.
pub fn run(args: TokenArgs) -> anyhow::Result<()> {
    let TokenCommand::Create(args) = args.command;
    let now = clock::unix();
    let (namespace, service_account) = pair(&args.identity, "--identity")?;
    if let Some(workload) = &args.workload {
        pair(workload, "--workload")?;
    }
    ensure!(!args.ttl.0.is_zero(), "--ttl is 0s, and nobody could use the token in time; give some time, such as 1h");
    let audit = args.audit_log.as_deref().map(open).transpose()?;
    let is_new = !Authority::is_founded(&args.state_dir);
    let authority = Authority::open(&args.state_dir, &args.trust_domain, LEAF_LIFETIME, now)?;
    let grant = Grant {
        identity: Identity::new(&args.trust_domain, namespace, service_account)?,
        workload: args.workload,
        expires: now.saturating_add(args.ttl.0.as_secs()),
    };
    let token = authority.create_token(&grant)?;
    if let Some(audit) = audit {
        put_on_record(&audit, &grant, &token, now)?;
    }
    println!("{token}");
    if is_new {
        let directory = args.state_dir.display();
        eprintln!(
            "note: there was no CA in {directory}, so a new one is made; is this the control plane's --state-dir?"
        );
    }
    for authority in authority.describe() {
        if let Role::SignsFrom(from) = authority.role
            && from < grant.expires
        {
            let from = clock::rfc3339(i64::try_from(from).unwrap_or(i64::MAX));
            eprintln!(
                "note: a new CA signs from {from}; this token pins the present one and is worth nothing from then"
            );
        }
    }
    Ok(())
}

fn open(path: &Path) -> anyhow::Result<Trail> {
    // What cannot be written shows when it is waited for.
    Trail::open(Some(path), |_| ()).with_context(|| format!("the audit log {}", path.display()))
}

/// Says in the audit log whom a token was made for, and by whom.
fn put_on_record(audit: &Trail, grant: &Grant, token: &str, now: u64) -> anyhow::Result<()> {
    let time = |unix: u64| clock::rfc3339(i64::try_from(unix).unwrap_or(i64::MAX));
    let now = time(now);
    let made = Event {
        subject: audit::user(rustix::process::getuid().as_raw()).into(),
        object: grant.workload.as_deref().unwrap_or_default().into(),
        grant: audit::Grant {
            way: "command",
            expires: time(grant.expires).into(),
            token: token_id(token),
            identity: grant.identity.to_string().into(),
            ..audit::Grant::default()
        },
        ..Event::new(&now, "selvedge token create", Happening::TokenMade)
    };
    let is_written = audit.record(made.line(0)) && audit.finish(PATIENCE) && audit.take_lost() == 0;
    ensure!(is_written, "the audit log could not be written, so the token that was made is not shown");
    Ok(())
}

fn pair<'a>(given: &'a str, flag: &str) -> anyhow::Result<(&'a str, &'a str)> {
    names::parts(given).with_context(|| format!("{flag} '{given}' is not of the form NS/NAME"))
}
