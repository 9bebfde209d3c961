//! `selvedge join SERVICE --port PORT`: an application of this machine gets its place in the mesh that `selvedge up` has
//! started, and a sidecar in the background.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fmt::Write as _,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    ops::Range,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, anyhow, bail, ensure};
use selvedge_control_plane::{
    model::ObjectId,
    source::{Change, files},
};
use selvedge_identity::file;
use selvedge_policies::names::{self, PortName};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::down;
use crate::{
    home::{Home, HomeArgs},
    probe,
};

/// How long a sidecar has until it has its certificate and its configuration.
const READY: Duration = Duration::from_secs(30);
/// The first local port tried for services that are called.
const FIRST_CALL: u16 = 9001;
/// The ports for peers are looked for from one of these on: below those that the kernel gives to connections
/// (`ip_local_port_range`), which would have it after a restart.
const INBOUND: Range<u16> = 20_000..30_000;
/// The name of the port in what is written.
const PORT: &str = "main";

/// Give an application of this machine its place in the mesh, and a sidecar, in the background.
#[derive(Debug, clap::Args)]
pub struct JoinArgs {
    /// The service that the application is an instance of; NAMESPACE/SERVICE where the namespace is not `default`.
    service: String,
    /// The port of 127.0.0.1 on which the application listens; without one it only calls others.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// A service that the application calls, with its port, and the local port where it is called: SERVICE:PORT or
    /// SERVICE:PORT=LOCAL; once for each.
    #[arg(long = "call", value_name = "SERVICE:PORT")]
    calls: Vec<Call>,
    /// The name of the Service's port that the application is for, where the Service has several by name (`targetPort`).
    #[arg(long, value_name = "NAME", requires = "port")]
    target_port: Option<String>,
    #[command(flatten)]
    home: HomeArgs,
}

/// A service that is called.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Call {
    to: String,
    local: Option<u16>,
}

impl std::str::FromStr for Call {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (to, local) = match text.split_once('=') {
            Some((to, local)) => match local.parse() {
                Ok(port) if port != 0 => (to, Some(port)),
                _ => return Err(format!("'{local}' is no port")),
            },
            None => (text, None),
        };
        let to = if to.contains('/') { to.to_owned() } else { names::object("default", to) };
        to.parse::<PortName>().map_err(|_| format!("'{text}' is not SERVICE:PORT or NAMESPACE/SERVICE:PORT"))?;
        Ok(Self { to, local })
    }
}

/// What the control plane says of the mesh, on its join socket.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mesh {
    control_plane: String,
}

/// The process that joins.
struct Member<'a> {
    namespace: &'a str,
    service: &'a str,
    /// Of the `Workload`: the service, and the port, so that the same command means the same process.
    workload: String,
    /// Of the folders and files here.
    name: String,
}

/// A file of the sidecar, as far as it is written here.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sidecar {
    workload: String,
    control_plane: String,
    join_token_file: PathBuf,
    state_dir: PathBuf,
    admin: SocketAddr,
    metrics: SocketAddr,
    ports_file: PathBuf,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    inbound: Vec<Inbound>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    outbound: Vec<Outbound>,
    /// What the user has added.
    #[serde(flatten)]
    rest: serde_json::Map<String, Value>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Inbound {
    listen: SocketAddr,
    forward: SocketAddr,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Outbound {
    listen: SocketAddr,
    to: String,
}

/// Writes what has to be said of the application, and returns once its sidecar is ready.
///
/// # Errors
/// No mesh runs here, a `Service` of this name means something else, or the sidecar does not get ready.
pub fn run(args: &JoinArgs) -> anyhow::Result<()> {
    let member = Member::new(&args.service, args.port)?;
    ensure!(
        args.port.is_some() || !args.calls.is_empty(),
        "say with --port where {} listens, or with --call what it calls",
        args.service
    );
    let (home, _lock) = args.home.enter()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(join(&home, &member, args))
}

impl<'a> Member<'a> {
    fn new(service: &'a str, port: Option<u16>) -> anyhow::Result<Self> {
        let (namespace, service) = names::parts(service).unwrap_or(("default", service));
        ensure!(
            names::is_label(service) && names::is_label(namespace),
            "'{service}' is no name of a service: expected SERVICE or NAMESPACE/SERVICE, in lower case letters, digits and -"
        );
        let workload = port.map_or_else(|| service.to_owned(), |port| format!("{service}-{port}"));
        let name = if namespace == "default" { workload.clone() } else { format!("{namespace}.{workload}") };
        Ok(Self { namespace, service, workload, name })
    }

    fn object(&self) -> String {
        names::object(self.namespace, &self.workload)
    }

    fn identity(&self) -> String {
        names::object(self.namespace, self.service)
    }
}

async fn join(home: &Home, member: &Member<'_>, args: &JoinArgs) -> anyhow::Result<()> {
    let mesh = mesh(home).await?;
    let folder = home.sidecar(&member.name);
    let before = read(&folder);
    if before.is_some() {
        let had = identity_of(home, &member.name)?;
        ensure!(
            had == member.identity(),
            "{} is a process of {had} already; `selvedge leave` takes it out",
            member.name
        );
    }
    let place = home.running_sidecar(&member.name);
    let runs = place.running()?.is_some();
    let sidecar = sidecar(home, member, args, mesh.control_plane, (before.as_ref(), runs))?;
    write_objects(home, member, args, &sidecar)?;
    if before.as_ref() != Some(&sidecar) || !runs {
        file::create_dir(&folder).with_context(|| format!("making {}", folder.display()))?;
        place.end(down::SIDECAR).await.context("ending the sidecar before")?;
        write(&folder, &sidecar)?;
        let started = start(home, &member.name, &sidecar, &member.identity()).await;
        if started.is_err() && before.is_none() {
            // Nothing is left of what never was.
            place.end(down::SIDECAR).await.context("ending the sidecar")?;
            fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
            let workload = workload_file(home, &member.name);
            fs::remove_file(&workload).with_context(|| format!("removing {}", workload.display()))?;
        }
        started?;
    }
    print!("{}", summary(home, member, &sidecar)?);
    for note in notes(home, args).await {
        println!("note: {note}");
    }
    Ok(())
}

/// What will keep calls from working, or policies from holding, as far as it can be seen from here.
async fn notes(home: &Home, args: &JoinArgs) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(port) = args.port {
        if !listens(Ipv4Addr::LOCALHOST, port).await {
            notes.push(format!("nobody listens on 127.0.0.1:{port} yet"));
        } else if listens(Ipv4Addr::new(127, 0, 0, 2), port).await {
            notes.push(format!(
                "the application listens on all addresses, where callers can go past its sidecar and every policy: let it \
                 listen on 127.0.0.1:{port} only"
            ));
        }
    }
    for Call { to, .. } in &args.calls {
        let Ok(PortName { service, .. }) = to.parse() else { continue };
        if matches!(service_of(&home.config_dir(), service.namespace(), service.name()), Ok(None)) {
            notes.push(format!("there is no Service {service} yet"));
        }
    }
    notes
}

async fn listens(address: Ipv4Addr, port: u16) -> bool {
    tokio::net::TcpStream::connect((address, port)).await.is_ok()
}

/// What the control plane says of the mesh.
async fn mesh(home: &Home) -> anyhow::Result<Mesh> {
    let told = probe::get_local(&home.join_socket(), "/mesh").await;
    let told = told
        .with_context(|| format!("no mesh of yours runs in {}: start one with `selvedge up`", home.path().display()))?;
    serde_json::from_str(&told).context("reading what the control plane says of the mesh")
}

/// The file of the sidecar. Ports that it had before it keeps, unless somebody else has them now.
fn sidecar(
    home: &Home,
    member: &Member<'_>,
    args: &JoinArgs,
    control_plane: String,
    (before, runs): (Option<&Sidecar>, bool),
) -> anyhow::Result<Sidecar> {
    let folder = home.sidecar(&member.name);
    let mut taken = taken(home, &member.name)?;
    let mut kept = |had: Option<SocketAddr>, first: u16| {
        let had = had.filter(|had| runs || is_free(had.port())).map(|had| had.port());
        let port = had.or_else(|| (first..).find(|port| !taken.contains(port) && is_free(*port)));
        let port = port.context("no local port is free")?;
        taken.insert(port);
        anyhow::Ok(local(port))
    };
    let mut inbound = Vec::new();
    if let Some(port) = args.port {
        let had = before.and_then(|before| before.inbound.first()).map(|before| before.listen);
        inbound.push(Inbound { listen: kept(had, first_inbound())?, forward: local(port) });
    }
    let mut outbound: Vec<Outbound> = Vec::new();
    for call in &args.calls {
        let had = before.into_iter().flat_map(|before| &before.outbound);
        let had = had.filter(|before| before.to == call.to).map(|before| before.listen).next();
        let listen = match call.local.map(local) {
            None => kept(had, FIRST_CALL)?,
            Some(wanted) => {
                let own = runs
                    && before.into_iter().flat_map(|before| &before.outbound).any(|before| before.listen == wanted);
                ensure!(
                    own || is_free(wanted.port()),
                    "somebody else listens on {wanted}: give {} another port",
                    call.to
                );
                wanted
            }
        };
        outbound.push(Outbound { listen, to: call.to.clone() });
    }
    Ok(Sidecar {
        workload: member.object(),
        control_plane,
        join_token_file: folder.join("token"),
        state_dir: folder.join("state"),
        admin: local(0),
        metrics: local(0),
        ports_file: home.running_sidecar(&member.name).ports,
        inbound,
        outbound,
        rest: before.map(|before| before.rest.clone()).unwrap_or_default(),
    })
}

/// The ports of all other processes that were joined here, whether they run or not: who listened on one of them would be called
/// in their place, or call in their name.
fn taken(home: &Home, name: &str) -> anyhow::Result<BTreeSet<u16>> {
    let others = home.joined()?.into_iter().filter(|other| other != name);
    let others = others.filter_map(|other| read(&home.sidecar(&other)));
    Ok(others
        .flat_map(|other| {
            let inbound = other.inbound.into_iter().map(|inbound| inbound.listen.port());
            inbound.chain(other.outbound.into_iter().map(|outbound| outbound.listen.port())).collect::<Vec<_>>()
        })
        .collect())
}

/// Another one for each command, so that two in different folders do not find the same.
fn first_inbound() -> u16 {
    let number = std::process::id() % u32::from(INBOUND.end - INBOUND.start);
    INBOUND.start + u16::try_from(number).unwrap_or(0)
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Whether nobody listens on this port of 127.0.0.1.
fn is_free(port: u16) -> bool {
    TcpListener::bind(local(port)).is_ok()
}

fn path(folder: &Path) -> PathBuf {
    folder.join("sidecar.yaml")
}

fn read(folder: &Path) -> Option<Sidecar> {
    serde_saphyr::from_str(&fs::read_to_string(path(folder)).ok()?).ok()
}

fn write(folder: &Path, sidecar: &Sidecar) -> anyhow::Result<()> {
    let text = serde_saphyr::to_string(sidecar).context("writing the file of the sidecar")?;
    let path = path(folder);
    file::publish(&path, text.as_bytes()).with_context(|| format!("writing {}", path.display()))
}

/// Says of the application what the mesh has to know. A `Service` that is there stays as it is.
fn write_objects(home: &Home, member: &Member<'_>, args: &JoinArgs, sidecar: &Sidecar) -> anyhow::Result<()> {
    let port = args.port;
    let Member { namespace, service, workload, name } = member;
    let config_dir = home.config_dir();
    let (mut labels, mut port_name) = (json!({ "app": service }), PORT.to_owned());
    if let Some(port) = port {
        match service_of(&config_dir, namespace, service)? {
            Some(known) => {
                let fitting = fits(&known, port, args.target_port.as_deref());
                (labels, port_name) = fitting.with_context(|| format!("the Service {namespace}/{service}"))?;
            }
            None => {
                let text = SERVICE
                    .replace("NAMESPACE", namespace)
                    .replace("SERVICE", service)
                    .replace("PORT", &port.to_string());
                let stem =
                    if *namespace == "default" { (*service).to_owned() } else { format!("{namespace}.{service}") };
                publish(&config_dir.join(format!("{stem}.service.yaml")), &text)?;
            }
        }
    }
    let dial = sidecar.inbound.first().map(|inbound| inbound.listen.port());
    let mut ports = String::new();
    if let (Some(port), Some(dial)) = (port, dial) {
        let name = if port_name.is_empty() { String::new() } else { format!("name: {port_name}, ") };
        write!(ports, "\n  ports: [{{ {name}port: {port}, dial: {dial} }}]  # peers reach the sidecar on {dial}")?;
    }
    let text = WORKLOAD
        .replace("NAMESPACE", namespace)
        .replace("WORKLOAD", workload)
        .replace("SERVICE", service)
        .replace("LABELS", &labels.to_string())
        .replace("PORTS", &ports);
    publish(&workload_file(home, name), &text)
}

const SERVICE: &str = r#"# Written by `selvedge join`, and yours to change. Its callers name this port; the processes behind it may listen on others.
apiVersion: v1
kind: Service
metadata: { name: "SERVICE", namespace: "NAMESPACE" }
spec:
  selector: { app: "SERVICE" }
  ports: [{ name: main, port: PORT, targetPort: main }]
"#;

const WORKLOAD: &str = r#"# Written by `selvedge join`, which writes it anew; `selvedge leave` removes it.
apiVersion: selvedge.dev/v1alpha1
kind: Workload
metadata: { name: "WORKLOAD", namespace: "NAMESPACE", labels: LABELS }
spec:
  serviceAccount: "SERVICE"
  address: 127.0.0.1PORTS
"#;

fn publish(path: &Path, text: &str) -> anyhow::Result<()> {
    file::publish(path, text.as_bytes()).with_context(|| format!("writing {}", path.display()))
}

/// The `Service` of this name that the files of the folder have, read as the control plane reads them.
///
/// # Errors
/// One of them cannot be read, which may be the one.
fn service_of(config_dir: &Path, namespace: &str, name: &str) -> anyhow::Result<Option<Value>> {
    let changes = files::once(config_dir).map_err(|reason| anyhow!("{reason}"))?;
    let readings: Vec<_> = changes
        .iter()
        .filter_map(|change| match change {
            Change::Put(origin, reading) => Some((origin, reading)),
            _ => None,
        })
        .collect();
    let is_it = |id: &ObjectId| id.kind == "Service" && *id.namespace == *namespace && *id.name == *name;
    for (origin, reading) in &readings {
        if let Some(found) = reading.objects.iter().find(|found| is_it(&found.object.id)) {
            return Ok(Some(serde_json::from_str(&found.document).context("reading the Service")?));
        }
        ensure!(
            !reading.incomplete && !reading.refused.iter().any(is_it),
            "{origin} cannot be read, and may have the Service {namespace}/{name}: `selvedge lint {}` says what is wrong",
            config_dir.display()
        );
    }
    Ok(None)
}

/// The labels that a `Service` selects, and the name of the port that an application on `port` has for it: empty where it
/// goes by the number.
fn fits(service: &Value, port: u16, wanted: Option<&str>) -> anyhow::Result<(Value, String)> {
    let selector = &service["spec"]["selector"];
    ensure!(selector.is_object(), "has no selector, and no process can be chosen for it");
    let ports = service["spec"]["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    let targets: Vec<&Value> = ports.iter().map(|port| port.get("targetPort").unwrap_or(&port["port"])).collect();
    if wanted.is_none() && targets.iter().any(|target| target.as_u64() == Some(port.into())) {
        return Ok((selector.clone(), String::new()));
    }
    let named: BTreeSet<&str> = targets.iter().filter_map(|target| target.as_str()).collect();
    let fitting: Vec<&&str> = named.iter().filter(|name| wanted.is_none_or(|wanted| wanted == **name)).collect();
    match fitting.as_slice() {
        [name] => Ok((selector.clone(), (**name).to_owned())),
        [] => {
            let listed: Vec<String> = targets.iter().map(ToString::to_string).collect();
            let wanted = wanted.map_or_else(|| port.to_string(), str::to_owned);
            bail!("has no port whose targetPort is {wanted}; it has {}", listed.join(", "))
        }
        _ => {
            let listed: Vec<&str> = named.into_iter().collect();
            bail!("has several named ports: say with --target-port which the application is for: {}", listed.join(", "))
        }
    }
}

/// Starts the sidecar of this name, unless it runs with the control plane that there is.
pub(super) async fn start_again(home: &Home, name: &str) -> anyhow::Result<()> {
    let (folder, place) = (home.sidecar(name), home.running_sidecar(name));
    let mut sidecar =
        read(&folder).with_context(|| format!("{} is damaged: join it again", path(&folder).display()))?;
    let control_plane = mesh(home).await?.control_plane;
    if place.running()?.is_some() && sidecar.control_plane == control_plane {
        return Ok(());
    }
    let identity = identity_of(home, name)?;
    for listen in sidecar.inbound.iter().map(|inbound| inbound.listen).chain(sidecar.outbound.iter().map(|o| o.listen))
    {
        ensure!(
            place.running()?.is_some() || is_free(listen.port()),
            "somebody else listens on {listen}, a port of the sidecar {name}: end that, or `selvedge leave {name}` and join anew"
        );
    }
    place.end(down::SIDECAR).await.with_context(|| format!("ending the sidecar {name}"))?;
    sidecar.control_plane = control_plane;
    write(&folder, &sidecar)?;
    start(home, name, &sidecar, &identity).await?;
    println!("the sidecar {name} runs again");
    Ok(())
}

/// `namespace/serviceAccount` of a process that was joined, as its `Workload` says.
fn identity_of(home: &Home, name: &str) -> anyhow::Result<String> {
    let path = workload_file(home, name);
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let workload: Value = serde_saphyr::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
    let namespace = workload["metadata"]["namespace"].as_str().unwrap_or("default");
    let account = workload["spec"]["serviceAccount"].as_str();
    Ok(names::object(namespace, account.with_context(|| format!("{} has no serviceAccount", path.display()))?))
}

/// Starts a sidecar, with a token for the case that it has no certificate, or one that has expired meanwhile.
async fn start(home: &Home, name: &str, sidecar: &Sidecar, identity: &str) -> anyhow::Result<()> {
    let wanted = json!({ "identity": identity, "workload": sidecar.workload }).to_string();
    let token = probe::post_local(&home.join_socket(), "/token", wanted).await.context("asking for a join token")?;
    file::replace(&sidecar.join_token_file, token.as_bytes()).context("writing the join token")?;
    let words: Vec<OsString> = vec!["proxy".into(), "--config".into(), path(&home.sidecar(name)).into()];
    let started = home.running_sidecar(name).start(&words, ("metrics", "/ready"), READY).await;
    started.with_context(|| format!("the sidecar {name} did not get ready"))
}

/// The file that says of a process that it is there.
pub(super) fn workload_file(home: &Home, name: &str) -> PathBuf {
    home.config_dir().join(format!("{name}.workload.yaml"))
}

fn summary(home: &Home, member: &Member<'_>, sidecar: &Sidecar) -> anyhow::Result<String> {
    let place = home.running_sidecar(&member.name);
    let mut text = String::new();
    writeln!(text, "{} is in the mesh, as {}", member.name, member.identity())?;
    for Inbound { listen, forward } in &sidecar.inbound {
        writeln!(text, "  its application  {forward}")?;
        writeln!(text, "  peers reach it   {listen}, over mutual TLS")?;
    }
    for Outbound { listen, to } in &sidecar.outbound {
        writeln!(text, "  it calls         {to} at http://{listen}")?;
    }
    if let Some(metrics) = place.port("metrics") {
        writeln!(text, "  its metrics      http://{metrics}/metrics")?;
    }
    writeln!(text, "  its log          {}", place.log.display())?;
    Ok(text)
}
