//! A node in namespaces of its own: a bridge, pods on it, and the chain of network plugins that a runtime would call. The
//! node calls its pods from the bridge's address, which is none of theirs.

use std::{
    fs,
    io::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use selvedge_tests::namespace::Namespaces;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

/// Where Debian keeps the plugins of the CNI project.
const PLUGINS: &str = "/usr/lib/cni";
/// Where pods find the control plane, on the node.
pub(crate) const CONTROL_PLANE_PORT: u16 = 15010;

/// Runs the test named `name` again in new network, mount and process namespaces, or `body` when this is that run.
pub(crate) fn in_namespace<F: Future<Output = ()>>(name: &str, needs: &[&str], body: impl FnOnce() -> F) {
    let programs: Vec<&str> = needs.iter().copied().filter(|need| !Path::new(PLUGINS).join(need).exists()).collect();
    let setup = format!(
        "ip link set lo up
        mkdir -p /run/netns
        mount -t tmpfs none /run/netns
        ip link add cbr0 type bridge
        ip addr add {v4}/24 dev cbr0; ip -6 addr add {v6}/64 dev cbr0 nodad; ip link set cbr0 up",
        v4 = Families::V4.gateway(),
        v6 = Families::V6.gateway()
    );
    let new = &["-n", "-m", "--pid", "--fork", "--kill-child", "--mount-proc"];
    Namespaces { new, needs: &programs, setup: &setup }.run(name, body);
}

/// The addresses of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Families {
    V4,
    V6,
    Both,
}

impl Families {
    /// The node's address on the bridge.
    pub(crate) fn gateway(self) -> IpAddr {
        match self {
            Self::V6 => Ipv6Addr::new(0xfd44, 0, 0, 0, 0, 0, 0, 1).into(),
            Self::V4 | Self::Both => Ipv4Addr::new(10, 244, 0, 1).into(),
        }
    }

    /// What an application binds that listens on all addresses.
    pub(crate) fn any(self) -> IpAddr {
        if self == Self::V4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
    }
}

/// A pod's sandbox: a network namespace, and its addresses.
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) families: Families,
    pub(crate) addresses: Vec<IpAddr>,
}

impl Pod {
    /// The path of its network namespace.
    pub(crate) fn netns(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// Its first address, with the port of an application.
    pub(crate) fn address(&self) -> SocketAddr {
        self.at(super::APPLICATION_PORT)
    }

    /// `port` at its first address.
    pub(crate) fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.addresses[0], port)
    }

    /// Takes the addresses that a network plugin gave it.
    pub(crate) fn take(&mut self, result: &Value) {
        let given = result["ips"].as_array().unwrap_or_else(|| panic!("no address in {result}"));
        let address = |ip: &Value| ip["address"].as_str().unwrap().split('/').next().unwrap().parse().unwrap();
        self.addresses = given.iter().map(address).collect();
    }

    /// Does something with the pod's network.
    pub(crate) fn within<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let namespace = fs::File::open(self.netns()).unwrap();
        let moved = move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        };
        thread::spawn(moved).join().unwrap()
    }
}

/// The node, with a way to the control plane for its pods.
pub(crate) struct Node {
    _control_plane: tokio::task::JoinHandle<()>,
}

impl Node {
    pub(crate) async fn start(control_plane: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, CONTROL_PLANE_PORT)).await.unwrap();
        let relay = async move {
            while let Ok((mut caller, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let Ok(mut called) = TcpStream::connect(control_plane).await else { return };
                    let _ = tokio::io::copy_bidirectional(&mut caller, &mut called).await;
                });
            }
        };
        Self { _control_plane: tokio::spawn(relay) }
    }

    /// A pod without a network yet.
    pub(crate) fn bare(&self, name: &str) -> Pod {
        run(&format!("ip netns add {name}; ip -n {name} link set lo up"));
        Pod { name: name.to_owned(), families: Families::Both, addresses: Vec::new() }
    }

    /// A pod with addresses that end in `number`.
    pub(crate) fn pod(&self, name: &str, number: u8, families: Families) -> Pod {
        let mut pod = self.bare(name);
        let off = if families == Families::V4 {
            "ip netns exec POD sh -c 'echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6'\n"
        } else {
            ""
        };
        let v4 = "ip -n POD addr add 10.244.0.NUMBER/24 dev eth0\nip -n POD route add default via 10.244.0.1\n";
        let v6 = "ip -n POD -6 addr add fd44::NUMBER/64 dev eth0 nodad\nip -n POD -6 route add default via fd44::1\n";
        let addresses = match families {
            Families::V4 => v4.to_owned(),
            Families::V6 => v6.to_owned(),
            Families::Both => [v4, v6].concat(),
        };
        let script = format!(
            "set -e\nip link add vNUMBER type veth peer name eth0 netns POD\nip link set vNUMBER master cbr0 up\n{off}\
             ip -n POD link set eth0 up\n{addresses}"
        );
        run(&script.replace("POD", name).replace("NUMBER", &number.to_string()));
        pod.families = families;
        let (v4, v6) = (Ipv4Addr::new(10, 244, 0, number), Ipv6Addr::new(0xfd44, 0, 0, 0, 0, 0, 0, number.into()));
        pod.addresses = match families {
            Families::V4 => vec![v4.into()],
            Families::V6 => vec![v6.into()],
            Families::Both => vec![v4.into(), v6.into()],
        };
        pod
    }

    /// The cluster's own network plugins, configured in `folder`, where a runtime reads them.
    pub(crate) fn chain(&self, folder: &Path) -> Chain {
        let (bin, conf) = (folder.join("bin"), folder.join("net.d"));
        for made in [&bin, &conf] {
            fs::create_dir_all(made).unwrap();
        }
        let list = json!({
            "cniVersion": "1.0.0", "name": "pods",
            "plugins": [{
                "type": "bridge", "bridge": "cbr0", "isGateway": true,
                "ipam": {
                    "type": "host-local", "dataDir": folder.join("leases"),
                    "ranges": [[{ "subnet": "10.244.0.0/24" }], [{ "subnet": "fd44::/64" }]],
                    "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }]
                }
            }]
        });
        fs::write(conf.join("10-pods.conflist"), list.to_string()).unwrap();
        Chain { list: conf.join("10-pods.conflist"), bin }
    }
}

fn run(script: &str) {
    let output = Command::new("sh").args(["-c", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The chain of network plugins, called as a runtime does.
pub(crate) struct Chain {
    list: PathBuf,
    bin: PathBuf,
}

impl Chain {
    fn read(&self) -> Value {
        serde_json::from_str(&fs::read_to_string(&self.list).unwrap()).unwrap()
    }

    /// The types of its plugins.
    pub(crate) fn names(&self) -> Vec<String> {
        let list = self.read();
        list["plugins"].as_array().unwrap().iter().map(|plugin| plugin["type"].as_str().unwrap().to_owned()).collect()
    }

    /// Calls every plugin, and returns the result of the last one, or what the first that fails says.
    pub(crate) fn call(&self, command: &str, pod: &Pod, annotations: &Value) -> Result<Value, Value> {
        let list = self.read();
        let mut plugins = list["plugins"].as_array().unwrap().clone();
        let kept = self.bin.join(format!("{}.result", pod.name));
        let mut result = match command {
            "ADD" => Value::Null,
            _ => serde_json::from_slice(&fs::read(&kept).unwrap()).unwrap(),
        };
        if command == "DEL" {
            plugins.reverse();
        }
        for mut plugin in plugins {
            for key in ["cniVersion", "name"] {
                plugin[key] = list[key].clone();
            }
            let annotations_key = "io.kubernetes.cri.pod-annotations";
            if plugin["capabilities"][annotations_key] == true {
                plugin["runtimeConfig"] = json!({ annotations_key: annotations });
            }
            if !result.is_null() {
                plugin["prevResult"] = result.clone();
            }
            let said = self.start(command, pod, &plugin)?;
            if command == "ADD" {
                result = said;
            }
        }
        if command == "ADD" {
            fs::write(&kept, result.to_string()).unwrap();
        }
        Ok(result)
    }

    fn start(&self, command: &str, pod: &Pod, plugin: &Value) -> Result<Value, Value> {
        let name = plugin["type"].as_str().unwrap();
        let path =
            [&self.bin, Path::new(PLUGINS)].map(|folder| folder.join(name)).into_iter().find(|path| path.exists());
        let mut process = Command::new(path.unwrap_or_else(|| panic!("there is no plugin {name}")));
        process.env("CNI_COMMAND", command).env("CNI_CONTAINERID", &pod.name).env("CNI_NETNS", pod.netns());
        process.env("CNI_IFNAME", "eth0").env("CNI_PATH", format!("{}:{PLUGINS}", self.bin.display()));
        process.env("CNI_ARGS", format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME={}", pod.name));
        let mut process = process.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        process.stdin.take().unwrap().write_all(plugin.to_string().as_bytes()).unwrap();
        let output = process.wait_with_output().unwrap();
        let said = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        if output.status.success() { Ok(said) } else { Err(said) }
    }
}
