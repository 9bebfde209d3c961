//! The annotations that tune a sidecar: one list, from which the injector, its policy, the warnings, the JSON schema and
//! the page are made.
//!
//! A value that is not of its form is warned of and counts as absent. So no text of a user's reaches the sidecar's file
//! without having matched an expression that leaves no room for another meaning.

use serde_json::{Map, Value, json};

use crate::{
    form::{Form, LONGEST},
    pod::{self, Request},
    setting::{self, Setting},
};

/// What every key begins with.
pub const PREFIX: &str = "config.selvedge.dev/";

/// One annotation that users may write.
#[derive(Debug)]
pub struct Annotation {
    /// The key, without [`PREFIX`].
    pub key: &'static str,
    /// What may be written.
    pub form: Form,
    /// What counts where nothing is written.
    pub fallback: Fallback,
    /// What it does, for people.
    pub summary: &'static str,
}

/// What counts where an annotation is absent.
#[derive(Debug)]
pub enum Fallback {
    /// Nothing is said.
    Nothing,
    /// A fixed text.
    Text(&'static str),
    /// What the administrator has set.
    Setting(&'static Setting),
}

const PORTS: Form =
    Form { expects: "ports with commas between them, such as 9090,9091", written: "^PORT( *, *PORT)*$" };
const RANGES: Form = Form {
    expects: "addresses or networks with commas between them, such as 10.1.0.1",
    written: "^RANGE( *, *RANGE)*$",
};
const MEMORY: Form = Form {
    expects: "an amount of memory, such as 64Mi",
    written: "^([1-9][0-9]{0,11}|[1-9][0-9]{0,8}(Ki|Mi|Gi|k|M|G))$",
};

/// How connections reach the sidecar.
pub const CAPTURE: Annotation = Annotation {
    key: "capture",
    form: setting::CAPTURES,
    fallback: Fallback::Setting(&setting::CAPTURE),
    summary: "how connections reach the sidecar: not by themselves, by rules of an init container, or by the CNI plugin",
};

/// Ports at which the sidecar stands before ports of the application.
pub const INBOUND: Annotation = Annotation {
    key: "inbound",
    form: Form {
        expects: "pairs of the sidecar's port and the application's on 127.0.0.1, such as 8443=8080,9443=9090",
        written: "^PORT=PORT( *, *PORT=PORT)*$",
    },
    fallback: Fallback::Nothing,
    summary: "with `capture: none`, the sidecar's ports for callers and the application's port on 127.0.0.1 behind each",
};

/// Ports at which the application reaches services through the sidecar.
pub const OUTBOUND: Annotation = Annotation {
    key: "outbound",
    form: Form {
        expects: "pairs of a port on 127.0.0.1 and the service meant, such as 9001=shop/api:80",
        written: "^PORT=NAME/NAME:PORT( *, *PORT=NAME/NAME:PORT)*$",
    },
    fallback: Fallback::Nothing,
    summary: "with `capture: none`, the ports on 127.0.0.1 where the application finds services, and which",
};

/// Ports of the application that are not captured.
pub const EXCLUDE_INBOUND_PORTS: Annotation = Annotation {
    key: "exclude-inbound-ports",
    form: PORTS,
    fallback: Fallback::Nothing,
    summary: "ports of the application that are reached past the sidecar",
};

/// Ports elsewhere that the application reaches directly.
pub const EXCLUDE_OUTBOUND_PORTS: Annotation = Annotation {
    key: "exclude-outbound-ports",
    form: PORTS,
    fallback: Fallback::Nothing,
    summary: "ports elsewhere that the application reaches past the sidecar",
};

/// Networks that the application reaches directly.
pub const EXCLUDE_CIDRS: Annotation = Annotation {
    key: "exclude-cidrs",
    form: Form {
        expects: "networks with commas between them, such as 10.0.0.0/8,fd00::/8",
        written: "^NETWORK( *, *NETWORK)*$",
    },
    fallback: Fallback::Nothing,
    summary: "networks that the application reaches past the sidecar",
};

/// Further addresses that probes come from.
pub const PROBERS: Annotation = Annotation {
    key: "probers",
    form: RANGES,
    fallback: Fallback::Nothing,
    summary: "addresses that probes come from, beside those of the node",
};

/// Who reads the application's metrics without an identity.
pub const SCRAPERS: Annotation = Annotation {
    key: "scrapers",
    form: RANGES,
    fallback: Fallback::Nothing,
    summary: "addresses outside the mesh that may read the application's metrics, at the port and path of the annotations \
              `prometheus.io/port` and `prometheus.io/path`, and nothing else",
};

/// Whether the application's metrics are served with the sidecar's.
pub const METRICS: Annotation = Annotation {
    key: "metrics",
    form: Form { expects: "merge", written: "^merge$" },
    fallback: Fallback::Nothing,
    summary: "`merge`: the sidecar's metrics port serves the application's metrics too, which it gets from the port and path \
              of the annotations `prometheus.io/port` and `prometheus.io/path`",
};

/// Whether the services that a gateway means are found by `Host`.
pub const INGRESS: Annotation = Annotation {
    key: "ingress",
    form: Form { expects: "host", written: "^host$" },
    fallback: Fallback::Nothing,
    summary: "`host`: of a gateway, which services it means is said by the `Host` of each request, whatever address that goes to",
};

/// Worker threads of the sidecar.
pub const WORKERS: Annotation = Annotation {
    key: "workers",
    form: Form { expects: "a number from 1 to 256", written: "^([1-9]|[1-9][0-9]|1[0-9][0-9]|2[0-4][0-9]|25[0-6])$" },
    fallback: Fallback::Nothing,
    summary: "worker threads of the sidecar",
};

/// User id of the sidecar.
pub const UID: Annotation = Annotation {
    key: "uid",
    form: setting::USER,
    fallback: Fallback::Setting(&setting::UID),
    summary: "user and group id of the sidecar; the application must not run as it",
};

/// CPU that the sidecar requests.
pub const CPU_REQUEST: Annotation = Annotation {
    key: "cpu-request",
    form: Form {
        expects: "an amount of CPU, such as 100m",
        written: "^([1-9][0-9]{0,5}m|[1-9][0-9]{0,2}([.][0-9]{1,3})?|0[.](0{0,2}[1-9]|0?[1-9][0-9]|[1-9][0-9]{2}))$",
    },
    fallback: Fallback::Text("10m"),
    summary: "CPU that the sidecar requests; there is no limit",
};

/// Memory that the sidecar requests.
pub const MEMORY_REQUEST: Annotation = Annotation {
    key: "memory-request",
    form: MEMORY,
    fallback: Fallback::Text("20Mi"),
    summary: "memory that the sidecar requests",
};

/// Memory that the sidecar may use at most.
pub const MEMORY_LIMIT: Annotation = Annotation {
    key: "memory-limit",
    form: MEMORY,
    fallback: Fallback::Nothing,
    summary: "memory that the sidecar may use; raised to what it requests, and to 16Mi, where it is less",
};

/// How long a drain lasts at most.
pub const DRAIN_DEADLINE: Annotation = Annotation {
    key: "drain-deadline",
    form: Form { expects: "a duration, such as 30s", written: "^([0-9]{1,5}(h|m|s|ms)){1,4}$" },
    fallback: Fallback::Nothing,
    summary: "how long the sidecar finishes what is in flight at most; `drainDeadline` of its file",
};

/// What the sidecar logs.
pub const LOG: Annotation = Annotation {
    key: "log",
    form: Form { expects: "error, warn, info, debug or trace", written: "^(error|warn|info|debug|trace)$" },
    fallback: Fallback::Nothing,
    summary: "what the sidecar logs of itself",
};

/// Every annotation, in the order of the page.
pub const ANNOTATIONS: [&Annotation; 17] = [
    &CAPTURE,
    &INBOUND,
    &OUTBOUND,
    &EXCLUDE_INBOUND_PORTS,
    &EXCLUDE_OUTBOUND_PORTS,
    &EXCLUDE_CIDRS,
    &PROBERS,
    &SCRAPERS,
    &METRICS,
    &INGRESS,
    &WORKERS,
    &UID,
    &CPU_REQUEST,
    &MEMORY_REQUEST,
    &MEMORY_LIMIT,
    &DRAIN_DEADLINE,
    &LOG,
];

impl Annotation {
    /// The whole key, as users write it.
    pub fn name(&self) -> String {
        format!("{PREFIX}{}", self.key)
    }

    /// What stands before and behind a value in what is said where it is not of its form.
    pub(crate) fn ignored(&self) -> (String, String) {
        (format!("{} is '", self.name()), format!("', which is ignored: expected {}", self.form.expects))
    }

    /// What counts for a pod, without spaces: what is written if it is of the form that is expected, else the fallback;
    /// empty where nothing is said.
    pub fn of(&self, request: &Request<'_>) -> String {
        let written = pod::annotation(request.pod, &self.name());
        if self.form.takes(written) {
            return written.replace(' ', "");
        }
        match self.fallback {
            Fallback::Nothing => String::new(),
            Fallback::Text(text) => text.to_owned(),
            Fallback::Setting(setting) => request.settings.get(setting).unwrap_or_default().to_owned(),
        }
    }
}

/// The annotations of a pod as a JSON schema: every key that there is, and no other with [`PREFIX`].
pub fn schema() -> Value {
    let property = |annotation: &&Annotation| {
        let mut property = json!({
            "type": "string",
            "description": annotation.summary,
            "pattern": annotation.form.pattern(),
            "maxLength": LONGEST,
        });
        if let Fallback::Text(text) = annotation.fallback {
            property["default"] = text.into();
        }
        (annotation.name(), property)
    };
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Annotations of a pod that Selvedge reads",
        "type": "object",
        "properties": ANNOTATIONS.iter().map(property).collect::<Map<_, _>>(),
        "patternProperties": { format!("^{}", PREFIX.replace('.', "[.]")): {
            "enum": [],
            "description": "no other key begins so",
        } },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_taken_as_documented_and_nothing_else() {
        for (annotation, taken, refused) in [
            (&CAPTURE, &["none", "init", "cni"][..], &["", "None", "init\n", "init,cni", "$(A)"][..]),
            (&INBOUND, &["8443=8080", "1=65535 , 2=3"], &["8443", "8443=65536", "0=1", "8443=8080,", "[::]:1=2"]),
            (
                &OUTBOUND,
                &["9001=shop/api:80", "1=a/b:2, 3=c/d:4"],
                &["9001=api:80", "9001=shop/api", "1=A/b:2", "1=a/b:2;"],
            ),
            (&EXCLUDE_INBOUND_PORTS, &["1", "1,2 , 65535"], &["1;2", "a", "-1", "1,,2", "1\n2"]),
            (
                &EXCLUDE_CIDRS,
                &["10.0.0.0/8", "10.0.0.0/8,fd00::/8", "::/0"],
                &["10.0.0.1", "10/8", "a/8", "10.0.0.0/33", "10.0.0.0/8 -j"],
            ),
            (&PROBERS, &["10.0.0.1", "fe80::1,10.0.0.0/24"], &["node", "10.0.0.256", "10.0.0.1\"", "$(X)"]),
            (&UID, &["1", "1337", "1000680000"], &["0", "root", "01", "2000000000", "-1"]),
            (&CPU_REQUEST, &["10m", "2", "0.5"], &["10 m", "1e3", "0", "-1m"]),
            (&MEMORY_LIMIT, &["64Mi", "134217728", "1Gi"], &["64MB", "1.5Gi", "0"]),
            (&WORKERS, &["1", "256"], &["0", "257", "two"]),
            (&DRAIN_DEADLINE, &["30s", "1m30s"], &["30", "1d"]),
        ] {
            for value in taken {
                assert!(annotation.form.takes(value), "{}: {value}", annotation.key);
            }
            for value in refused {
                assert!(!annotation.form.takes(value), "{}: {value:?}", annotation.key);
            }
        }
    }

    #[test]
    fn every_fallback_is_a_value_that_could_be_written() {
        for annotation in ANNOTATIONS {
            if let Fallback::Text(text) = annotation.fallback {
                assert!(annotation.form.takes(text), "{}", annotation.key);
            }
        }
    }
}
