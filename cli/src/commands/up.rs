//! `selvedge up`: a control plane on this machine, in the background, and the sidecars that were joined before.

use std::{ffi::OsString, fs, net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context, ensure};
use selvedge_identity::file;
use serde::{Deserialize, Serialize};

use super::join;
use crate::home::{Home, HomeArgs};

/// How long a control plane has until it is ready.
const READY: Duration = Duration::from_secs(30);
/// The first file of what users write.
const FIRST: &str = include_str!("up/mesh.yaml");

/// Start a mesh on this machine: a control plane, in the background, and again the sidecars that were joined before.
#[derive(Debug, clap::Args)]
pub struct UpArgs {
    #[command(flatten)]
    home: HomeArgs,
    /// Where sidecars connect: 127.0.0.1:15010, or what was said last time. With 0.0.0.0 those of other machines can, which are
    /// set up by hand.
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Where /metrics, /ready, /live and /status are: 127.0.0.1:15014, or what was said last time; keep it on loopback.
    #[arg(long, value_name = "ADDR")]
    admin: Option<SocketAddr>,
}

/// Where the control plane listens.
#[derive(Debug, Serialize, Deserialize)]
struct Addresses {
    listen: SocketAddr,
    admin: SocketAddr,
}

impl Addresses {
    /// What is said now, or was said last time.
    fn of(home: &Home, args: &UpArgs) -> Self {
        let last: Option<Self> = fs::read(home.addresses()).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let last =
            last.unwrap_or(Self { listen: ([127, 0, 0, 1], 15010).into(), admin: ([127, 0, 0, 1], 15014).into() });
        Self { listen: args.listen.unwrap_or(last.listen), admin: args.admin.unwrap_or(last.admin) }
    }

    fn save(&self, home: &Home) -> anyhow::Result<()> {
        let text = serde_json::to_vec(self).context("writing the addresses")?;
        file::publish(&home.addresses(), &text).context("writing the addresses")
    }
}

/// Returns once all of it is ready, and says where it is.
///
/// # Errors
/// The folder cannot be made, or something does not get ready.
pub fn run(args: &UpArgs) -> anyhow::Result<()> {
    let home = args.home.find()?;
    home.make()?;
    let _lock = home.lock()?;
    write_first(&home.config_dir())?;
    let addresses = Addresses::of(&home, args);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(async {
        let place = home.control_plane();
        let is_new = place.running()?.is_none();
        if is_new {
            let started = place.start(&words(&home, &addresses), ("admin", "/ready"), READY).await;
            started.context("the control plane did not start")?;
            addresses.save(&home)?;
        } else if args.listen.is_some() || args.admin.is_some() {
            println!("note: what runs keeps its addresses; `selvedge down` ends it");
        }
        let address = |port| place.port(port).map_or_else(|| "not known".to_owned(), |address| address.to_string());
        println!("the control plane {}", if is_new { "runs" } else { "runs already" });
        println!("  write policies in  {}", home.config_dir().display());
        println!("  sidecars connect   {}", address("listen"));
        println!("  its status         http://{}/status", address("admin"));
        println!("  its log            {}", place.log.display());
        let mut failed = Vec::new();
        for name in home.joined()? {
            if let Err(error) = join::start_again(&home, &name).await {
                eprintln!("error: {error:#}");
                failed.push(name);
            }
        }
        ensure!(failed.is_empty(), "not all of the mesh runs again: {}", failed.join(", "));
        println!("next: selvedge join SERVICE --port PORT, for an application that listens on PORT of this machine");
        Ok(())
    })
}

fn words(home: &Home, addresses: &Addresses) -> Vec<OsString> {
    let place = home.control_plane();
    vec![
        "control-plane".into(),
        "--config-dir".into(),
        home.config_dir().into(),
        "--state-dir".into(),
        home.state_dir().into(),
        "--join-socket".into(),
        home.join_socket().into(),
        "--ports-file".into(),
        place.ports.into(),
        "--listen".into(),
        addresses.listen.to_string().into(),
        "--admin".into(),
        addresses.admin.to_string().into(),
    ]
}

/// Writes the first file where nobody has written anything.
fn write_first(config_dir: &Path) -> anyhow::Result<()> {
    let mut entries = config_dir.read_dir().with_context(|| format!("reading {}", config_dir.display()))?;
    if entries.next().is_none() {
        let path = config_dir.join("mesh.yaml");
        fs::write(&path, FIRST).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}
