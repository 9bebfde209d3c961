//! Capture rules in a real kernel: each test runs in network namespaces of its own, made by `unshare` and gone with
//! the process. Needs root; without it the tests say so and pass.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    time::Duration,
};

use selvedge_capture::{self as capture, Backend, CHECK, Capture, CaptureError, INBOUND_MARK, OUTBOUND_MARK};
use selvedge_proxy::{Side, dial, expect_capture, original_dst};
use socket2::{Domain, Socket, Type};

const INSIDE: &str = "SELVEDGE_TEST_NAMESPACE";
const NOWHERE: &str = "198.51.100.7:80";
const UID: u32 = 4321;
/// How long a busy machine may take. Nothing here waits for it in vain: what is not redirected reaches the neighbour,
/// where nobody listens, and is refused at once.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs the test named `name` again in a new network namespace with a neighbour, or `body` when this is that run.
fn in_namespace(name: &str, tool: &str, body: fn()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    let works = |program: &str, args: &[&str]| {
        Command::new(program).args(args).stdout(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    if !works("unshare", &["-n", "ip", "link", "add", "type", "veth"]) || !works(tool, &["-V"]) {
        // Past the capture of the test harness, so that every skip shows.
        let needs = format!("needs root to make network namespaces, and the tools unshare, ip, nsenter and {tool}");
        return drop(writeln!(std::io::stderr(), "skipped: {name}: {needs}"));
    }
    let script = format!(
        "set -e
        ip link set lo up
        ip link add sv0 type veth peer name sv1
        unshare -n sleep 600 & neighbour=$!
        trap 'kill $neighbour' EXIT
        while [ \"$(readlink /proc/$neighbour/ns/net)\" = \"$(readlink /proc/self/ns/net)\" ]; do sleep 0.01; done
        ip link set sv1 netns $neighbour
        nsenter -t $neighbour -n sh -ec 'ip link set sv1 up; ip addr add 10.99.0.2/24 dev sv1;
            ip -6 addr add fd99::2/64 dev sv1 nodad
            for v4 in 198.51.100.7 203.0.113.5; do ip addr add $v4/32 dev sv1; done
            for v6 in 2001:db8::7 2001:db8:ffff::1; do ip -6 addr add $v6/128 dev sv1 nodad; done'
        ip addr add 10.99.0.1/24 dev sv0; ip -6 addr add fd99::1/64 dev sv0 nodad; ip link set sv0 up
        ip route add default via 10.99.0.2; ip -6 route add default via fd99::2
        NEIGHBOUR=$neighbour {INSIDE}=1 \"$0\" --exact {name} --nocapture"
    );
    let test = std::env::current_exe().unwrap();
    let status = Command::new("unshare").args(["-n", "sh", "-c", &script]).arg(test).status().unwrap();
    assert!(status.success(), "{name} failed in its namespace");
}

/// A port of the sidecar, on both families.
fn sidecar(port: u16) -> TcpListener {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
    socket.set_only_v6(false).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, port)).into()).unwrap();
    socket.listen(16).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket.into()
}

/// The original destination of the next connection to `listener`, `None` when none came.
fn accepted(listener: &TcpListener) -> Option<Option<SocketAddr>> {
    let (stream, _) = listener.accept().ok()?;
    stream.set_nonblocking(true).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    let _guard = runtime.enter();
    Some(original_dst(&tokio::net::TcpStream::from_std(stream).unwrap()))
}

/// The original destination of the next connection to `listener`, which has been made or is being made.
fn arrival(listener: &TcpListener) -> Option<SocketAddr> {
    for _ in 0..PATIENCE.as_millis() / 5 {
        if let Some(destination) = accepted(listener) {
            return destination;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("nobody came")
}

/// Connects from here with `mark`.
fn connect(target: &str, mark: u32) -> bool {
    let target: SocketAddr = target.parse().unwrap();
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, None).unwrap();
    socket.set_mark(mark).unwrap();
    socket.connect_timeout(&target.into(), PATIENCE).is_ok()
}

/// Connects from here as another user.
fn connect_as(uid: u32, target: &str) -> bool {
    let (host, port) = target.rsplit_once(':').unwrap();
    let script = format!("exec 3<>/dev/tcp/{host}/{port}");
    let mut bash = Command::new("timeout");
    bash.arg(PATIENCE.as_secs().to_string()).args(["bash", "-c", &script]).stderr(Stdio::null()).uid(uid);
    bash.status().unwrap().success()
}

/// Connects from the neighbour.
fn connect_from_outside(target: &str) -> bool {
    ask_from_outside(target) == Some(0)
}

/// Whether the neighbour is refused, at once.
fn is_refused_from_outside(target: &str) -> bool {
    ask_from_outside(target) == Some(1)
}

/// How a program of the neighbour's ends that connects; 124 where it got no answer.
fn ask_from_outside(target: &str) -> Option<i32> {
    let (host, port) = target.rsplit_once(':').unwrap();
    let neighbour = std::env::var("NEIGHBOUR").unwrap();
    let script = format!("exec 3<>/dev/tcp/{}/{port}", host.trim_matches(['[', ']']));
    let patience = PATIENCE.as_secs().to_string();
    let enter = ["-t", &neighbour, "-n", "timeout", &patience, "bash", "-c", &script];
    Command::new("nsenter").args(enter).stderr(Stdio::null()).status().unwrap().code()
}

const DIAL: &str = "SELVEDGE_TEST_DIAL";

/// Run by [`dial_as`], as another user; on its own it has nothing to do.
#[test]
fn dials_when_told_to() {
    let Ok(told) = std::env::var(DIAL) else { return };
    let (side, target) = told.split_once(' ').unwrap();
    let side = if side == "mesh" { Side::Mesh } else { Side::Workload };
    expect_capture();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let dialled = runtime.block_on(async { tokio::time::timeout(PATIENCE, dial(target.parse().unwrap(), side)).await });
    dialled.expect("no answer in time").expect("refused");
}

/// Connects from here as a sidecar without privileges does.
fn dial_as(uid: u32, side: &str, target: &str) -> bool {
    let mut test = Command::new("/proc/self/exe");
    test.args(["--exact", "dials_when_told_to"]).env(DIAL, format!("{side} {target}")).env("RUST_BACKTRACE", "0");
    test.stdout(Stdio::null()).stderr(Stdio::null()).uid(uid).status().unwrap().success()
}

fn rules(backend: Backend) -> Capture {
    Capture {
        exempt_uid: Some(UID),
        exclude_outbound_ports: vec![2222],
        exclude_cidrs: vec!["203.0.113.0/24".parse().unwrap(), "2001:db8:ffff::/48".parse().unwrap()],
        backend: Some(backend),
        ..Capture::default()
    }
}

fn redirects(backend: Backend) {
    let (inbound, outbound) = (sidecar(15006), sidecar(15001));
    let app = TcpListener::bind("0.0.0.0:8080").unwrap();
    app.set_nonblocking(true).unwrap();
    let _another = TcpListener::bind("[fd99::1]:8081").unwrap();
    for round in 0..2 {
        assert_eq!(capture::apply(&rules(backend)).unwrap(), backend, "round {round}");
        while accepted(&outbound).is_some() {}
    }

    for target in [NOWHERE, "[2001:db8::7]:80"] {
        assert!(connect(target, 0), "{target}");
        assert_eq!(arrival(&outbound), Some(target.parse().unwrap()), "{target}");
    }
    for direct in ["198.51.100.7:2222", "203.0.113.5:80", "[2001:db8:ffff::1]:80"] {
        assert!(!connect(direct, 0), "{direct} is excluded");
    }
    assert!(!connect(NOWHERE, OUTBOUND_MARK) && !connect(NOWHERE, INBOUND_MARK), "own traffic was redirected");
    assert!(!connect_as(UID, NOWHERE) && connect_as(UID + 1, NOWHERE), "the uid decides");
    assert_eq!(arrival(&outbound), Some(NOWHERE.parse().unwrap()));

    for target in ["10.99.0.1:8080", "[fd99::1]:8081"] {
        assert!(connect_from_outside(target), "{target}");
        assert_eq!(arrival(&inbound), Some(target.parse().unwrap()), "{target}");
    }
    assert!(is_refused_from_outside("10.99.0.1:15020"), "an excluded port goes to the workload, which has none open");

    for (target, mark) in [("127.0.0.1:8080", 0), ("10.99.0.1:8080", 0), ("127.0.0.1:8080", OUTBOUND_MARK)] {
        assert!(connect(target, mark), "{target} with mark {mark} is loopback");
        arrival(&app);
    }
    assert!(connect("10.99.0.1:8080", INBOUND_MARK), "the sidecar reaches its workload");
    arrival(&app);
    assert!(connect("10.99.0.1:8080", OUTBOUND_MARK), "the workload calls itself through its service");
    assert_eq!(arrival(&inbound), Some("10.99.0.1:8080".parse().unwrap()));
    for check in CHECK {
        assert!(dial_as(UID, "mesh", &check.to_string()), "the sidecar reaches itself at {check}");
        assert_eq!(arrival(&outbound), Some(check));
    }
    assert!(!dial_as(UID, "mesh", NOWHERE), "a sidecar without privileges was redirected");
    assert!(dial_as(UID, "workload", "10.99.0.1:8080"), "it reaches its workload");
    arrival(&app);
    assert!(dial_as(UID, "mesh", "10.99.0.1:8080"), "and its workload reaches itself");
    assert_eq!(arrival(&inbound), Some("10.99.0.1:8080".parse().unwrap()));
    assert!(!dial_as(UID, "workload", "[fd99::1]:8080"), "nothing listens there, and nothing loops");
    assert_eq!((accepted(&inbound), accepted(&outbound)), (None, None));

    let shown = capture::show().unwrap();
    assert!(shown.contains("15001") && shown.contains("15006"), "{shown}");
    capture::remove().unwrap();
    capture::remove().unwrap();
    assert_eq!(capture::show().unwrap(), "");
    assert!(!connect(NOWHERE, 0), "still redirected");
}

#[test]
fn nftables_redirects() {
    in_namespace("nftables_redirects", "ip", || redirects(Backend::Nft));
}

/// Who only connects, to see whether somebody listens, sees that; and whoever is listened for comes to the sidecar.
#[test]
fn nobody_is_redirected_where_nobody_listens() {
    in_namespace("nobody_is_redirected_where_nobody_listens", "ip", || {
        let (inbound, _outbound) = (sidecar(15006), sidecar(15001));
        capture::apply(&rules(Backend::Nft)).unwrap();
        let both = ["10.99.0.1:8080", "[fd99::1]:8080"];
        for round in 0..2 {
            assert!(both.iter().all(|target| is_refused_from_outside(target)), "round {round}");
            let own = TcpListener::bind("127.0.0.1:8080").unwrap();
            assert!(is_refused_from_outside(both[0]), "loopback is not for the neighbour");
            drop(own);
            let _app = sidecar(8080);
            for target in both {
                assert!(connect_from_outside(target), "{target}");
                assert_eq!(arrival(&inbound), Some(target.parse().unwrap()), "{target}");
            }
        }
        assert!(is_refused_from_outside(both[0]) && accepted(&inbound).is_none());
        let _metrics = TcpListener::bind("0.0.0.0:15020").unwrap();
        assert!(connect_from_outside("10.99.0.1:15020"), "what is excluded is not redirected, and reached");
        assert!(accepted(&inbound).is_none());
    });
}

/// A connection that the neighbour has opened before goes on after, in both directions.
fn leaves_open(backend: Backend) {
    let app = TcpListener::bind("10.99.0.1:8080").unwrap();
    let echo = "exec 3<>/dev/tcp/10.99.0.1/8080; while read -r line <&3; do echo \"$line\" >&3; done";
    let neighbour = std::env::var("NEIGHBOUR").unwrap();
    let patience = (2 * PATIENCE).as_secs().to_string();
    let enter = ["-t", &neighbour, "-n", "timeout", &patience, "bash", "-c", echo];
    let mut caller = Command::new("nsenter").args(enter).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let (mut open, _) = app.accept().unwrap();
    open.set_read_timeout(Some(PATIENCE)).unwrap();
    let _sidecar = (sidecar(15006), sidecar(15001));
    for round in 0..2 {
        capture::apply(&rules(backend)).unwrap();
        open.write_all(b"still\n").unwrap();
        let mut heard = [0; 6];
        open.read_exact(&mut heard).unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert_eq!(&heard, b"still\n");
    }
    drop(open);
    assert!(caller.wait().is_ok());
}

#[test]
fn what_is_open_stays_open() {
    in_namespace("what_is_open_stays_open", "ip", || leaves_open(Backend::Nft));
}

#[test]
fn what_is_open_stays_open_with_iptables() {
    in_namespace("what_is_open_stays_open_with_iptables", "iptables", || leaves_open(Backend::Iptables));
}

/// What `show` says is what the kernel does: nft(8) reads the rules from the kernel and says the same.
#[test]
fn the_rules_are_shown_as_nft_shows_them() {
    in_namespace("the_rules_are_shown_as_nft_shows_them", "nft", || {
        let one = "10.0.0.1,10.0.0.0/8,10.96.0.0/12,0.0.0.0/0,fd00::/8,fd00::1,fe80::/10,::/0";
        let options = [
            format!("--exempt-uid={UID}"),
            "--exclude-outbound-ports=22, 5432".into(),
            format!("--exclude-cidrs={one}"),
        ];
        capture::apply(&Capture::from_options(options.iter().map(String::as_str)).unwrap()).unwrap();
        let listed = Command::new("nft").args(["list", "table", "inet", "selvedge"]).output().unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        let lines = |text: &str| -> Vec<String> {
            let rules = text.lines().map(|line| line.trim().trim_end_matches(" {").to_owned());
            // As newer ones write it.
            let rules = rules.map(|line| line.replace("tcp flags & (syn | ack) != syn", "tcp flags != syn / syn,ack"));
            rules.filter(|line| !line.is_empty() && line != "}" && !line.starts_with("type nat ")).collect()
        };
        assert_eq!(lines(&capture::show().unwrap()), lines(&listed));
    });
}

#[test]
fn iptables_redirects() {
    in_namespace("iptables_redirects", "iptables", || redirects(Backend::Iptables));
}

#[test]
fn iptables_legacy_redirects() {
    in_namespace("iptables_legacy_redirects", "iptables-legacy", || redirects(Backend::IptablesLegacy));
}

#[test]
fn another_backend_takes_over() {
    in_namespace("another_backend_takes_over", "nft", || {
        capture::apply(&rules(Backend::Iptables)).unwrap();
        capture::apply(&rules(Backend::Nft)).unwrap();
        let shown = capture::show().unwrap();
        assert!(shown.contains("table inet selvedge") && !shown.contains("SELVEDGE_"), "{shown}");
    });
}

#[test]
fn rules_without_effect_are_taken_back() {
    in_namespace("rules_without_effect_are_taken_back", "nft", || {
        let fence = "add table inet fence; add chain inet fence out { type filter hook output priority 0; };
            add rule inet fence out tcp dport 15001 drop";
        assert!(Command::new("nft").arg(fence).status().unwrap().success());
        let refused = capture::apply(&rules(Backend::Nft)).unwrap_err();
        assert!(matches!(refused, CaptureError::NotInForce(_)), "{refused}");
        assert_eq!(capture::show().unwrap(), "");
    });
}

#[test]
fn a_connection_that_was_not_redirected_has_no_original_destination() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    assert_eq!(address.ip(), IpAddr::from(Ipv4Addr::LOCALHOST));
    let mut client = TcpStream::connect(address).unwrap();
    assert_eq!(accepted(&listener), Some(None));
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
}

#[test]
fn one_port_for_both_directions_is_refused_before_anything_is_touched() {
    let capture = Capture { inbound_port: 15001, ..Capture::default() };
    let refused = capture::apply(&capture).unwrap_err();
    assert!(matches!(refused, CaptureError::SamePort(15001)), "{refused}");
}

#[test]
fn options_are_read_as_on_a_command_line() {
    let read = Capture::from_options(["--exempt-uid=1337", "--exclude-inbound-ports", "15020, 9090"]).unwrap();
    let expected = Capture { exempt_uid: Some(1337), exclude_inbound_ports: vec![15020, 9090], ..Capture::default() };
    assert_eq!((&read, Capture::from_options([]).unwrap()), (&expected, Capture::default()));
    let line = " --exempt-uid 1337 --exclude-inbound-ports=15020, 9090  --exclude-cidrs=10.0.0.0/8 ,fd00::1";
    let networks = vec!["10.0.0.0/8".parse().unwrap(), "fd00::1".parse().unwrap()];
    assert_eq!(line.parse::<Capture>().unwrap(), Capture { exclude_cidrs: networks, ..expected.clone() });
    assert!("1337".parse::<Capture>().is_err() && "--exempt-uid=root".parse::<Capture>().is_err());
    for bad in ["--exempt-uid=root", "--exempt", "1337", "--help", "--inbound-port=0", "--exclude-cidrs=10"] {
        let refused = Capture::from_options([bad]).unwrap_err().to_string();
        assert!(refused.starts_with("the options for capture cannot be used: "), "{refused}");
        assert_eq!(refused.lines().count(), 1, "{refused}");
    }
}
