//! What a pod needs of its cluster whatever happens: the API server and the name servers. They are asked for at the start
//! and never forgotten, so that they are called as they always are while the control plane is away.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
};

use crate::bootstrap::{Bootstrap, Capture};

/// Where a container finds the name servers (resolv.conf(5)).
const RESOLV_CONF: &str = "/etc/resolv.conf";
const DNS: u16 = 53;

/// The names of these, for the sidecar of a captured pod.
pub(super) fn needed(bootstrap: &Bootstrap) -> Vec<String> {
    if bootstrap.capture != Capture::Transparent || bootstrap.service_account_token_file.is_none() {
        return Vec::new();
    }
    let resolv_conf = fs::read_to_string(RESOLV_CONF).unwrap_or_default();
    let api_server = api_server(|name| std::env::var(name).ok());
    name_servers(&resolv_conf).chain(api_server).map(|address| address.to_string()).collect()
}

/// The address of the API server, as a kubelet tells each container.
fn api_server(variable: impl Fn(&str) -> Option<String>) -> Option<SocketAddr> {
    let host: IpAddr = variable("KUBERNETES_SERVICE_HOST")?.parse().ok()?;
    Some(SocketAddr::new(host, variable("KUBERNETES_SERVICE_PORT")?.parse().ok()?))
}

fn name_servers(resolv_conf: &str) -> impl Iterator<Item = SocketAddr> {
    let named = resolv_conf.lines().filter_map(|line| line.trim_start().strip_prefix("nameserver"));
    let addresses = named.filter_map(|rest| rest.split_whitespace().next()?.parse::<IpAddr>().ok());
    addresses.filter(|address| !address.is_loopback()).map(|address| SocketAddr::new(address, DNS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_says_where_its_api_server_and_name_servers_are() {
        let pod = |name: &str| match name {
            "KUBERNETES_SERVICE_HOST" => Some("fd00::1".to_owned()),
            "KUBERNETES_SERVICE_PORT" => Some("443".to_owned()),
            _ => None,
        };
        assert_eq!(api_server(pod), "[fd00::1]:443".parse().ok());
        assert_eq!(api_server(|_| None), None);
        let text = "search shop.svc.cluster.local\nnameserver 10.96.0.10\n nameserver\tfd00::a # second\n\
                    nameserver 127.0.0.53\nnameserver\nnameserver x\noptions ndots:5\n";
        let found: Vec<String> = name_servers(text).map(|address| address.to_string()).collect();
        assert_eq!(found, ["10.96.0.10:53", "[fd00::a]:53"]);
    }
}
