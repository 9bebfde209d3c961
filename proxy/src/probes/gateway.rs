//! The default gateways of this network namespace. In a pod that is where its node is, mostly with the address from which
//! the kubelet asks (bridges, Flannel).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Of both families, as the kernel has them now.
pub(crate) fn addresses() -> Vec<IpAddr> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default(); // without the family there is no such file
    let (v4, v6) = (read("/proc/net/route"), read("/proc/net/ipv6_route"));
    v4.lines().filter_map(of_ipv4).chain(v6.lines().filter_map(of_ipv6)).collect()
}

/// A line of `/proc/net/route`: interface, destination, gateway, ... with addresses as the machine writes a number.
fn of_ipv4(line: &str) -> Option<IpAddr> {
    let mut fields = line.split_whitespace().skip(1);
    let (destination, gateway) = (fields.next()?, fields.next()?);
    let gateway = u32::from_str_radix(gateway, 16).ok().filter(|gateway| *gateway != 0)?;
    (destination == "00000000").then(|| Ipv4Addr::from(gateway.to_ne_bytes()).into())
}

/// A line of `/proc/net/ipv6_route`: destination, its length, source, its length, next hop, ...
fn of_ipv6(line: &str) -> Option<IpAddr> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let &[destination, length, _, _, gateway, ..] = fields.as_slice() else { return None };
    let gateway = u128::from_str_radix(gateway, 16).ok().filter(|gateway| *gateway != 0)?;
    let is_default = length == "00" && destination.bytes().all(|digit| digit == b'0');
    is_default.then(|| Ipv6Addr::from(gateway).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn the_default_gateway_of_ipv4_is_found() {
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                     eth0\t00000000\t0101F40A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                     eth0\t0001F40A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        assert_eq!(table.lines().filter_map(of_ipv4).collect::<Vec<_>>(), [IpAddr::from([10, 244, 1, 1])]);
    }

    #[test]
    fn the_default_gateway_of_ipv6_is_found() {
        let zeros = "0".repeat(32);
        let (gateway, network) = (format!("fd00{}1", "0".repeat(27)), format!("fd00{}", "0".repeat(28)));
        let table = format!(
            "{zeros} 00 {zeros} 00 {gateway} 00000400 00000001 00000000 00000003 eth0\n\
             {network} 40 {zeros} 00 {zeros} 00000100 00000001 00000000 00000001 eth0\n\
             {zeros} 00 {zeros} 00 {zeros} ffffffff 00000001 00000000 00200200 lo\n"
        );
        let found: Vec<IpAddr> = table.lines().filter_map(of_ipv6).collect();
        assert_eq!(found, ["fd00::1".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn what_is_no_table_has_no_gateway() {
        for line in ["", "x", "eth0 00000000", "eth0 00000000 zz", "1 2 3 4", "0 00 0 00 zz"] {
            assert_eq!((of_ipv4(line), of_ipv6(line)), (None, None), "{line}");
        }
    }
}
