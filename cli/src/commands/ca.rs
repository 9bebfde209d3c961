//! `selvedge ca`: the certificate authorities of a mesh, on the state directory of its control plane or in the Secret of a
//! cluster.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use selvedge_control_plane::{
    clock::{self, rfc3339},
    identity::{Authority, Described, LEAF_LIFETIME, Role, cluster::Edit},
    source::kubernetes,
};
use selvedge_inject::{policy::webhook::SERVICE, setting::NAMESPACE};
use tokio::runtime::Runtime;

/// Show, rotate and found the certificate authority.
#[derive(Debug, clap::Args)]
pub struct CaArgs {
    #[command(subcommand)]
    command: CaCommand,
}

#[derive(Debug, clap::Subcommand)]
enum CaCommand {
    /// List the authorities that are trusted, and what each does.
    Show(ShowArgs),
    /// Replace the authority without stopping anything: the running control plane takes the steps.
    Rotate(StateArgs),
    /// Make an authority where there is none, or where its key is lost or has leaked.
    New(NewArgs),
}

#[derive(Debug, clap::Args)]
struct StateArgs {
    /// The control plane's state directory.
    #[arg(long, value_name = "DIR", required_unless_present = "kubernetes")]
    state_dir: Option<PathBuf>,
    /// The authority that a cluster keeps, in the Secret selvedge-ca of the control plane's namespace.
    #[arg(long, conflicts_with = "state_dir")]
    kubernetes: bool,
    /// The file that names the cluster; when absent those that kubectl reads, else the cluster around this process.
    #[arg(long, value_name = "FILE", requires = "kubernetes")]
    kubeconfig: Option<PathBuf>,
    /// The namespace of the control plane; selvedge-system when absent.
    #[arg(long, value_name = "NS", requires = "kubernetes")]
    namespace: Option<String>,
    /// Trust domain of the mesh.
    #[arg(long, value_name = "TD", default_value = "mesh.local")]
    trust_domain: String,
}

impl StateArgs {
    /// The namespace that the Secret is in, of a cluster.
    fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or(NAMESPACE)
    }
}

#[derive(Debug, clap::Args)]
struct ShowArgs {
    #[command(flatten)]
    state: StateArgs,
    /// How to print.
    #[arg(long, short, value_enum, default_value = "text")]
    output: Output,
}

#[derive(Debug, clap::Args)]
struct NewArgs {
    #[command(flatten)]
    state: StateArgs,
    /// Also in the place of an authority that is there, or whose trust bundle is: nobody who knows only that one believes
    /// the new one, so every workload has to join anew.
    #[arg(long)]
    replace: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    Text,
    Json,
}

/// Runs the command.
///
/// # Errors
/// A state directory or Secret that cannot be used, or a rotation that is under way already.
pub fn run(args: CaArgs) -> anyhow::Result<()> {
    match args.command {
        CaCommand::Show(args) => State::open(&args.state)?.show(&args),
        CaCommand::Rotate(args) => {
            let state = State::open(&args)?;
            state.authority(&args)?.rotate(clock::unix())?;
            let place = state.place();
            state.put()?;
            println!("A new CA is made in {place}.");
            println!(
                "The control plane announces it, signs with it after one certificate lifetime, and drops the old one"
            );
            println!("after another. `selvedge ca show` tells how far it is.");
            Ok(())
        }
        CaCommand::New(args) => new(&args),
    }
}

fn new(args: &NewArgs) -> anyhow::Result<()> {
    let state = State::open(&args.state)?;
    state.ensure_is_read(&args.state)?;
    let trusted = state.edit.as_ref().and_then(|(_, edit)| edit.trusted()).unwrap_or_default().to_owned();
    let was_there = Authority::is_founded(&state.directory) || !trusted.is_empty();
    ensure!(
        args.replace || !was_there,
        "there is a CA, or a trust bundle that tells of one; restore its key, or rotate it with `selvedge ca rotate`. With \
         --replace a new one is made all the same, which no workload of now believes"
    );
    Authority::replace(&state.directory, &args.state.trust_domain, &trusted, clock::unix())?;
    let place = state.place();
    state.put()?;
    println!("A new CA is made in {place}. It signs what is issued from now on.");
    if was_there {
        println!(
            "Sidecars that know only the one before go on with what they have, and do not believe the control plane."
        );
        println!("Create their pods anew (kubectl rollout restart), or give them new join tokens.");
    }
    Ok(())
}

/// Where the files of the authority are, or a copy of them.
struct State {
    directory: PathBuf,
    /// What is to be put back into a cluster.
    edit: Option<(Runtime, Edit)>,
}

impl State {
    fn open(args: &StateArgs) -> anyhow::Result<Self> {
        if let Some(directory) = &args.state_dir {
            return Ok(Self { directory: directory.clone(), edit: None });
        }
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
        let edit = runtime.block_on(async {
            let client = kubernetes::client(args.kubeconfig.as_deref()).await?;
            anyhow::Ok(Edit::begin(&client, args.namespace()).await?)
        })?;
        Ok(Self { directory: edit.directory().to_owned(), edit: Some((runtime, edit)) })
    }

    /// Makes sure that a control plane reads what is put here: in a cluster, by what the installation has put beside it, or
    /// by whoever names the namespace.
    fn ensure_is_read(&self, args: &StateArgs) -> anyhow::Result<()> {
        let is_read = self.edit.as_ref().is_none_or(|(_, edit)| edit.is_installed());
        ensure!(
            is_read || args.namespace.is_some(),
            "nothing says that the control plane is in namespace {NAMESPACE} of this cluster: there is no Service \
             {SERVICE}, and a control plane elsewhere would never find the key. Is it this cluster? Then `selvedge \
             install` there first, or name the control plane's namespace with --namespace"
        );
        Ok(())
    }

    /// Where the authority is, for people.
    fn place(&self) -> String {
        match &self.edit {
            Some((_, edit)) => edit.place(),
            None => self.directory.display().to_string(),
        }
    }

    fn authority(&self, args: &StateArgs) -> anyhow::Result<Authority> {
        ensure!(
            Authority::is_founded(&self.directory),
            "there is no CA in {}; give the control plane's --state-dir, or --kubernetes and, where it is not {NAMESPACE}, its \
             --namespace",
            self.place()
        );
        Ok(Authority::open(&self.directory, &args.trust_domain, LEAF_LIFETIME, clock::unix())?)
    }

    fn show(&self, args: &ShowArgs) -> anyhow::Result<()> {
        let authorities = self.authority(&args.state)?.describe();
        if args.output == Output::Json {
            println!("{}", serde_json::to_string_pretty(&authorities)?);
            return Ok(());
        }
        println!("{:<18}{:<24}ROLE", "FINGERPRINT", "VALID UNTIL");
        for Described { fingerprint, role, not_after } in &authorities {
            println!("{:<18}{:<24}{}", &fingerprint[..16], rfc3339(*not_after), explain(*role));
        }
        Ok(())
    }

    /// Puts what was changed where the control plane finds it.
    fn put(self) -> anyhow::Result<()> {
        if let Some((runtime, edit)) = self.edit {
            runtime.block_on(edit.put())?;
        }
        Ok(())
    }
}

fn explain(role: Role) -> String {
    let time = |unix: u64| rfc3339(i64::try_from(unix).unwrap_or(i64::MAX));
    match role {
        Role::Signs => "signs".to_owned(),
        Role::Requested => "waits for the control plane to announce it".to_owned(),
        Role::SignsFrom(from) => format!("trusted; signs from {}", time(from)),
        Role::TrustedUntil(until) => format!("signs no more; trusted until {}", time(until)),
    }
}
