//! Modules stand callers first: each uses only those listed below it.
//!
//! Transparent capture: packet filter rules that send a workload's TCP connections through its sidecar.
//!
//! Rules go into the network namespace of the calling thread, for IPv4 and IPv6. nftables is spoken to the kernel without
//! any program; where the kernel lacks it the programs of iptables are used. They live in a table (or chains) of our own
//! name, so nothing else is touched. [`apply`] replaces what an earlier call left in one transaction, then checks that
//! connections are really redirected, and takes the rules back when they are not.
//!
//! What is redirected:
//! - inbound: TCP from outside to an address of this host goes to the inbound port; where nobody listens it is refused;
//! - outbound: TCP from this host to another goes to the outbound port;
//! - TCP that was open before stays as it is; the kernel asks the rules about it once, when it begins to track it;
//! - TCP from the host to itself stays as it is, except what the sidecar's own outbound side sends to another address
//!   of the host than loopback: that is the workload calling itself through its service, and goes to the inbound port.
//!
//! The sidecar's own connections are told by uid or by socket mark. Whoever connects to one of the addresses of [`CHECK`]
//! reaches the outbound port, the sidecar too: so it can tell that it is captured without any rights.
//!
//! [`listeners`] says where this host listens.

use std::{
    fmt, io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    str::FromStr,
};

use clap::Parser;
use selvedge_policies::cidr::Cidr;

mod iptables;
mod nftables;
mod verify;

mod listeners;
mod netlink;
mod tool;

pub use listeners::listeners;
use tool::{Failure, Tool};

/// Socket mark (`SO_MARK`) for the sidecar's connections to other workloads.
pub const OUTBOUND_MARK: u32 = 0x5e1;

/// Socket mark for the sidecar's connections to its own workload; never redirected.
pub const INBOUND_MARK: u32 = 0x5e2;

/// A sidecar that may not set marks binds its connections to its own workload to this source address instead. IPv6
/// has no second loopback address, so there such a sidecar cannot take calls of its workload to itself.
pub const INBOUND_SOURCE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 6);

/// Addresses whose connections are redirected to the outbound port whoever makes them. They are loopback, so that it takes
/// no route, and nothing leaves the host where no rules are.
pub const CHECK: [SocketAddr; 2] = [
    SocketAddr::V4(SocketAddrV4::new(INBOUND_SOURCE, 15099)),
    SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::LOCALHOST, 15099, 0, 0)),
];

/// What to capture, and what to leave alone.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct Capture {
    /// Port of the sidecar that takes inbound connections
    #[arg(long, value_name = "PORT", default_value_t = 15006, value_parser = clap::value_parser!(u16).range(1..))]
    pub inbound_port: u16,
    /// Port of the sidecar that takes outbound connections
    #[arg(long, value_name = "PORT", default_value_t = 15001, value_parser = clap::value_parser!(u16).range(1..))]
    pub outbound_port: u16,
    /// User id of the sidecar, whose connections are not redirected; needed unless it may set socket marks
    #[arg(long, value_name = "UID")]
    pub exempt_uid: Option<u32>,
    /// Ports of this workload that are reached directly
    #[arg(long, value_name = "PORT,...", value_delimiter = ',', value_parser = item::<u16>, default_value = "15020")]
    pub exclude_inbound_ports: Vec<u16>,
    /// Ports that this workload reaches directly
    #[arg(long, value_name = "PORT,...", value_delimiter = ',', value_parser = item::<u16>)]
    pub exclude_outbound_ports: Vec<u16>,
    /// Networks that this workload reaches directly
    #[arg(long, value_name = "CIDR,...", value_delimiter = ',', value_parser = item::<Cidr>)]
    pub exclude_cidrs: Vec<Cidr>,
    /// Packet filter to use; the first that works when absent
    #[arg(long, value_enum)]
    pub backend: Option<Backend>,
}

impl Default for Capture {
    fn default() -> Self {
        Self {
            inbound_port: 15006,
            outbound_port: 15001,
            exempt_uid: None,
            exclude_inbound_ports: vec![15020],
            exclude_outbound_ports: Vec::new(),
            exclude_cidrs: Vec::new(),
            backend: None,
        }
    }
}

impl Capture {
    /// What the `options` of a command line say, one an item; without any it is [`Capture::default`].
    ///
    /// # Errors
    /// An option or its value is not known.
    pub fn from_options<'a>(options: impl IntoIterator<Item = &'a str>) -> Result<Self, CaptureError> {
        #[derive(Parser)]
        #[command(no_binary_name = true, disable_help_flag = true)]
        struct Options {
            #[command(flatten)]
            capture: Capture,
        }
        Options::try_parse_from(options).map(|options| options.capture).map_err(|error| {
            let told = error.to_string();
            let first = told.lines().next().unwrap_or_default();
            CaptureError::Options(first.trim_start_matches("error: ").to_owned())
        })
    }
}

/// The options as one line of text; there may be spaces behind the commas of a list.
impl FromStr for Capture {
    type Err = CaptureError;

    fn from_str(line: &str) -> Result<Self, CaptureError> {
        let mut options: Vec<String> = Vec::new();
        for word in line.split_ascii_whitespace() {
            match options.last_mut() {
                Some(option) if !word.starts_with("--") => {
                    option.push_str(if option.contains('=') { "" } else { "=" });
                    option.push_str(word);
                }
                _ => options.push(word.to_owned()),
            }
        }
        Self::from_options(options.iter().map(String::as_str))
    }
}

/// An item of a list that people may write with a space behind the comma.
fn item<T: FromStr<Err: fmt::Display>>(text: &str) -> Result<T, String> {
    text.trim().parse().map_err(|error: T::Err| error.to_string())
}

/// What the programs that put rules in force are told to do.
#[derive(Clone, Debug, PartialEq, Eq, clap::Subcommand)]
pub enum Command {
    /// Put the rules in force and verify that they work; safe to repeat
    Apply(Capture),
    /// Take the rules away
    Remove,
    /// Print the rules in force
    Show,
}

impl Command {
    /// Does it and returns what to print.
    ///
    /// # Errors
    /// Those of [`apply`], [`remove`] and [`show`].
    pub fn run(&self) -> Result<String, CaptureError> {
        match self {
            Self::Apply(capture) => {
                let backend = apply(capture)?;
                let Capture { inbound_port, outbound_port, .. } = capture;
                Ok(format!("captured with {backend}: inbound to port {inbound_port}, outbound to port {outbound_port}"))
            }
            Self::Remove => remove().map(|()| "no connection is captured any more".into()),
            Self::Show => {
                show().map(|rules| if rules.is_empty() { "no capture rules are in force".into() } else { rules })
            }
        }
    }
}

/// A packet filter, in the order of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Backend {
    /// The kernel's nftables, without a program
    Nft,
    /// `iptables-restore` and `ip6tables-restore`
    Iptables,
    /// `iptables-legacy-restore` and `ip6tables-legacy-restore`, for kernels without nftables
    IptablesLegacy,
}

impl Backend {
    /// All of them, preferred first.
    pub const ALL: [Self; 3] = [Self::Nft, Self::Iptables, Self::IptablesLegacy];

    const fn name(self) -> &'static str {
        match self {
            Self::Nft => "nftables",
            Self::Iptables => "iptables",
            Self::IptablesLegacy => "iptables-legacy",
        }
    }

    fn apply(self, capture: &Capture) -> Result<(), Failure> {
        match self {
            Self::Nft => nftables::apply(capture),
            Self::Iptables => iptables::apply("", capture),
            Self::IptablesLegacy => iptables::apply("-legacy", capture),
        }
    }

    fn remove(self) -> Result<(), Failure> {
        match self {
            Self::Nft => nftables::remove(),
            Self::Iptables => iptables::remove(""),
            Self::IptablesLegacy => iptables::remove("-legacy"),
        }
    }

    fn show(self) -> Result<String, Failure> {
        match self {
            Self::Nft => nftables::show(),
            Self::Iptables => iptables::show(""),
            Self::IptablesLegacy => iptables::show("-legacy"),
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why traffic could not be captured, or released.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The sidecar could not tell the directions apart.
    #[error("inbound and outbound connections cannot go to the same port {0}: give the sidecar's two ports")]
    SamePort(u16),
    /// Options that nobody knows.
    #[error("the options for capture cannot be used: {0}")]
    Options(String),
    /// No packet filter is there.
    #[error(
        "this kernel has no nftables, and no iptables is installed: load the module nf_tables, or install iptables, and \
         try again"
    )]
    NoTool,
    /// The kernel or the tool refused.
    #[error("the rules could not be read or changed: {0} (capture needs CAP_NET_ADMIN in the network namespace)")]
    Refused(String),
    /// The rules went in and had no effect; they were taken back.
    #[error("the rules were applied and do not work, so they were removed again: {0}")]
    NotInForce(String),
    /// The same, and they could not be taken back.
    #[error("rules that do not work are still in force: {0} ({1})")]
    Left(Box<CaptureError>, Box<CaptureError>),
    /// They were in force once.
    #[error("the rules are not in force any more: none redirects to port {0}")]
    Gone(u16),
    /// A local socket call for the check failed; the rules were taken back.
    #[error("the rules could not be checked, so they were removed again")]
    Unchecked(#[source] io::Error),
}

/// Puts the rules in force in place of those of an earlier call, and returns the packet filter that took them.
///
/// # Errors
/// When no packet filter takes the rules; those of an earlier call then stay. When they are taken and do not work,
/// nothing stays in force.
pub fn apply(capture: &Capture) -> Result<Backend, CaptureError> {
    if capture.inbound_port == capture.outbound_port {
        return Err(CaptureError::SamePort(capture.inbound_port));
    }
    let candidates = capture.backend.map_or(Backend::ALL.to_vec(), |backend| vec![backend]);
    let mut refusal = CaptureError::NoTool;
    for backend in candidates {
        match backend.apply(capture) {
            Ok(()) => {
                remove_from(Backend::ALL.into_iter().filter(|other| *other != backend))?;
                return verify::in_force(capture, backend).map(|()| backend).map_err(take_back);
            }
            Err(Failure::Missing) => {}
            // The preferred one's words tell most.
            Err(Failure::Refused(output)) if matches!(refusal, CaptureError::NoTool) => {
                refusal = CaptureError::Refused(output);
            }
            Err(Failure::Refused(_)) => {}
        }
    }
    Err(refusal)
}

/// Checks that rules are in force, without making a connection.
///
/// # Errors
/// When there are none that redirect to the two ports, or they cannot be read.
pub fn verify(capture: &Capture) -> Result<(), CaptureError> {
    verify::missing(capture, &show()?).map_or(Ok(()), |port| Err(CaptureError::Gone(port)))
}

/// Removes the rules of any backend. Fine when there are none.
///
/// # Errors
/// When rules are there and cannot be removed.
pub fn remove() -> Result<(), CaptureError> {
    remove_from(Backend::ALL)
}

fn remove_from(backends: impl IntoIterator<Item = Backend>) -> Result<(), CaptureError> {
    for backend in backends {
        match backend.remove() {
            Ok(()) | Err(Failure::Missing) => {}
            Err(Failure::Refused(output)) => return Err(CaptureError::Refused(output)),
        }
    }
    Ok(())
}

/// The rules in force, as the packet filter prints them; empty when there are none.
///
/// # Errors
/// When they cannot be read.
pub fn show() -> Result<String, CaptureError> {
    let mut rules = String::new();
    for backend in Backend::ALL {
        match backend.show() {
            Ok(text) => rules.push_str(&text),
            Err(Failure::Missing) => {}
            Err(Failure::Refused(output)) => return Err(CaptureError::Refused(output)),
        }
    }
    Ok(rules)
}

/// Takes the rules away after a failure, whose own message matters more than any but that they are still there.
fn take_back(error: CaptureError) -> CaptureError {
    match remove() {
        Ok(()) => error,
        Err(left) => CaptureError::Left(Box::new(left), Box::new(error)),
    }
}

/// Of `cidrs`, those of IPv6 or of IPv4. Networks of IPv6 are written with colons.
fn of_family(cidrs: &[Cidr], v6: bool) -> Vec<String> {
    cidrs.iter().map(Cidr::to_string).filter(|cidr| cidr.contains(':') == v6).collect()
}
